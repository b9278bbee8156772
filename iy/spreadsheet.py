"""The rows of tables that people bring: CSV (comma, semicolon, tab or bar), JSON lines, parquet; read as needed.

What a kind of table asks of its columns is given by whoever reads it: photographs in `iy.photos.rows`, pictures to draw
in `iy.jobs.columns`. A name counts without case, outer space, byte-order mark, spaces, hyphens and underscores.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from iy import names

TABLES = (".csv", ".jsonl", ".parquet")
LONGEST = 2**26  # characters of a CSV field or JSON line: a table that has more is broken off
Said = list[tuple[str, Any]]  # names and values, as the table has them


class Row(NamedTuple):
    """One row, the first is number 1: what it says, or the reason why it is none. Without a number: the table itself
    breaks off."""

    number: int | None
    said: Said
    reason: str | None = None


class Asked(NamedTuple):
    """What a reader asks of a table's columns.

    check: refuses the names of a CSV's or parquet's columns, beside the table's path; used: whether a parquet's column
    is read at all.
    """

    check: Callable[[list[str], Path], None]
    used: Callable[[pa.Field], bool]


class Pairs(dict):
    """A JSON object that keeps what is said twice."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs


def rows(path: Path, asked: Asked) -> Iterator[Row]:
    """The rows of one table. One that breaks off gives a last row, without a number, that says so."""
    number = 0
    try:
        for number, found in enumerate(READERS[path.suffix.lower()](path, asked), 1):
            yield Row(number, [], found) if isinstance(found, str) else Row(number, found)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        why = " ".join(str(error).split())[:120]
        if isinstance(error, UnicodeDecodeError):
            why += "; save it as UTF-8 (in spreadsheets: CSV UTF-8)"
        yield Row(None, [], f"the table cannot be read after {number} rows: {why}")


def empty(value: Any) -> bool:
    """Nothing is said by a cell that is null, blank, or not a number."""
    return value is None or value != value or (isinstance(value, str) and not names.clean(value))


def encoding(path: Path) -> str:
    """UTF-8, or UTF-16 that begins with its mark, as spreadsheets save "Unicode text"."""
    with open(path, "rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if wide else "utf-8-sig"


def from_csv(path: Path, asked: Asked) -> Iterator[Said | str]:
    csv.field_size_limit(LONGEST)
    with open(path, encoding=encoding(path), newline="") as file:
        table = csv.reader(file, delimiter=(between := delimiter(file)), skipinitialspace=True)
        header = next(table, [])
        asked.check(header, path)
        for row in table:
            if row and len(row) != len(header):
                yield f"the row has {len(row)} values, the header {len(header)}: quote text that has {between!r}"
            elif row:
                yield list(zip(header, row, strict=True))


def delimiter(file: TextIO) -> str:
    """What stands between the cells: as Excel's first line "sep=;" says, which is passed by, or as the header shows."""
    header = file.readline(LONGEST)
    if said_so := re.fullmatch(r"sep=(.)\s*", header, re.IGNORECASE):
        return said_so[1]
    file.seek(0)
    return max(",;\t|", key=header.count)  # the first of equals


def from_lines(path: Path, asked: Asked) -> Iterator[Said | str]:
    with open(path, encoding=encoding(path)) as file:
        while line := file.readline(LONGEST):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=Pairs)
            except (ValueError, RecursionError):
                yield "the line is not valid JSON"
                continue
            yield row.pairs if isinstance(row, Pairs) else "the line is no JSON object"


def from_parquet(path: Path, asked: Asked) -> Iterator[Said | str]:
    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
        asked.check(schema.names, path)
        used = [field.name for field in schema if asked.used(field)]
        classes = {name: class_names(schema, name) for name in used}
        for batch in table.iter_batches(batch_size=16, columns=used):
            for row in batch.to_pylist():
                yield [(name, called(value, classes[name])) for name, value in row.items()]


def called(value: Any, classes: list[str] | None) -> Any:
    known = classes and isinstance(value, int) and 0 <= value < len(classes)
    return classes[value] if classes and known else value


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """What the numbers of a column stand for, where Hugging Face's `datasets` wrote it down."""
    try:
        kind = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return kind["names"] if kind.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


READERS = {".csv": from_csv, ".jsonl": from_lines, ".parquet": from_parquet}
