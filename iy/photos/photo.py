"""One photo on its way into the table."""
from typing import NamedTuple

import numpy as np

from iy.records import REJECTED
from iy.storage import png


class Photo(NamedTuple):
    row: dict              # columns of records.PHOTO, without its place in a shard
    png: bytes | None      # upright RGB; None when the file could not be read


def readable(image: np.ndarray, **columns: str | None) -> Photo:
    """A photo of upright RGB pixels uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    seen = {"width": width, "height": height, "verdict": None, "reason": None}
    return Photo({"attributes": "{}", **columns, **seen}, png(image))


def unreadable(reason: str, **columns: str | None) -> Photo:
    return Photo({"attributes": "{}", **columns, "verdict": REJECTED, "reason": reason}, None)
