"""What people decided of photos and pairs: review logs (reviews/*/log.jsonl) and decision files (decisions/)."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iy.errors import UserError, one_line
from iy.storage import atomic_path, write_bytes

ID = re.compile(rb"[0-9a-f]{64}", re.IGNORECASE)


def files() -> list[Path]:
    decided = (path for kind in ("csv", "parquet") for path in Path("decisions").glob(f"*.{kind}"))
    return sorted([*Path("reviews").glob("*/log.jsonl"), *decided])


def count(ids: set[str]) -> dict[str, int]:
    """By file, how many entries are of one of the ids."""
    numbers = {str(path): gone(path, ids) for path in files()}
    return {name: number for name, number in numbers.items() if number}


def gone(path: Path, ids: set[str]) -> int:
    if path.suffix == ".parquet":
        return sum(spoken(parquet(path), ids))
    return sum(speaks(entry, ids) for entry in entries(path))


def remove(ids: set[str]) -> None:
    for path in files():
        if not gone(path, ids):
            continue
        if path.suffix == ".parquet":
            table = parquet(path)
            with atomic_path(path) as aside:
                pq.write_table(table.filter(pa.array([not one for one in spoken(table, ids)], pa.bool_())), aside)
        else:
            write_bytes(path, b"".join(entry for entry in entries(path) if not speaks(entry, ids)))


def parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} may name photos and cannot be read ({one_line(error)[:120]}): mend or remove it"
        ) from None


def spoken(table: pa.Table, ids: set[str]) -> list[bool]:
    """Which rows name one of the ids."""
    return [speaks(repr(row).encode(), ids) for row in table.to_pylist()]


def speaks(entry: bytes, ids: set[str]) -> bool:
    """Whether an entry names one of the ids, anywhere: its header or keys are not needed to know them."""
    return any(one.decode().lower() in ids for one in ID.findall(entry))


def entries(path: Path) -> Iterator[bytes]:
    """The entries of a log or of a CSV, as they are: a line each, or several where a quoted reason has line ends."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    for start, stop in spans(lines) if path.suffix == ".csv" else ((i, i + 1) for i in range(len(lines))):
        yield "".join(lines[start:stop]).encode("utf-8", "surrogateescape")


def spans(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Where each row of a CSV begins and ends; of one that is broken every line is a row."""
    try:
        reader = csv.reader(lines, strict=True)
        ends = [reader.line_num for _ in reader]
    except csv.Error:
        ends = list(range(1, len(lines) + 1))
    yield from zip([0, *ends], ends, strict=False)
