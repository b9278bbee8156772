"""Files that appear whole or not at all, and image shards with random access.

A shard is a plain uncompressed tar (WebDataset layout: `<key>.<ext>` members) next to a parquet table that says where
each member's bytes begin, so that one image is one seek away.
"""

import contextlib
import glob
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how a file begins that git left without its contents


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the same folder.

    It is renamed to `path` after fsync when the block succeeds, and removed when it fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mktemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside
        if aside.is_file():
            fsync(aside)
        os.replace(aside, path)
        fsync(path.parent)
    finally:
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder that replaces `path` as a whole when the block succeeds, and is removed when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.name}.{socket.gethostname()}-"
    remove_left(path, start)
    aside = Path(tempfile.mkdtemp(prefix=f"{start}{os.getpid()}.", dir=path.parent))
    try:
        yield aside
        aside.chmod(0o755)
        for file in aside.rglob("*"):
            if file.is_file():
                fsync(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
        fsync(path.parent)
    finally:
        if aside.exists():
            shutil.rmtree(aside)


def remove_left(path: Path, start: str) -> None:
    """Remove the folders aside that processes of this machine left which were killed.

    (Files are not looked for: where there is one there may be millions.)
    """
    for left in path.parent.glob(f"{glob.escape(start)}*"):
        process = left.name.removeprefix(start).partition(".")[0]
        if process.isdigit() and not alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | str, data: bytes) -> None:
    with atomic_path(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path | str, value: object) -> None:
    """Sorted keys and a final newline: equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def folder_digest(folder: Path) -> str:
    """sha256 of the names and contents of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sha256("\n".join(f"{path.relative_to(folder)} {file_sha256(path)}" for path in files).encode())


def file_sha256(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path | str) -> str:
    """One hash for a model folder: names and contents of its weights and configuration."""
    whole = hashlib.sha256()
    for path in sorted(
        path for path in Path(folder).rglob("*") if path.suffix == ".safetensors" or path.name == "config.json"
    ):
        whole.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return whole.hexdigest()


class Member(NamedTuple):
    """Where one file's bytes lie: shard file name (relative to its folder), offset and length in bytes."""

    shard: str
    offset: int
    length: int


def write_shard(path: Path, files: Iterable[tuple[str, bytes]]) -> list[Member]:
    """Write `(name, bytes)` pairs as one tar and return their places.

    Its metadata is fixed, so that equal inputs give equal bytes.
    """
    members = []
    with atomic_path(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            members.append(Member(Path(path).name, tar.offset - padded, len(data)))
    return members


def read_member(folder: Path | str, shard: str, offset: int, length: int) -> bytes:
    with open(Path(folder) / shard, "rb") as file:
        file.seek(offset)
        return file.read(length)


def read_image(folder: Path | str, row: dict) -> np.ndarray:
    """The image of a record row (keys shard, offset, length) as uint8 RGB (H, W, 3)."""
    data = read_member(folder, row["shard"], row["offset"], row["length"])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG bytes, the same for equal pixels."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=6)
    return out.getvalue()
