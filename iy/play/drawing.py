"""One drawing: the pictures of each model for the same prompt, people and seeds, and what is told on the way.

After a step is told {"step", "of", "previews"}, previews being small pictures of the latents, one per seed, or none.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from iy.diffusion import vae_decode
from iy.generate import in_batches
from iy.generate.portrait import Portraitist
from iy.model import ImagineYourselfPipeline
from iy.play.asked import Drawing, Style
from iy.play.pages import embedded
from iy.play.styles import adapter, style_file
from iy.storage import png

PREVIEWS, PREVIEW_SIDE = 6, 256  # of a drawing, at most; pixels
Tell = Callable[[dict[str, Any]], None]


class Stopped(Exception):
    """Nobody waits for the pictures any more."""


def draw(
    artist: Portraitist,
    asked: Drawing,
    crops: list[np.ndarray],
    styles: dict[str, Path],
    tell: Tell,
    stop: threading.Event,
) -> list[np.ndarray]:
    """uint8 (H, W, 3), one per seed. crops: a face per person. styles: where the LoRAs lie."""
    pipeline = artist.pipeline
    pipeline.set_progress_bar_config(disable=True)
    watch = watcher(asked.steps, tell, stop)

    def batch(rows: list[int]) -> list[np.ndarray]:
        images = pipeline(
            [asked.prompt] * len(rows),
            reference=[crops] * len(rows),
            seeds=[asked.seeds[row] for row in rows],
            fixed_length=True,
            output_type="pil",
            return_dict=False,
            callback_on_step_end=watch,
            **asked.options(),
        )[0]
        if stop.is_set():
            raise Stopped
        return [np.asarray(image) for image in images]

    count = len(asked.seeds)
    with styled(pipeline, asked.styles, styles):
        drawn = in_batches(pipeline, [range(count)], count, batch, None)
    return [drawn[row] for row in range(count)]


def watcher(steps: int, tell: Tell, stop: threading.Event) -> Callable[..., dict[str, torch.Tensor]]:
    """A callback of the pipeline that tells how far it is, and ends it when it is to stop."""
    every = max(1, -(-steps // PREVIEWS))

    def watch(
        pipeline: ImagineYourselfPipeline, step: int, _timestep: Any, known: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        if stop.is_set():
            pipeline._interrupt = True
            return known
        done = step + 1
        seen = done % every == 0 and done < steps
        tell({"step": done, "of": steps, "previews": previews(pipeline, known["latents"]) if seen else []})
        return known

    return watch


def previews(pipeline: ImagineYourselfPipeline, latents: torch.Tensor) -> list[str]:
    """What latents (B, C, h, w) look like on their way, small, as addresses that a page can show."""
    pixels = vae_decode(pipeline.vae, latents).float()
    images = cast("list[Image.Image]", pipeline.processor.postprocess(pixels, "pil"))
    for image in images:
        image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return [embedded(png(np.asarray(image))) for image in images]


@contextmanager
def styled(pipeline: ImagineYourselfPipeline, wanted: list[Style], styles: dict[str, Path]) -> Iterator[None]:
    """While it lasts, these LoRAs count besides the trained one."""
    if not wanted:
        yield
        return
    names = [adapter(number) for number in range(len(wanted))]
    try:
        for name, style in zip(names, wanted, strict=True):
            pipeline.load_lora_weights(style_file(styles, style.name), adapter_name=name)
        pipeline.set_adapters(names, [style.weight for style in wanted])
        yield
    finally:
        pipeline.unload_lora_weights()
