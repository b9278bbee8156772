"""A profile's frozen base in its real classes and sizes: as shapes alone, or with weights drawn at random."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from iy import params
from iy.diffusion import Base, Branch, TextEncoders
from iy.diffusion.int8 import narrow
from iy.shapes import published
from iy.shapes.letters import tokenizer

META = torch.device("meta")


def shapes(base: params.Base) -> Base:
    """Every part on the meta device, frozen: no memory, no file but configurations; tokenizers are None."""
    return drawn(base, META)


def drawn(base: params.Base, device: torch.device, only_own: bool = False, tokenizers: bool = False) -> Base:
    """The parts with random weights in `base.dtype` on `device`.

    only_own: text branches that the base was not trained with are shapes alone. tokenizers: those that are here, else
    stand-ins; without it they are None.
    """
    import diffusers
    import transformers

    dtype = getattr(torch, base.dtype)
    mean, std = published.normalisation(base.vision)

    def part(library: Any, key: str) -> Any:
        asked = base.parts()[key]
        made = published.model(library, asked, key).requires_grad_(False)
        return narrow(made) if isinstance(asked, params.TextEncoder) and asked.int8 else made

    def one(asked: params.TextEncoder, key: str, length: int, own: bool, second: Branch | None) -> Branch:
        return Branch(tokenizer(asked) if tokenizers else None, part(transformers, key), length, own, second)

    def branch(name: str, asked: params.TextBranch) -> Branch:
        key = f"text.{name}"
        with META if only_own and not asked.own else nullcontext():
            second = asked.second and one(asked.second, f"{key}.second", asked.max_length, False, None)
            return one(asked, key, asked.max_length, asked.own, second)

    with device, drawn_in(dtype):
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


@contextmanager
def drawn_in(dtype: torch.dtype) -> Iterator[None]:
    """Models made meanwhile have weights of `dtype`, always the same ones."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def scheduler(base: params.Base) -> Any:
    import diffusers

    with torch.device("cpu"), drawn_in(torch.float32):  # its tables are small, and are read
        return getattr(diffusers, base.scheduler.cls).from_config(published.configuration(base.scheduler, "scheduler"))


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of the parameters, each counted once."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
