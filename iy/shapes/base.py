"""A profile's frozen base in its real classes and sizes: as shapes alone, or with weights drawn at random."""

from typing import Any

import torch

from iy import params
from iy.diffusion import Base, Branch, TextEncoders
from iy.diffusion.int8 import narrow
from iy.shapes import published


def shapes(base: params.Base) -> Base:
    """Every part on the meta device, frozen: no memory, no file but configurations; tokenizers are None."""
    return drawn(base, torch.device("meta"))


def drawn(base: params.Base, device: torch.device) -> Base:
    """The parts with random weights in `base.dtype` on `device`; tokenizers are None."""
    import diffusers
    import transformers

    dtype = getattr(torch, base.dtype)
    mean, std = published.normalisation(base.vision)

    def part(library: Any, key: str) -> Any:
        asked = base.parts()[key]
        made = published.model(library, asked, key).to(dtype).requires_grad_(False)
        return narrow(made) if isinstance(asked, params.TextEncoder) and asked.int8 else made

    def branch(name: str, asked: params.TextBranch) -> Branch:
        key = f"text.{name}"
        second = Branch(None, part(transformers, f"{key}.second"), asked.max_length, False) if asked.second else None
        return Branch(None, part(transformers, key), asked.max_length, asked.own, second)

    with device, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Base(
            unet=part(diffusers, "unet"),
            vae=part(diffusers, "vae"),
            scheduler=scheduler(base),
            vision=part(transformers, "vision"),
            image_mean=mean,
            image_std=std,
            text=TextEncoders({name: branch(name, asked) for name, asked in base.text.items()}).eval(),
            image_size=base.image_size,
            dtype=dtype,
            settings=base,
        )


def scheduler(base: params.Base) -> Any:
    import diffusers

    with torch.device("cpu"):  # its tables are small, and are read
        return getattr(diffusers, base.scheduler.cls).from_config(published.configuration(base.scheduler, "scheduler"))


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of the parameters, each counted once."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
