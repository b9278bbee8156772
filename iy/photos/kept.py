"""What was fetched from S3 and is not yet all read: a stage that is killed goes on with what is missing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iy import s3
from iy.storage import atomic_path, sha256

KEPT = Path(".iy", "resume", "s3")


def place(bucket: str, item: s3.Item) -> Path:
    """Where an object is kept; another one when its bytes change in the store."""
    return KEPT / bucket / sha256(f"{item.key}\0{item.etag}".encode())


@contextlib.contextmanager
def fetched(store: Any, bucket: str, item: s3.Item) -> Iterator[Path]:
    """A large object as a file, in parallel parts, until it is read."""
    path = place(bucket, item)
    if not path.exists():
        with atomic_path(path) as aside:
            store.download_file(bucket, item.key, str(aside))
    yield path
    path.unlink(missing_ok=True)
