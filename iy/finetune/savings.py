"""`finetune.savings`: to train what would not fit, or would wait. Each is tested against the plain form."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from iy import params
from iy.diffusion.int8 import narrow
from iy.errors import UserError
from iy.model import Personaliser


def check(settings: params.Finetune) -> None:
    """Refuse what does not go together."""
    savings, sharded = settings.savings, settings.parallel.sharding == "fsdp"
    if savings.weights == "bfloat16" and settings.training.precision != "bf16":
        raise UserError("finetune.savings.weights = 'bfloat16': set finetune.training.precision to bf16 too")
    refused = {
        "savings.compile": savings.compile,
        "savings.optimizer = 'adamw8bit'": savings.optimizer == "adamw8bit",
        f"savings.frozen = {savings.frozen!r}": savings.frozen != "none",
        "training.precision = 'fp16'": settings.training.precision == "fp16",
    }
    if sharded and (found := [name for name, asked in refused.items() if asked]):
        raise UserError(
            f"finetune.{found[0]} does not go with finetune.parallel.sharding = 'fsdp', which divides that memory "
            "already: turn one of them off"
        )


def apply(model: Personaliser, settings: params.Savings) -> None:
    """Change how the model is held and computed; what it computes stays, but for `frozen` and rounding."""
    if settings.frozen != "none":
        narrow(model.unet, settings.frozen, only=frozen)
    if settings.checkpointing:
        model.unet.enable_gradient_checkpointing()
        model.vision.tower.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.compile:
        unet: Any = model.unet
        unet.compile(fullgraph=True)
    dtype = torch.bfloat16 if settings.weights == "bfloat16" else torch.float32
    for weight in model.trainable_parameters():
        weight.data = weight.data.to(dtype)  # plain AdamW's small steps would vanish in half precision


def frozen(linear: nn.Linear) -> bool:
    return not linear.weight.requires_grad


@contextlib.contextmanager
def uncompiled(settings: params.Savings) -> Iterator[None]:
    """Where nothing is trained, nothing is compiled: the few pictures drawn are sooner there than another graph."""
    with torch.compiler.set_stance("force_eager") if settings.compile else contextlib.nullcontext():
        yield
