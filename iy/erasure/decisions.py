"""What people decided of photos and pairs: review logs (reviews/*/log.jsonl) and decision files (decisions/*.csv)."""

import csv
import io
import json
from pathlib import Path

from iy.storage import write_bytes


def files() -> list[Path]:
    return sorted([*Path("reviews").glob("*/log.jsonl"), *Path("decisions").glob("*.csv")])


def count(ids: set[str]) -> dict[str, int]:
    """By file, how many entries are of one of the ids."""
    numbers = {str(path): len(split(path, ids)[1]) for path in files()}
    return {name: number for name, number in numbers.items() if number}


def remove(ids: set[str]) -> None:
    for path in files():
        kept, gone = split(path, ids)
        if gone:
            write_bytes(path, b"".join(kept))


def split(path: Path, ids: set[str]) -> tuple[list[bytes], list[bytes]]:
    """A file's lines without those of the ids, and those."""
    lines = path.read_bytes().splitlines(keepends=True)
    of = said_in_log if path.suffix == ".jsonl" else said_in_csv
    mine = [bool(of(line) & ids) for line in lines]
    return (
        [line for line, own in zip(lines, mine, strict=True) if not own],
        [line for line, own in zip(lines, mine, strict=True) if own],
    )


def said_in_log(line: bytes) -> set[str]:
    try:
        entry = json.loads(line)
        return {str(entry.get("id")), str(entry.get("undo"))}
    except (ValueError, AttributeError):
        return set()


def said_in_csv(line: bytes) -> set[str]:
    """Any field of the line: its header is not needed to know an id."""
    return {field for row in csv.reader(io.StringIO(line.decode("utf-8", "replace"))) for field in row}
