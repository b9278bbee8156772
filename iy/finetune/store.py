"""Encoded rows on disk, read one at a time: shards of Arrow's file format, each named by the rows that it holds.

A row is some tensors, as safetensors, under a key: a hash of everything that decides them; and beside them figures of
fixed length. Anything that reads Arrow reads a shard. Here one row is one read of a file at a place that is known since
the store was opened: nothing else is held, so that memory and speed are those of a small store whatever its size. (Maps
of the files would count as memory, and opening one costs six times as much as reading a row.)
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from iy.errors import UserError, one_line
from iy.storage import atomic_path, read_member

KEY = 16  # bytes of a key
ROWS = 16  # rows that are encoded and written together
ENDING = ".arrow"
FIGURES = {
    "box": pa.list_(pa.float32(), 4),
    "sizes": pa.list_(pa.int32(), 6),
}  # tensors that are read of all rows at once
Row = dict[str, torch.Tensor]

log = logging.getLogger(__name__)


def key(*parts: object) -> bytes:
    """The key of the row that these parts (as JSON takes them) decide."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:KEY]


def keys(several: Iterable[bytes]) -> np.ndarray:
    """Keys (N,) in the form in which they are compared."""
    return np.frombuffer(b"".join(several), f"S{KEY}")


def shard_path(folder: Path, held: Sequence[bytes]) -> Path:
    """The file of the shard that holds rows of these keys, in this order."""
    return folder / f"{hashlib.sha256(b''.join(held)).hexdigest()[:32]}{ENDING}"


def write(path: Path, batches: Iterable[tuple[Sequence[bytes], Sequence[Mapping[str, torch.Tensor]]]]) -> None:
    """A shard, batch by batch: the rows' keys and the rows, all of which have tensors of the same names."""
    writer = None
    with atomic_path(path) as aside, pa.OSFile(str(aside), "wb") as sink:
        for held, rows in batches:
            figures = [name for name in FIGURES if name in rows[0]]
            columns = {"key": pa.array(held, pa.binary(KEY)), "tensors": pa.array(map(packed, rows), pa.large_binary())}
            columns |= {name: pa.array([row[name].tolist() for row in rows], FIGURES[name]) for name in figures}
            batch = pa.record_batch(columns)
            writer = writer or pa.ipc.new_file(sink, batch.schema)
            writer.write_batch(batch)
        assert writer is not None, "a shard holds something"
        writer.close()


def packed(row: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: one.contiguous() for name, one in row.items() if name not in FIGURES})


class Places(NamedTuple):
    """Where the rows of a shard lie in its file: bytes (N,), and how many (N,)."""

    offsets: np.ndarray
    lengths: np.ndarray


class Store:
    """The rows of a folder of shards, numbered through all of them; an empty one where there is none.

    A shard that does not open, cut short by a disk that failed or was full, is removed: its rows are made again.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        found = {path: places_of(path) for path in sorted(folder.glob(f"*{ENDING}"))}
        whole = {path: places for path, places in found.items() if places is not None}
        self.shards = list(whole)
        self.starts = np.cumsum([0, *(len(places.offsets) for places in whole.values())])
        self.offsets = np.concatenate([np.empty(0, np.int64), *(places.offsets for places in whole.values())])
        self.lengths = np.concatenate([np.empty(0, np.int32), *(places.lengths for places in whole.values())])

    def __len__(self) -> int:
        return len(self.offsets)

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Row numbers (N,) of these keys, -1 where there is none."""
        if not len(self):
            return np.full(len(wanted), -1)
        held = np.concatenate([keys_of(path) for path in self.shards])
        order = np.argsort(held, kind="stable")
        places = order[np.minimum(np.searchsorted(held, wanted, sorter=order), len(held) - 1)]
        return np.where(held[places] == wanted, places, -1)

    def read(self, number: int) -> Row:
        """The tensors of one row, by name, as they were written; without its figures."""
        path = self.shards[int(np.searchsorted(self.starts, number, "right")) - 1]
        try:
            return load(read_member(self.folder, path.name, int(self.offsets[number]), int(self.lengths[number])))
        except (FileNotFoundError, SafetensorError):
            raise UserError(f"{path} is gone: start the training again, it makes it anew and goes on") from None

    def figures(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """One of `FIGURES` of many rows (N, length); of each shard only that column is read."""
        order = np.argsort(numbers, kind="stable")
        shards = np.searchsorted(self.starts, numbers[order], "right") - 1
        found = np.empty((len(numbers), FIGURES[name].list_size), FIGURES[name].value_type.to_pandas_dtype())
        for own in np.split(order, np.flatnonzero(np.diff(shards)) + 1) if len(order) else []:
            shard = int(np.searchsorted(self.starts, numbers[own[0]], "right")) - 1
            found[own] = figures_of(self.shards[shard], name)[numbers[own] - self.starts[shard]]
        return found


def places_of(path: Path) -> Places | None:
    """Where a shard's rows lie; None where it is broken, and no more there."""
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
            file = pa.ipc.open_file(pa.BufferReader(whole))
            parts = [places_in(file.get_batch(i)["tensors"], whole) for i in range(file.num_record_batches)]
        return Places(*(np.concatenate(several) for several in zip(*parts, strict=True)))
    except (pa.ArrowException, OSError, KeyError) as error:
        log.warning("%s cannot be read (%s): it is made again", path, one_line(error))
        path.unlink()
        return None


def places_in(column: pa.Array, whole: pa.Buffer) -> tuple[np.ndarray, np.ndarray]:
    """Of values that lie, uncompressed, in the buffer of a whole file."""
    _, bounds, data = column.buffers()
    ends = np.frombuffer(bounds, np.int64, len(column) + 1)
    return data.address - whole.address + ends[:-1], np.diff(ends).astype(np.int32)


def keys_of(path: Path) -> np.ndarray:
    """The keys of a shard's rows."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        return keys(one for i in range(file.num_record_batches) for one in file.get_batch(i)["key"].to_pylist())


def figures_of(path: Path, name: str) -> np.ndarray:
    """One of `FIGURES` of all rows of a shard."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        parts = [file.get_batch(i)[name] for i in range(file.num_record_batches)]
        return np.concatenate([one.flatten().to_numpy().reshape(len(one), -1) for one in parts])
