"""What a folder of pictures says of itself: `pictures.parquet`, a row for every row of the job table, and sheets."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from iy import records, report
from iy.jobs.draw import Task
from iy.jobs.orders import Refused
from iy.storage import file_sha256, write_bytes

NAME = "pictures.parquet"
PICTURE = pa.schema(
    [
        ("row", pa.int64()),  # of the job table, the first is 1; null where the table breaks off
        ("file", pa.string()),
        ("key", pa.string()),  # of everything that decides the picture
        ("sha256", pa.string()),  # of the file
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("people", pa.list_(pa.string())),  # photographs or persons, as they were found
        ("seed", pa.int64()),
        ("options", pa.string()),  # JSON object
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ],
    metadata={"iy.record": "picture", "iy.version": records.VERSION, "iy.source": records.DRAWN},
)
ACROSS, DOWN, CELL = 20, 20, 96  # pictures of a sheet, and pixels of one
Export = Callable[[np.ndarray], bytes]


def write(folder: Path, tasks: Sequence[Task], refused: Sequence[Refused]) -> None:
    """The table, rows in their order."""
    rows = [drawn(folder, task) for task in tasks]
    rows += [{"row": one.row, "verdict": records.REJECTED, "reason": one.reason} for one in refused]
    records.write(folder / NAME, sorted(rows, key=lambda row: (row["row"] is None, row["row"])), PICTURE)


def drawn(folder: Path, task: Task) -> dict:
    order = task.order
    options = order.how._asdict() | {"strengths": order.strengths, "regions": order.regions}
    return {
        "row": order.row,
        "file": order.file,
        "key": task.key,
        "sha256": file_sha256(folder / order.file),
        "prompt": order.prompt,
        "negative_prompt": order.negative,
        "people": [source.name for source in order.people],
        "seed": order.seed,
        "options": json.dumps(options),
        "verdict": records.ACCEPTED,
    }


def noted(folder: Path) -> dict[tuple[str, str], str]:
    """key and file -> sha256 of the pictures that an earlier run's table names."""
    if not (folder / NAME).exists():
        return {}
    rows = records.read(folder / NAME, PICTURE, ["key", "file", "sha256", "verdict"])
    return {(row["key"], row["file"]): row["sha256"] for row in records.accepted(rows)}


def sheets(folder: Path, files: Sequence[str], export: Export) -> Iterator[Path]:
    """Contact sheets `sheet-1.png` … of the pictures in their order, each line with the number of its first.

    export: makes the PNG that is written.
    """
    for number, start in enumerate(range(0, len(files), ACROSS * DOWN), 1):
        firsts = range(start, min(start + ACROSS * DOWN, len(files)), ACROSS)
        lines = [[small(folder / file) for file in files[first : first + ACROSS]] for first in firsts]
        labels = [str(first + 1) for first in firsts]
        path = folder / f"sheet-{number}.png"
        write_bytes(path, export(np.asarray(report.grid(lines, labels, cell=CELL))))
        yield path
    for path in folder.glob("sheet-*.png"):  # of an earlier, longer table
        if (number := path.stem.removeprefix("sheet-")).isdigit() and (int(number) - 1) * ACROSS * DOWN >= len(files):
            path.unlink()


def small(path: Path) -> np.ndarray:
    """A picture with a longer side of `CELL` pixels at most: a sheet's pictures are in memory together."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        return np.asarray(image)
