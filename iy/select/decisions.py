"""What people decided: the file that `select.decisions` names.

A CSV (UTF-8, comma, header line) or a parquet table with exactly these text columns:

    id        of a photo (photos.parquet) or of a pair (pairs.parquet)
    verdict   accepted | rejected
    reviewer  who decided; not empty
    reason    why, in words; may be empty

    id,verdict,reviewer,reason
    9f86d081…,rejected,ana,eyes closed

Accepted rows are kept whatever their rank, rejected ones never. An id may come twice when the verdicts agree.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iy import names
from iy.errors import UserError
from iy.records import ACCEPTED, REJECTED

COLUMNS = ("id", "verdict", "reviewer", "reason")


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's (or several agreeing persons') verdict. `place` names the row in messages."""

    verdict: str
    reviewer: str
    reason: str
    place: str


def read(path: Path) -> dict[str, Decision]:
    """Decisions by id; anything unclear is refused with the row's name."""
    decided: dict[str, Decision] = {}
    for place, row in rows(path):
        one = checked(row, place)
        key = names.clean(row["id"])
        before = decided.get(key)
        if before and before.verdict != one.verdict:
            raise UserError(
                f"{place}: {key} is {one.verdict}, but {before.verdict} in {before.place.split(', ')[-1]}: "
                "settle it and keep one row"
            )
        if before:
            one = Decision(one.verdict, f"{before.reviewer}, {one.reviewer}", before.reason or one.reason, before.place)
        decided[key] = one
    return decided


def checked(row: dict[str, str], place: str) -> Decision:
    values = {name: names.clean(row[name] or "") for name in COLUMNS}
    if not values["id"]:
        raise UserError(f"{place}: id is empty: name the photo or pair that was judged")
    if values["verdict"] not in (ACCEPTED, REJECTED):
        raise UserError(f"{place}: verdict {values['verdict']!r} is neither accepted nor rejected")
    if not values["reviewer"]:
        raise UserError(f"{place}: reviewer is empty: say who decided")
    return Decision(values["verdict"], values["reviewer"], values["reason"], place)


def rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """(place, row) of every data row, after a check of the columns."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: name a CSV or parquet file of decisions "
            "(in a profile, select.decisions: null for none)"
        )
    read_table = {".csv": read_csv, ".parquet": read_parquet}.get(path.suffix)
    if read_table is None:
        raise UserError(f"{path} must end in .csv or .parquet to be read as decisions")
    columns, table = read_table(path)
    if sorted(columns) != sorted(COLUMNS):
        raise UserError(f"{path}: columns must be {', '.join(COLUMNS)}; found {', '.join(map(str, columns)) or 'none'}")
    return table


def heading(name: str) -> str:
    """A column's name without case and outer space."""
    return names.clean(name).casefold()


def read_csv(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte-order mark
            reader = csv.DictReader(file, strict=True)
            reader.fieldnames = columns = [heading(name) for name in reader.fieldnames or []]
            table = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a UTF-8 CSV file ({error}): save it as CSV UTF-8") from None
    for place, row in table:
        if None in row or None in row.values():
            raise UserError(f"{place}: expected {len(COLUMNS)} values: put a reason with commas between double quotes")
    return columns, table


def read_parquet(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a readable parquet table ({error}): write it again") from None
    for field in table.schema:
        if not pa.types.is_string(field.type) and not pa.types.is_large_string(field.type):
            raise UserError(f"{path}: column {field.name} holds {field.type}, expected text")
    table = table.rename_columns([heading(name) for name in table.column_names])
    return table.column_names, [(f"{path}, row {number}", row) for number, row in enumerate(table.to_pylist(), 1)]
