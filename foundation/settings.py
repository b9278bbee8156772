"""The profile's settings on parts of the foundation's own making, and those of the long stage 1."""

import platform
from pathlib import Path

import torch

from foundation.language import BYTES, LENGTH, LONG
from foundation.renders import SIDE
from iy import params

RATE, WARM_UP = 3e-4, 100  # stage 1 run long: the largest rate, and the steps until it is reached


def studio(weights: Path) -> params.Params:
    """The profile's settings on the parts in `weights`, at the foundation's size."""
    settings = params.load("studio")
    parts = {
        name: getattr(settings.base, name).model_copy(update={"path": str(weights / "foundation")})
        for name in ("unet", "vae", "scheduler", "vision")
    }
    length = {"clip": LENGTH, "ul2": LONG, "byt5": BYTES}
    text = {
        name: branch.model_copy(update={"path": str(weights / "foundation"), "max_length": length[name]})
        for name, branch in settings.base.text.items()
    }
    base = settings.base.model_copy(update=parts | {"text": text, "image_size": SIDE})
    training = settings.finetune.training.model_copy(update={"identity_model": str(weights / "identity")})
    return settings.model_copy(
        update={"base": base, "finetune": settings.finetune.model_copy(update={"training": training})}
    )


def long_stage1(
    settings: params.Params, *, rate: float, batch: int, steps: int, precision: str, identity_weight: float
) -> params.Params:
    """One photo per person: the reference is the masked crop of the very target, never another photo."""
    stage = settings.finetune.stages["1"].model_copy(update={"steps": steps, "learning_rate": rate, "warmup": WARM_UP})
    training = settings.finetune.training.model_copy(
        update={
            "batch": batch,
            "precision": precision,
            "reference_other": 0.0,
            "identity_weight": identity_weight,
            "ema_decay": 0.998,
            "validation_batches": 2,
        }
    )
    stages = settings.finetune.stages | {"1": stage}
    finetune = settings.finetune.model_copy(update={"training": training, "stages": stages, "init": "none"})
    return settings.model_copy(update={"finetune": finetune})


def hardware(device: torch.device) -> str:
    named = f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    return named if device.type == "cpu" else f"{named}, {torch.cuda.get_device_name(device)}"
