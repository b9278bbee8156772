"""Putting people on the lists: from photographs, or from what curate read of those that are erased."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from iy import names, params, pictures, records
from iy.errors import UserError
from iy.faces import load_analyser, recogniser_name, rivals
from iy.policy import people
from iy.policy.people import BLOCKED, Person


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def read_faces(
    settings: params.Params, name: str, photos: Sequence[Path], kind: Literal["allowed", "blocked"]
) -> Person:
    """Put the person in these photographs on a list; the photographs must show one face each."""
    called = names.clean(name)
    if not called:
        raise UserError("the name is empty: say what this person is called on the list")
    analyser = load_analyser(settings.faces, settings.usage, settings.device)
    limits = pictures.Limits(settings.photos.maximum_pixels, settings.photos.maximum_side)
    faces = []
    for path in photos:
        try:
            image = pictures.decode(pictures.contents(path), *limits)
        except pictures.Unreadable as reason:
            raise UserError(f"{path}: {reason}: give a JPEG, PNG or HEIC photograph") from None
        found = analyser.detect(image)
        if not found or rivals(found) > 1:
            raise UserError(
                f"{path}: {rivals(found) if found else 'no'} faces were found: give photographs of one person"
            )
        faces.append([round(float(one), 6) for one in analyser.embed(image, found[0])])
    person = Person(called, kind, recogniser_name(analyser), faces, today())
    people.add(Path(settings.policy.people), person)
    return person


def block_erased(folder: Path, photos: Iterable[str]) -> int:
    """Before these photos are erased: put what curate read of their faces on the block list, without a name.

    How many faces. One entry for each recogniser that read some.
    """
    wanted, found = set(photos), defaultdict(dict)
    for table in sorted(Path("data").glob("*/curate/photos.parquet")):
        columns, read = ["id", "embedding", "recogniser"], pc.field("embedding").is_valid()
        for row in records.read(table, records.PHOTO, columns, where=read):
            if row["id"] in wanted:
                found[row["recogniser"]][row["id"]] = row["embedding"]
    name = f"erased {today()} ({1 + len(people.read(folder))})"
    for recogniser, faces in found.items():
        values = [[round(float(one), 6) for one in face] for face in faces.values()]
        people.add(folder, Person(name, BLOCKED, recogniser, values, today()))
    return sum(map(len, found.values()))
