"""What a table of photographs asks of its columns, and how its rows are called."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from iy import spreadsheet
from iy.errors import UserError
from iy.photos import said
from iy.photos.said import SPELLINGS
from iy.spreadsheet import Asked, Said


class Row(NamedTuple):
    """One row: `where` names it in messages, `folder` is its table's; or the reason why it is none."""

    where: str
    folder: PurePosixPath
    said: Said
    reason: str | None = None


def numbered(path: Path, name: str) -> Iterator[Row]:
    """The rows of one table. One that breaks off gives a last row, of the table's own name, that says so."""
    beside = PurePosixPath(name).parent
    for number, said_there, reason in spreadsheet.rows(path, Asked(check, of_use)):
        yield Row(name if number is None else f"{name}#{number}", beside, said_there, reason)


def check(columns: list[str], path: Path) -> None:
    """Refuse a table that names no pictures, or one thing twice by the very same name."""
    if twice := sorted({name for name in columns if columns.count(name) > 1 and said.meaning(name)}):
        raise UserError(f"{path} has two columns {twice[0]!r}: keep one, or give them names of their own")
    if not {"image", "uri"} & {said.meaning(name) for name in columns}:
        raise UserError(
            f"{path} has neither a column image nor one of {', '.join(SPELLINGS['uri'])}: it has "
            f"{', '.join(columns)[:200] or 'none'}"
        )


def of_use(field: pa.Field) -> bool:
    """Is the column read? What may speak of a licence or a consent is, however deep it lies."""
    if said.meaning(field.name) or said.doubtful(field.name):
        return True
    kind = field.type
    return any(of_use(kind.field(i)) for i in range(kind.num_fields))
