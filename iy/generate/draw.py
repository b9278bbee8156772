"""Cells to images, in batches whose composition never shows in the result.

Every cell's noise comes from its own seed, prompts are padded to a fixed length, and the last batch is filled up, so
that all batches run the same arithmetic: a cell's image is the same, bit for bit, whatever it is drawn beside. A batch
that memory does not hold is halved (see `iy.generate.batches`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iy.errors import UserError
from iy.generate.batches import in_batches
from iy.model import ImagineYourselfPipeline


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One image to draw. reference: face crop uint8 (H, W, 3), several of them, or None for no person."""

    prompt: str
    reference: np.ndarray | Sequence[np.ndarray] | None
    seed: int


def draw(
    pipeline: ImagineYourselfPipeline,
    cells: Sequence[Cell],
    *,
    steps: int,
    guidance: float,
    identity_guidance: float,
    batch: int,
    progress: str | None = None,
    width: int | None = None,
    regions: Sequence | None = None,
) -> list[np.ndarray]:
    """One uint8 image (H, W, 3) per cell, drawn from noise. `progress`: its name while it runs; None is silent.

    width: in pixels, the model's own where None; regions: where each of a cell's people belongs, as in the pipeline.
    """
    return run(
        pipeline,
        cells,
        None,
        batch,
        progress,
        num_inference_steps=steps,
        guidance_scale=guidance,
        identity_guidance_scale=identity_guidance,
        width=width,
        regions=regions,
    )


def redraw(
    pipeline: ImagineYourselfPipeline,
    cells: Sequence[Cell],
    starts: Sequence[np.ndarray],
    *,
    strength: float,
    steps: int,
    guidance: float,
    identity_guidance: float,
    batch: int,
    progress: str | None = None,
) -> list[np.ndarray]:
    """Like `draw`, but each image starts from `starts[i]` (uint8 (H, W, 3)) and redraws the last `strength` of the
    noise schedule, which has `steps` steps in all."""
    if len(starts) != len(cells):
        raise UserError(f"redraw: {len(starts)} starting images for {len(cells)} cells; give one per cell")
    return run(
        pipeline,
        cells,
        starts,
        batch,
        progress,
        num_inference_steps=steps,
        guidance_scale=guidance,
        identity_guidance_scale=identity_guidance,
        strength=strength,
    )


def run(
    pipeline: ImagineYourselfPipeline,
    cells: Sequence[Cell],
    starts: Sequence[np.ndarray] | None,
    batch: int,
    progress: str | None,
    **options: Any,
) -> list[np.ndarray]:
    """Cells without a reference are drawn apart from those with one: they need fewer evaluations."""
    bare = [i for i, cell in enumerate(cells) if cell.reference is None]
    faced = [i for i, cell in enumerate(cells) if cell.reference is not None]
    pipeline.set_progress_bar_config(disable=True)

    def batch_of(rows: list[int]) -> list[np.ndarray]:
        return one_batch(pipeline, cells, starts, rows, options)

    images = in_batches(pipeline, (bare, faced), batch, batch_of, progress)
    return [images[i] for i in range(len(cells))]


def one_batch(
    pipeline: ImagineYourselfPipeline,
    cells: Sequence[Cell],
    starts: Sequence[np.ndarray] | None,
    rows: list[int],
    options: dict[str, Any],
) -> list[np.ndarray]:
    """The images of `rows`, drawn beside each other."""
    chosen = [cells[i] for i in rows]
    drawn = pipeline(
        [cell.prompt for cell in chosen],
        reference=[cell.reference for cell in chosen],
        image=None if starts is None else [starts[i] for i in rows],
        seeds=[cell.seed for cell in chosen],
        fixed_length=True,
        output_type="pil",
        return_dict=False,
        **options,
    )[0]
    return [np.asarray(image) for image in drawn]
