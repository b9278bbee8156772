"""The rows of tables of photographs: CSV (comma, semicolon, tab or bar), JSON lines, parquet; read as needed."""

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from iy.errors import UserError
from iy.photos import said
from iy.photos.said import SPELLINGS
from iy.photos.sidecar import Pairs

LONGEST = 2**26  # characters of a CSV field or JSON line: a table that has more is broken off
Said = list[tuple[str, Any]]  # names and values, as the table has them


class Row(NamedTuple):
    """One row: `where` names it in messages, `folder` is its table's; or the reason why it is none."""

    where: str
    folder: PurePosixPath
    said: Said
    reason: str | None = None


def numbered(path: Path, name: str) -> Iterator[Row]:
    """The rows of one table. One that breaks off gives a last row that says so."""
    reader = {".csv": from_csv, ".jsonl": from_lines, ".parquet": from_parquet}[path.suffix.lower()]
    number, beside = 0, PurePosixPath(name).parent
    try:
        for number, found in enumerate(reader(path), 1):
            where = f"{name}#{number}"
            yield Row(where, beside, [], found) if isinstance(found, str) else Row(where, beside, found)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        why = " ".join(str(error).split())[:120]
        if isinstance(error, UnicodeDecodeError):
            why += "; save it as UTF-8 (in spreadsheets: CSV UTF-8)"
        yield Row(name, beside, [], f"the table cannot be read after {number} rows: {why}")


def check(names: list[str], path: Path) -> None:
    """Refuse a table that names no pictures, or one thing twice by the very same name."""
    if twice := sorted({name for name in names if names.count(name) > 1 and said.meaning(name)}):
        raise UserError(f"{path} has two columns {twice[0]!r}: keep one, or give them names of their own")
    if not {"image", "uri"} & {said.meaning(name) for name in names}:
        raise UserError(
            f"{path} has neither a column image nor one of {', '.join(SPELLINGS['uri'])}: it has "
            f"{', '.join(names)[:200] or 'none'}"
        )


def encoding(path: Path) -> str:
    """UTF-8, or UTF-16 that begins with its mark, as spreadsheets save "Unicode text"."""
    with open(path, "rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if wide else "utf-8-sig"


def from_csv(path: Path) -> Iterator[Said | str]:
    csv.field_size_limit(LONGEST)
    with open(path, encoding=encoding(path), newline="") as file:
        table = csv.reader(file, delimiter=(between := delimiter(file)), skipinitialspace=True)
        names = next(table, [])
        check(names, path)
        for row in table:
            if row and len(row) != len(names):
                yield f"the row has {len(row)} values, the header {len(names)}: quote text that has {between!r}"
            elif row:
                yield list(zip(names, row, strict=True))


def delimiter(file: TextIO) -> str:
    """What stands between the cells: as Excel's first line "sep=;" says, which is passed by, or as the header shows."""
    header = file.readline(LONGEST)
    if said_so := re.fullmatch(r"sep=(.)\s*", header, re.IGNORECASE):
        return said_so[1]
    file.seek(0)
    return max(",;\t|", key=header.count)  # the first of equals


def from_lines(path: Path) -> Iterator[Said | str]:
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


def from_parquet(path: Path) -> Iterator[Said | str]:
    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
        check(schema.names, path)
        used = [field.name for field in schema if of_use(field)]
        classes = {name: class_names(schema, name) for name in used if said.meaning(name) == "label"}
        for batch in table.iter_batches(batch_size=16, columns=used):
            for row in batch.to_pylist():
                yield [(name, called(value, classes.get(name))) for name, value in row.items()]


def of_use(field: pa.Field) -> bool:
    """Is the column read? What may speak of a licence or a consent is, however deep it lies."""
    if said.meaning(field.name) or said.doubtful(field.name):
        return True
    kind = field.type
    return any(of_use(kind.field(i)) for i in range(kind.num_fields))


def called(value: Any, classes: list[str] | None) -> Any:
    known = classes and isinstance(value, int) and 0 <= value < len(classes)
    return classes[value] if classes and known else value


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """What the numbers of a label column stand for, where Hugging Face's `datasets` wrote it down."""
    try:
        kind = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return kind["names"] if kind.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
