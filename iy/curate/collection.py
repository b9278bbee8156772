"""What has to be known of all photos at once, in columns.

Some 800 bytes a photo with dlib's embeddings, which are most of it. Everything else that is known of a photo stays on
disk, in parts of the table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iy import records
from iy.faces.recognise import unit
from iy.records import ACCEPTED, REJECTED

READ = ["id", "uri", "label", "quality", "phash", "embedding", "verdict"]


@dataclass
class Collection:
    """Photo i of N is row i of the table.

    ids (N,): sha256 in hex; hashes uint64 (N,): perceptual; faces float32 (N, D): embeddings of length 1, of zeros
    where there is none; accepted bool (N,). What is decided here: `person` and `split` of the accepted, `reason` by
    photo of those that are rejected, on top of those that were before.
    """

    ids: np.ndarray
    uri: list[str]
    label: list[str | None]
    quality: np.ndarray
    hashes: np.ndarray
    faces: np.ndarray
    accepted: np.ndarray
    person: list[str | None] = field(init=False)
    split: list[str | None] = field(init=False)
    reason: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.person, self.split = [None] * len(self), [None] * len(self)

    def __len__(self) -> int:
        return len(self.ids)

    def kept(self) -> list[int]:
        """The photos that are accepted so far."""
        return np.flatnonzero(self.accepted).tolist()

    def reject(self, i: int, reason: str) -> None:
        self.accepted[i], self.reason[i] = False, reason

    def decided(self, i: int, row: dict) -> dict:
        """Photo i's row with what was decided of it."""
        said = {"person": self.person[i], "split": self.split[i] if self.accepted[i] else None}
        return row | said | ({"verdict": REJECTED, "reason": self.reason[i]} if i in self.reason else {})


def read(parts: Sequence[Path]) -> Collection:
    """The collection whose measured and judged rows lie in `parts`."""
    count = sum(pq.read_metadata(part).num_rows for part in parts)
    names: dict[str, str] = {}  # equal labels are one string in memory
    found = Collection(
        np.zeros(count, "S64"),
        [],
        [],
        np.zeros(count, np.float32),
        np.zeros(count, np.uint64),
        np.zeros((count, 0), np.float32),
        np.zeros(count, bool),
    )
    start = 0
    for table in (pq.read_table(part, columns=READ) for part in parts):
        rows = slice(start, start + len(table))
        found.ids[rows] = table["id"].to_numpy()
        found.uri += table["uri"].to_pylist()
        found.label += [name and names.setdefault(name, name) for name in table["label"].to_pylist()]
        found.quality[rows] = table["quality"].fill_null(0).to_numpy()
        found.hashes[rows] = [int(value or "0", 16) for value in table["phash"].to_pylist()]
        found.accepted[rows] = table["verdict"].to_numpy() == ACCEPTED
        found.faces = with_faces(found.faces, start, table["embedding"])
        start += len(table)
    return found


def with_faces(faces: np.ndarray, start: int, column: pa.ChunkedArray) -> np.ndarray:
    """`faces`, those from `start` on filled in from a column of vectors, null where a photo shows none."""
    there = start + np.flatnonzero(column.is_valid().to_numpy())
    if not len(there):
        return faces
    vectors = column.drop_null().combine_chunks().flatten().to_numpy().reshape(len(there), -1)
    if not faces.shape[1]:
        faces = np.zeros((len(faces), vectors.shape[1]), np.float32)
    faces[there] = unit(vectors)
    return faces


def finished(parts: Sequence[Path], collection: Collection) -> Iterator[list[dict]]:
    """The rows of each part, with what was decided of them."""
    start = 0
    for part in parts:
        rows = records.read(part, records.PHOTO)
        yield [collection.decided(start + i, row) for i, row in enumerate(rows)]
        start += len(rows)
