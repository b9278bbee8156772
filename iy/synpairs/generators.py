"""What draws the pictures that refinement begins with: stage 1's bundle, or a text-to-image pipeline of diffusers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from iy.generate import Cell, draw, in_batches, redraw
from iy.params import Params, SynPairs
from iy.storage import read_image
from iy.synpairs.models import open_pipeline
from iy.synpairs.plan import Plan

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from iy.model import ImagineYourselfPipeline


class Generator(Protocol):
    pipeline: Any

    def draw(self, plans: Sequence[Plan], faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A picture per plan, uint8 (S, S, 3) at base.image_size; faces: the references' masked crops, of that size."""
        ...


class Bundle:
    """Stage 1's model. By `synpairs.start` it draws from noise, with or without the reference, or redraws the photo."""

    def __init__(self, pipeline: "ImagineYourselfPipeline", settings: Params) -> None:
        self.pipeline, self.settings = pipeline, settings

    def draw(self, plans: Sequence[Plan], faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        section, options = self.settings.synpairs, bundle_options(self.settings.synpairs)
        cells = [
            Cell(plan.rewrite.text, None if section.start == "text" else face, plan.seed)
            for plan, face in zip(plans, faces, strict=True)
        ]
        if section.start != "photo":
            return draw(self.pipeline, cells, **options, progress="pairs")
        starts = [
            squared(read_image(self.settings.photos_dir, plan.reference), self.settings.base.image_size)
            for plan in plans
        ]
        return redraw(self.pipeline, cells, starts, strength=section.strength, **options, progress="pairs")


class Diffusers:
    """A text-to-image pipeline, which sees the caption alone; every picture comes from its own seed."""

    def __init__(self, pipeline: "DiffusionPipeline", settings: Params) -> None:
        self.pipeline: Any = pipeline  # what it is called with is its class's own
        self.settings, self.size = settings.synpairs, settings.base.image_size

    def draw(self, plans: Sequence[Plan], faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        def batch(rows: list[int]) -> list[np.ndarray]:
            return pictures(
                self.pipeline(
                    prompt=[plans[i].rewrite.text for i in rows],
                    height=self.size,
                    width=self.size,
                    num_inference_steps=self.settings.steps,
                    guidance_scale=self.settings.guidance,
                    generator=[noise(plans[i].seed) for i in rows],
                )
            )

        drawn = in_batches(self.pipeline, [range(len(plans))], self.settings.batch, batch, "pairs")
        return [drawn[i] for i in range(len(plans))]


def load_generator(
    settings: Params, bundle: "ImagineYourselfPipeline | None", device: "torch.device | str"
) -> Generator:
    """The generator that the settings name; `bundle`: stage 1's, opened, where they need it."""
    named = settings.synpairs.generator
    if named is None:
        assert bundle is not None, "models.uses_bundle asks for it"
        return Bundle(bundle, settings)
    return Diffusers(open_pipeline(named, "synpairs.generator", settings.base, device), settings)


def bundle_options(settings: SynPairs) -> dict[str, Any]:
    """What `draw` and `redraw` take alike."""
    return dict(
        steps=settings.steps,
        guidance=settings.guidance,
        identity_guidance=settings.identity_guidance,
        batch=settings.batch,
    )


def squared(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of uint8 (H, W, 3) as (size, size, 3)."""
    return np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.LANCZOS))


def pictures(output: Any) -> list[np.ndarray]:
    """A diffusers pipeline's images as uint8 (H, W, 3)."""
    return [np.asarray(image.convert("RGB")) for image in output.images]


def noise(seed: int) -> "torch.Generator":
    """On the CPU, so that a seed is the same noise on every device."""
    import torch

    return torch.Generator().manual_seed(seed)
