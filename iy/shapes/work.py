"""What one piece of each stage's work computes and holds, counted on shapes: a caption, a picture, a step, a drawing.

B rows, L tokens; masks are real tensors (the model asks them), everything else is on the meta device.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from iy import params
from iy.diffusion import POOLED, Base
from iy.finetune.loss import target, weighted_mse
from iy.model import Personaliser
from iy.model.attention import Tokens
from iy.shapes.base import weight_bytes
from iy.shapes.meter import GpuKernels, Meter

META = torch.device("meta")
Lengths = Mapping[str, int]  # text branch -> tokens of a prompt


class Work(NamedTuple):
    """flops of it; working: bytes at its peak besides the weights; result: bytes of what it leaves."""

    flops: float
    working: float
    result: float


class Step(NamedTuple):
    """A training step. Bytes: frozen weights, trained ones, optimiser, average; working: gradients and activations."""

    flops: float
    trained: int
    frozen_bytes: float
    trained_bytes: float
    optimiser_bytes: float
    average_bytes: float
    working: float

    @property
    def bytes(self) -> float:
        return self.frozen_bytes + self.trained_bytes + self.optimiser_bytes + self.average_bytes + self.working


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


@torch.no_grad()
def encode_pictures(base: Base, count: int) -> Work:
    """`count` pictures of `image_size` to latents."""
    with Meter() as meter, GpuKernels(None):
        coded = base.vae.encode(empty(count, 3, base.image_size, base.image_size, dtype=base.dtype))
    latents = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents
    return Work(meter.flops, meter.peak, latents.numel() * 2)


@torch.no_grad()
def decode_pictures(base: Base, count: int) -> Work:
    with Meter() as meter, GpuKernels(None):
        drawn = base.vae.decode(empty(count, *base.latent_shape, dtype=base.dtype)).sample
    return Work(meter.flops, meter.peak, drawn.numel())


@torch.no_grad()
def encode_captions(base: Base, count: int, lengths: Lengths) -> Work:
    """`count` captions of `lengths` tokens to the states of every branch, in two bytes a number."""
    with Meter() as meter, GpuKernels(None):
        for name, branch in base.text.items():
            ids = torch.empty(count, lengths[name], dtype=torch.long, device=META)
            for one in (branch, branch.second):
                if one is not None:
                    one.encoder(ids)
    wide = sum(lengths[name] * branch.width for name, branch in base.text.items())
    return Work(meter.flops, meter.peak, 2 * count * wide)


def personal(base: Base, settings: params.Model) -> Personaliser:
    with META:
        return Personaliser(base, settings)


def text_states(base: Base, count: int, lengths: Lengths, dtype: torch.dtype) -> Tokens:
    """States (B, L, D) of every branch, and the pooled ones where the U-Net takes them."""
    states = {
        name: (empty(count, lengths[name], branch.width, dtype=dtype), torch.ones(count, lengths[name]).bool())
        for name, branch in base.text.items()
    }
    second = base.text[base.own].second
    if second is not None:
        pooled = empty(count, 1, second.encoder.config.projection_dim, dtype=dtype)
        states[POOLED] = pooled, torch.ones(count, 1).bool()
    return states


def training_step(base: Base, settings: params.Params, lengths: Lengths, checkpointing: bool = False) -> Step:
    """Forward and backward of one batch (one GPU's), as `iy.finetune` has it: bf16 by autocast, trained weights and
    their averages in float32, AdamW.

    checkpointing: the U-Net's activations are computed again in the backward pass instead of kept.
    """
    training = settings.finetune.training
    autocast = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[training.precision]
    model = personal(base, settings.model).train()
    if checkpointing:
        model.unet.enable_gradient_checkpointing(functools.partial(computed_again, autocast))
    for weight in model.trainable_parameters():
        weight.data = weight.data.float()
    count, dtype, side = training.batch, base.dtype, model.vision.image_size
    latents, t = empty(count, *base.latent_shape, dtype=dtype), torch.empty(count, dtype=torch.long, device=META)
    text, crops = text_states(base, count, lengths, dtype), empty(count, 1, 3, side, side, dtype=dtype)
    weight = empty(count, 1, *base.latent_shape[1:], dtype=torch.float32)
    with Meter() as meter, GpuKernels(autocast) as kernels:
        said = model(latents, t, text, crops, torch.ones(count, 1).bool())
        loss = weighted_mse(said, target(base.scheduler, latents, latents, t), weight, t.float())
        kernels.copies.clear()  # as autocast does where it ends
        loss.backward()
    trained = sum(one.numel() for one in model.trainable_parameters())
    frozen = sum(one.numel() * one.element_size() for one in model.parameters() if not one.requires_grad)
    return Step(meter.flops, trained, frozen, 4 * trained, 8 * trained, 4 * trained, meter.peak)


def computed_again(autocast: torch.dtype | None, block: Callable[..., Any], *given: Any) -> Any:
    """Gradient checkpointing of one block; the backward pass enters the kernels anew, as it does autocast."""

    def run(*given: Any) -> Any:
        with GpuKernels(autocast):
            return block(*given)

    return checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False)


@torch.no_grad()
def denoising(base: Base, settings: params.Params, count: int, parts: int, lengths: Lengths) -> Work:
    """One step of drawing `count` pictures; parts: evaluations of the U-Net that guidance asks for, side by side."""
    model, dtype = personal(base, settings.model).eval(), base.dtype
    side, rows = model.vision.image_size, count * parts
    with Meter() as meter, GpuKernels(None):
        vision = model.vision_tokens(empty(rows, 1, 3, side, side, dtype=dtype), torch.ones(rows, 1).bool())
        context = model.context(text_states(base, rows, lengths, dtype), vision)
        before = meter.flops
        t = torch.empty((), dtype=torch.long, device=META)
        model.denoise(empty(rows, *base.latent_shape, dtype=dtype), t, context)
    return Work(meter.flops - before, meter.peak, 0)


def part_bytes(base: Base) -> dict[str, int]:
    """Bytes of every frozen part, by its key in the settings."""
    found = {name: weight_bytes(getattr(base, name)) for name in ("unet", "vae", "vision")}
    return found | {f"text.{name}": weight_bytes(branch) for name, branch in base.text.items()}
