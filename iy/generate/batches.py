"""Rows in batches as large as memory holds: where it runs out, the batch is halved and the work goes on.

Every batch is filled up to the same length, so that all of them run the same arithmetic. A batch that was halved stays
so for the pipeline's life; the pictures drawn before are kept, and those drawn after may differ by rounding from what a
larger batch would have given.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from rich.progress import Progress

from iy.errors import UserError

Draw = Callable[[list[int]], list[np.ndarray]]
fits: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # pipelines whose memory ran out -> rows they are given since
log = logging.getLogger(__name__)


def in_batches(
    pipeline: Any, groups: Sequence[Sequence[int]], batch: int, draw: Draw, progress: str | None
) -> dict[int, np.ndarray]:
    """Row -> image. `draw` gives one image per row of a batch, which holds rows of one group, the last one repeated.

    progress: its name while it runs; None is silent.
    """
    if batch < 1:
        raise UserError(f"batch must be at least 1, got {batch}")
    images: dict[int, np.ndarray] = {}
    with Progress(disable=progress is None) as bar:
        task = bar.add_task(progress or "", total=sum(map(len, groups)))
        for group in groups:
            start = 0
            while start < len(group):
                size = min(batch, fits.get(pipeline, batch))
                rows = list(group[start : start + size])
                drawn = attempt(draw, rows + rows[-1:] * (size - len(rows)))
                if drawn is None:
                    halve(pipeline, size)
                    continue
                images |= zip(rows, drawn[: len(rows)], strict=True)
                start += len(rows)
                bar.advance(task, len(rows))
    return images


def attempt(draw: Draw, rows: list[int]) -> list[np.ndarray] | None:
    """The images, or None where memory ran out; by then the error is gone, and with it what its frames held."""
    try:
        return draw(rows)
    except torch.OutOfMemoryError:
        return None


def halve(pipeline: Any, size: int) -> None:
    if size == 1:
        raise UserError(
            "the GPU's memory does not hold one picture at a time: set base.dtype: bfloat16, or use a larger GPU"
        )
    fits[pipeline] = size // 2
    torch.cuda.empty_cache()
    log.warning("memory ran out at %d pictures at a time: going on with %d", size, size // 2)
