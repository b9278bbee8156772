"""Which photo becomes the reference of which pairs, and what each pair's caption is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from iy.errors import UserError
from iy.params import Params
from iy.records import accepted
from iy.synpairs.rewriters import Request, Rewrite, Rewriter, derived_seed, rewrite


@dataclass(frozen=True)
class Plan:
    """A pair to be made. reference: PHOTO row; number: of the pair among the person's; seed: of all its noise."""

    reference: dict
    number: int
    seed: int
    rewrite: Rewrite


def references(rows: Sequence[dict], per_person: int, seed: int) -> list[tuple[dict, int]]:
    """(photo, number) for every pair: the training people's accepted photos in an order that only `seed` decides,
    in turn."""
    people: dict[str, list[dict]] = {}
    for row in accepted(list(rows)):
        if row["split"] == "train":
            people.setdefault(row["person"], []).append(row)
    if not people:
        raise UserError(
            "synpairs: the curated photos hold no accepted photo of a training person: add photos of more people, "
            "or lower curate.validation_people and curate.test_people"
        )
    chosen = []
    for person in sorted(people):
        photos = sorted(people[person], key=lambda row: derived_seed(seed, row["id"]))
        chosen += [(photo, number) for number, photo in enumerate(islice(cycle(photos), per_person))]
    return chosen


def plans(chosen: Sequence[tuple[dict, int]], rewriter: Rewriter, params: Params) -> list[Plan]:
    """Rewrite the captions of `references`' choice; a caption that could not be rewritten keeps its problem."""
    seeds = [derived_seed(params.seed, photo["id"], number) for photo, number in chosen]
    asked = [
        Request(photo["caption"] or "A photo of a person.", seed)
        for (photo, _), seed in zip(chosen, seeds, strict=True)
    ]
    rewrites = rewrite(rewriter, asked, params.synpairs.rewriter_attempts)
    return [
        Plan(photo, number, seed, text) for (photo, number), seed, text in zip(chosen, seeds, rewrites, strict=True)
    ]
