"""From the rows of a job table to what is drawn: an order each, every option settled, every file's name safe."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from iy import names, params
from iy.errors import UserError
from iy.jobs import columns
from iy.jobs.columns import Asked, Wrong

OURS = re.compile(r"(picture|sheet)-\d+", re.IGNORECASE)  # what files are called that no row names
UNSAFE = re.compile(r'[<>:"/\\|?*]')  # in names of files, somewhere
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # not files on Windows
LONGEST_NAME = 200  # bytes
WIDEST = 4  # times the model's own side: what is larger would fill the memory of all the rows' pictures
UNSAID = "not a name that every system takes for a file in one folder: use letters, digits, - and _"


class Source(NamedTuple):
    """Where a face comes from: a photograph's file (photo), or a person of the collection."""

    kind: str
    name: str


class How(NamedTuple):
    """What all pictures of one batch share. branches: strengths by name, sorted; people: how many are in a picture."""

    steps: int
    guidance: float
    identity_guidance: float
    rescale: float
    width: int
    height: int
    branches: tuple[tuple[str, float], ...]
    people: int
    placed: bool


class Order(NamedTuple):
    """One picture. file: its name in the output folder; strengths: a number a person; regions: a box a person."""

    row: int
    file: str
    prompt: str
    negative: str | None
    seed: int
    people: tuple[Source, ...]
    strengths: tuple[float, ...]
    regions: tuple[tuple[float, ...], ...]
    how: How


class Refused(NamedTuple):
    """A row that is not drawn. row: None where the table itself breaks off."""

    row: int | None
    reason: str

    def told(self) -> str:
        return self.reason if self.row is None else f"row {self.row}, {self.reason}"


class Defaults(NamedTuple):
    """What holds where a row says nothing. side: pixels; branches: the model's, whose strength may be asked for."""

    draw: params.Draw
    seed: int
    side: int
    branches: frozenset[str]


def read(table: Path, defaults: Defaults) -> tuple[list[Order], list[Refused]]:
    """The orders of a table, in its rows' order, and the rows that are none."""
    if table.suffix.lower() not in columns.spreadsheet.TABLES:
        kinds = ", ".join(columns.spreadsheet.TABLES)
        raise UserError(f"--table {table} is no table: name a file that ends in {kinds}")
    if not table.is_file():
        raise UserError(f"--table {table}: there is no such file")
    orders, refused, taken = [], [], {}
    for row in columns.rows(table):
        try:
            found = columns.asked(row)
            one = order(found, row.number or 0, table.parent, defaults)
            if (first := taken.setdefault(alike(one.file), one.row)) != one.row:
                raise Wrong(f"column name: {one.file!r} is row {first}'s: give each picture its own")
            orders.append(one)
        except Wrong as wrong:
            refused.append(Refused(row.number, str(wrong)))
    return orders, refused


def order(found: Asked, row: int, folder: Path, defaults: Defaults) -> Order:
    people = tuple(sources(found, folder))
    return Order(
        row=row,
        file=file_name(found.name, row),
        prompt=found.prompt,
        negative=found.negative_prompt,
        seed=either(found.seed, defaults.seed),
        people=people,
        strengths=tuple(found.person_strength or [1.0] * len(people)),
        regions=tuple(found.regions or ()),
        how=options(found, len(people), defaults),
    )


def options(found: Asked, people: int, defaults: Defaults) -> How:
    branches, most = found.branch_strength or {}, WIDEST * defaults.side
    if unknown := set(branches) - defaults.branches:
        known = ", ".join(sorted(defaults.branches))
        raise Wrong(f"column branch_strength: there is no {min(unknown)!r:.60}: name {known}")
    for column, side in (("width", found.width), ("height", found.height)):
        if side is not None and side > most:
            raise Wrong(f"column {column}: {side} pixels are too many: this model draws at most {most}")
    return How(
        steps=either(found.steps, defaults.draw.steps),
        guidance=either(found.guidance, defaults.draw.guidance),
        identity_guidance=either(found.identity_guidance, defaults.draw.identity_guidance),
        rescale=either(found.guidance_rescale, 0.0),
        width=either(found.width, defaults.side),
        height=either(found.height, defaults.side),
        branches=tuple(sorted(branches.items())),
        people=people,
        placed=found.regions is not None,
    )


def either(said: Any, default: Any) -> Any:
    return default if said is None else said


def sources(found: Asked, folder: Path) -> Iterable[Source]:
    """Photographs lie where the table does, or where their whole path says; persons are as the collection has them."""
    for name in found.reference or ():
        if "://" in name:
            raise Wrong(f"column reference: {name!r:.60} is not fetched: name a file")
        yield Source("photo", str(folder / name))
    for name in found.person or ():
        yield Source("person", names.clean(name))


def file_name(name: str | None, row: int) -> str:
    """A file of the output folder itself, whatever the table says."""
    if name is None:
        return f"picture-{row:06d}.png"
    plain = unicodedata.normalize("NFC", name)
    plain = plain[: -len(".png")] if plain.lower().endswith(".png") else plain
    strange = any(unicodedata.category(letter)[0] in "CZ" and letter != " " for letter in plain)
    outer = not plain or plain[0] in ". -" or plain[-1] in ". "
    if strange or outer or UNSAFE.search(plain) or DEVICES.fullmatch(plain) or len(plain.encode()) > LONGEST_NAME:
        raise Wrong(f"column name: {name!r:.60} is {UNSAID}")
    if OURS.fullmatch(plain):
        raise Wrong(f"column name: {name!r:.60} is what others are called by themselves: choose another")
    return f"{plain}.png"


def alike(file: str) -> str:
    """The same for names that some systems take for one."""
    return unicodedata.normalize("NFC", file.casefold())
