"""One photo on its way into the table."""

from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from iy.photos.said import Withdrawn
from iy.pictures import Unreadable
from iy.records import REJECTED
from iy.storage import png

BATCH = 64  # photos decoded at a time: what memory holds


class Photo(NamedTuple):
    row: dict  # columns of records.PHOTO, without its place in a shard
    png: bytes | None  # upright RGB; None when the file could not be read


def readable(image: np.ndarray, **columns: str | None) -> Photo:
    """A photo of upright RGB pixels uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    seen = {"width": width, "height": height, "verdict": None, "reason": None}
    return Photo({"attributes": "{}", **columns, **seen}, png(image))


def unreadable(reason: Unreadable, **columns: str | None) -> Photo:
    said = {"consent": reason.consent} if isinstance(reason, Withdrawn) else {}
    return Photo({"attributes": "{}", **columns, **said, "verdict": REJECTED, "reason": str(reason)}, None)


def read_all(read: Callable[[Any], Photo], found: Iterable, threads: int, batch: int = BATCH) -> Iterator[Photo]:
    """`read` of each that was found, in their order, some at a time; how many there are need not be known."""
    total, stream = len(found) if isinstance(found, Sized) else None, iter(found)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=total, desc="photos", unit="", mininterval=1, delay=1) as bar:
        while some := list(islice(stream, batch)):
            for photo in pool.map(read, some):
                bar.update()
                yield photo
