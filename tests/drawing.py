"""A tiny pipeline, what to ask of it, and LoRAs for it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from iy.diffusion import load_base
from iy.model import ImagineYourselfPipeline
from tests.tiny import moved, tiny_params

FACE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
PROMPT = "a smiling man in a blue jacket"


def built(folder: Path, **model: object) -> ImagineYourselfPipeline:
    """A pipeline on the tiny base in `folder`, its every trainable weight changed as after training."""
    settings = tiny_params(folder, **model)
    base = load_base(settings.base)
    return quiet(ImagineYourselfPipeline.build(moved(base, settings.model), base))


def quiet(pipeline: ImagineYourselfPipeline) -> ImagineYourselfPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def asked(seed: int = 0, **more: object) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    common = dict(prompt=PROMPT, reference=FACE, num_inference_steps=2, generator=generator, output_type="np")
    return common | more


def drawn(pipeline: ImagineYourselfPipeline, **more: object) -> np.ndarray:
    return pipeline(**asked(**more)).images


def style(
    pipeline: ImagineYourselfPipeline, seed: int = 3, parts: tuple[str, ...] = ("unet",)
) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 on the self-attentions' queries (and what text encoders make of them), in diffusers' names."""
    numbers, found = torch.Generator().manual_seed(seed), {}
    for part in parts:
        for name, module in getattr(pipeline, part).named_modules():
            if name.endswith(("attn1.to_q", "self_attn.q_proj", "self_attn.out_proj")):
                key = f"{part}.{name}"
                found[f"{key}.lora_A.weight"] = torch.randn(2, module.in_features, generator=numbers)
                found[f"{key}.lora_B.weight"] = torch.randn(module.out_features, 2, generator=numbers)
    return found
