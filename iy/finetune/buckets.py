"""Which size a photo is trained at, and which part of it: squares, or buckets of several shapes and resolutions.

With buckets (as SDXL was trained, arXiv 2307.01952 §2.3, and NovelAI before it) a portrait keeps its shape: it is cut
to the nearest of a few shapes of about the same area. A batch holds one shape only. No cut goes through the face.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from iy import params


class Cut(NamedTuple):
    """A part of a photo at its bucket's size.

    image uint8 (h, w, 3); box float (4,): the face on it in pixels, NaN where it is not known; sizes int32 (6,): SDXL's
    conditions, height and width of the photo, top and left of the cut at the cut's scale, height and width of the cut.
    """

    image: np.ndarray
    box: np.ndarray
    sizes: np.ndarray


class Window(NamedTuple):
    """A rectangle of a photo, in its pixels; beyond the photo's edges only where no other would hold the face."""

    left: int
    top: int
    width: int
    height: int


def cut(image: np.ndarray, box: list[float] | None, size: int, buckets: params.Buckets | None) -> Cut:
    """A photo uint8 (H, W, 3), cut and resized: to a square of `size` pixels, or to the bucket that suits it."""
    face = np.full(4, np.nan) if box is None else np.array(box, np.float64)
    height, width = image.shape[:2]
    if buckets is None:
        shape = (size, size)
        window = largest_square(height, width, face)
    else:
        shape = nearest(height, width, face, shapes(size, buckets))
        window = around(height, width, face, shape)
    corner, taken_size = np.array([window.left, window.top]), np.array([window.width, window.height])
    moved = (face - np.tile(corner, 2)) * np.tile(shape[::-1], 2) / np.tile(taken_size, 2)
    top, left = np.maximum(np.round(corner * shape[::-1] / taken_size), 0)[::-1]
    return Cut(resized(taken(image, window), shape), moved, np.array([height, width, top, left, *shape], np.int32))


def largest_square(height: int, width: int, face: np.ndarray) -> Window:
    """The largest square of a photo, its face as near the middle as it goes."""
    side = min(height, width)
    left, top = np.clip(np.round(middle(height, width, face) - side / 2), 0, [width - side, height - side]).astype(int)
    return Window(int(left), int(top), side, side)


def middle(height: int, width: int, face: np.ndarray) -> np.ndarray:
    """x, y of the face's middle, or of the photo's where no face is known."""
    return (face[:2] + face[2:]) / 2 if np.isfinite(face).all() else np.array([width, height]) / 2


@cache
def shapes(size: int, buckets: params.Buckets) -> tuple[tuple[tuple[int, int], ...], ...]:
    """(height, width) of all buckets, a group for each resolution, the highest first: multiples of `step` of about
    `size`² pixels times the square of the resolution, up to `ratio` times as wide as high, or as high as wide."""
    groups = []
    for resolution in sorted(buckets.resolutions, reverse=True):
        side = size * resolution
        heights = range(buckets.step, int(side) + 1, buckets.step)
        wide = [(height, round(side**2 / height / buckets.step) * buckets.step) for height in heights]
        wide = [one for one in wide if one[1] <= buckets.ratio * one[0]]
        groups.append(tuple(dict.fromkeys([*wide, *(one[::-1] for one in reversed(wide))])))
    return tuple(group for group in groups if group)


def nearest(height: int, width: int, face: np.ndarray, groups: tuple) -> tuple[int, int]:
    """The bucket nearest in shape among those that hold the face, of the highest resolution that enlarges nothing."""

    def price(shape: tuple[int, int]) -> tuple[float, float]:
        window = around(height, width, face, shape)
        beyond = max(1.0, window.width / width, window.height / height)
        return beyond, abs(np.log(shape[1] / shape[0] * height / width))

    def enlarged(shape: tuple[int, int]) -> float:
        window = around(height, width, face, shape)
        return max(1.0, shape[0] / window.height, shape[1] / window.width)

    return min((min(group, key=price) for group in groups), key=enlarged)


def around(height: int, width: int, face: np.ndarray, shape: tuple[int, int]) -> Window:
    """The largest window of a bucket's shape in a photo, its face as near the middle as it goes.

    What of the face lies on the photo is always in it, if need be in a window that reaches beyond the photo's edges.
    """
    ratio = shape[1] / shape[0]
    wide, high = (width, max(1, round(width / ratio))) if ratio >= width / height else (round(height * ratio), height)
    wide, high = min(width, max(1, wide)), min(height, high)
    held = on_photo(height, width, face)
    grown = max(1.0, (held[2] - held[0]) / wide, (held[3] - held[1]) / high)
    if grown > 1:
        wide, high = int(np.ceil(wide * grown)), int(np.ceil(high * grown))
    centre = middle(height, width, face)
    left = placed(centre[0], wide, width, held[0], held[2])
    return Window(left, placed(centre[1], high, height, held[1], held[3]), wide, high)


def on_photo(height: int, width: int, face: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 of the whole pixels of a photo that the face touches; of an unknown one its middle pixel."""
    if not np.isfinite(face).all():
        face = np.tile(np.array([width, height]) / 2, 2)
    limits = [width, height]
    start = np.clip(np.floor(face[:2]), 0, np.array(limits) - 1)
    return np.concatenate([start, np.clip(np.ceil(face[2:]), start + 1, limits)]).astype(int)


def placed(centre: float, length: int, limit: int, start: int, stop: int) -> int:
    """Where a stretch of `length` begins that holds `start` to `stop`, on the photo (0 to `limit`) if it goes."""
    if length > limit:
        return (limit - length) // 2
    return int(np.clip(round(centre - length / 2), max(0, stop - length), min(limit - length, start)))


def taken(image: np.ndarray, window: Window) -> np.ndarray:
    """The window of a photo; what lies beyond its edges repeats them."""
    left, top, width, height = window
    before, above = max(0, -left), max(0, -top)
    after, below = max(0, left + width - image.shape[1]), max(0, top + height - image.shape[0])
    if before or above or after or below:
        image = cv2.copyMakeBorder(image, above, below, before, after, cv2.BORDER_REPLICATE)
    return image[top + above : top + above + height, left + before : left + before + width]


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == shape:
        return image
    shrinks = image.shape[0] > shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, shape[::-1], interpolation=how)
