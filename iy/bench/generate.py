"""A whole image, prompt and face to pixels: ours beside diffusers' pipeline with IP-Adapter and our own naive form.

ours   four branches, three text encoders, K and V once per generation, no padding, LoRA merged
stock  diffusers' pipeline, one text encoder, IP-Adapter with the same vision tokens (see `iy.bench.stock`)
naive  ours with every prompt padded to its tokenizer's limit and K and V computed anew at every step, LoRA apart

Both guide text and person together: two U-Net evaluations a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from iy import params
from iy.bench import stock
from iy.bench.measure import against_all, in_turns, report
from iy.diffusion import Base
from iy.model import ImagineYourselfPipeline, Personaliser
from iy.model.attention import Context
from iy.model.guidance import Guide

PROMPT = (
    "A portrait of a young woman with long black hair and glasses, a warm smile, head turned left, looking at the "
    "camera, wearing a red hoodie, in front of a brick wall, in warm sunset light."
)
GUIDANCE = 3.0
WAYS = ("ours", "stock", "naive")


@dataclass(slots=True)
class Forgetful(Guide):
    """A guide that makes its context anew for every step."""

    make: Callable[[], Context]

    def denoise(self, model: Personaliser, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.context = self.make()
        return Guide.denoise(self, model, latents, t)


class Naive(ImagineYourselfPipeline):
    def guide(self, *conditions: Any) -> Guide:
        made = super().guide(*conditions)
        remake = super().guide
        return Forgetful(made.weights, made.context, made.rescale, lambda: remake(*conditions).context)


def run(base: Base, settings: params.Model, steps: int, rounds: int, batch: int = 1) -> dict:
    """Seconds per generation of `batch` images, medians of `rounds` in turns."""
    drawing = {way: images(way, base, settings, steps, batch) for way in WAYS}
    seconds = in_turns(drawing, rounds, warm=1)
    cases = against_all("a whole image", {way: round(value, 4) for way, value in seconds.items()}, "s")
    how = {"dtype": str(base.dtype).removeprefix("torch."), "image_size": base.image_size, "steps": steps}
    return report(cases, base.device, batch=batch, rounds=rounds, **how)


def images(way: str, base: Base, settings: params.Model, steps: int, batch: int) -> Callable[[], np.ndarray]:
    """A function that draws `batch` images, (B, H, W, 3) in [0, 1], in one of the `WAYS`."""
    side = base.vision.config.image_size
    face = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    common = {"num_inference_steps": steps, "guidance_scale": GUIDANCE, "output_type": "np"}
    prompts = [PROMPT] * batch
    pipeline: Any  # what a pipeline returns is annotated as one of several
    if way == "stock":
        pipeline = stock.pipeline(base)
        size = {"height": base.image_size, "width": base.image_size}

        def draw() -> np.ndarray:
            noise = torch.Generator().manual_seed(0)
            return pipeline(prompts, ip_adapter_image=face, generator=noise, **size, **common).images
    else:
        kind = Naive if way == "naive" else ImagineYourselfPipeline
        pipeline = kind.build(touched(base, settings), base)
        pipeline.set_progress_bar_config(disable=True)
        if way == "ours":
            pipeline.fuse_lora()

        def draw() -> np.ndarray:
            return pipeline(prompts, [face] * batch, seeds=[0] * batch, fixed_length=way == "naive", **common).images

    return draw


def touched(base: Base, settings: params.Model) -> Personaliser:
    """A model whose added branches say something, as after training."""
    model = Personaliser(base, settings).requires_grad_(False).eval()
    numbers = torch.Generator(model.device).manual_seed(0)
    for layer in model.cross_attentions():
        processor: Any = layer.processor  # diffusers names all of its own
        for matrix in processor.out.values():
            matrix.data.normal_(std=0.02, generator=numbers)
    return model
