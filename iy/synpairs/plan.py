"""Which photo becomes the reference of which pairs, and what each pair's caption is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from iy import records
from iy.errors import UserError
from iy.params import Params, SynPairs
from iy.seeds import derived_seed
from iy.synpairs.asking import Request
from iy.synpairs.rewriters import Rewrite, Rewriter, rewrite


@dataclass(frozen=True)
class Plan:
    """A pair to be made. reference: PHOTO row; number: of the pair among the person's; seed: of all its noise."""

    reference: dict
    number: int
    seed: int
    rewrite: Rewrite


def training_photos(table: Path) -> list[dict]:
    """Id and person of the accepted photos of training people: little, for there may be millions of them."""
    return records.read(table, records.PHOTO, ["id", "person", "split", "verdict"], records.usable("train"))


def whole(table: Path, photos: Iterable[dict]) -> dict[str, dict]:
    """The PHOTO rows of some of them by id."""
    ids = pc.field("id").isin(pa.array({photo["id"] for photo in photos}, pa.string()))
    return {row["id"]: row for row in records.read(table, records.PHOTO, where=records.usable("train") & ids)}


def chosen_photos(table: Path, settings: SynPairs, seed: int) -> list[tuple[dict, int]]:
    """`references` of a table, with their whole rows."""
    chosen = references(training_photos(table), settings.pairs_per_person, seed)
    rows = whole(table, (photo for photo, _ in chosen))
    return [(rows[photo["id"]], number) for photo, number in chosen]


def references(photos: Sequence[dict], per_person: int, seed: int) -> list[tuple[dict, int]]:
    """(photo, number) for every pair: the training people's photos in an order that only `seed` decides, in turn."""
    people: dict[str, list[dict]] = {}
    for photo in photos:
        people.setdefault(photo["person"], []).append(photo)
    if not people:
        raise UserError(
            "synpairs: the curated photos hold no accepted photo of a training person: add photos of more people, "
            "or lower curate.validation_people and curate.test_people"
        )
    chosen = []
    for person in sorted(people):
        own = sorted(people[person], key=lambda photo: derived_seed(seed, photo["id"]))
        chosen += [(photo, number) for number, photo in enumerate(islice(cycle(own), per_person))]
    return chosen


def plans(chosen: Sequence[tuple[dict, int]], rewriter: Rewriter, settings: Params) -> list[Plan]:
    """Rewrite the captions of `references`' choice; a caption that could not be rewritten keeps its problem."""
    seeds = [derived_seed(settings.seed, photo["id"], number) for photo, number in chosen]
    asked = [
        Request(photo["caption"] or "A photo of a person.", seed)
        for (photo, _), seed in zip(chosen, seeds, strict=True)
    ]
    rewrites = rewrite(rewriter, asked, settings.synpairs.rewriter_attempts)
    return [
        Plan(photo, number, seed, text) for (photo, number), seed, text in zip(chosen, seeds, rewrites, strict=True)
    ]
