"""The benchmark: held-out people, their reference, another photo and gallery; prompts that speak of the shot alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iy import lexicon
from iy.errors import UserError
from iy.records import accepted

ASKED = ("expression", "pose", "backdrop", "garment", "garment_colour", "light")


@dataclass(frozen=True)
class Prompt:
    """text names no attribute of a person; attributes are what it asks for."""

    text: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class Subject:
    """PHOTO rows of one held-out person. other: the photo t; gallery: all photos except the reference."""

    person: str
    reference: dict
    other: dict
    gallery: list[dict]


def prompts(count: int, seed: int) -> list[Prompt]:
    """`count` prompts whose attributes' values are used as evenly as `count` allows, combined at random by `seed`."""
    rng = np.random.default_rng([seed, 7])
    columns = {name: evenly(list(lexicon.LEXICON[name]), count, rng) for name in ASKED}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(count)]
    return [Prompt(lexicon.describe(row, rng, person=False), row) for row in rows]


def evenly(values: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` values in random order, no value used twice more than another."""
    rounds = [rng.permutation(values) for _ in range(-(-count // len(values)))]
    return [str(value) for value in np.concatenate(rounds)[:count]]


def subjects(rows: Sequence[dict], count: int, seed: int) -> list[Subject]:
    """Test people with at least two accepted photos, `count` at most; which ones and which photos only `seed`
    decides."""
    people: dict[str, list[dict]] = {}
    for row in accepted(list(rows)):
        if row["split"] == "test":
            people.setdefault(row["person"], []).append(row)
    names = sorted((name for name, photos in people.items() if len(photos) > 1), key=lambda name: order(seed, name))
    if len(names) < 2:
        raise UserError(
            f"evaluate needs at least two test people with two photos each, found {len(names)}: add photos of more "
            "persons, or raise curate.test_people"
        )
    chosen = []
    for name in sorted(names[:count]):
        reference, *rest = sorted(people[name], key=lambda row: order(seed, row["id"]))
        chosen.append(Subject(name, reference, rest[0], rest))
    return chosen


def order(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
