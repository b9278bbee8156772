"""Exact resume: everything a training needs to go on, in one call, as safetensors and JSON.

Batches, noise and dropout follow from (seed, step): the step is the data position and the state of random numbers.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from iy.errors import one_line
from iy.storage import atomic_folder, write_json

log = logging.getLogger(__name__)


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    weights: Mapping[str, torch.Tensor],
    ema: list[torch.Tensor],
    ema_step: int,
    optimizer: torch.optim.Optimizer,
    scaler: dict | None,
    curves: dict,
) -> None:
    """Write `folder/step-<step>` whole or not at all, then remove older ones.

    scaler: fp16's loss scale, None otherwise. curves: training and validation losses so far.
    """
    with atomic_folder(folder / f"step-{step:08d}") as aside:
        save_file(cpu(weights), aside / "weights.safetensors")
        save_file(cpu({str(i): tensor for i, tensor in enumerate(ema)}), aside / "ema.safetensors")
        save_file(cpu(flat(optimizer)), aside / "optimizer.safetensors")
        write_json(aside / "state.json", {"step": step, "ema_step": ema_step, "scaler": scaler, "curves": curves})
    for old in folder.glob("*step-*"):
        if old.name != f"step-{step:08d}":
            shutil.rmtree(old)


def load_checkpoint(
    folder: Path, *, weights: Mapping[str, torch.Tensor], ema: list[torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict | None:
    """Fill weights, averages and optimiser from the newest checkpoint and return its state.json; None without one."""
    found = next((one for one in sorted(folder.glob("step-*"), reverse=True) if whole(one)), None)
    if found is None:
        return None
    with torch.no_grad():
        for tensors, name in ((weights, "weights"), ({str(i): x for i, x in enumerate(ema)}, "ema")):
            stored = load_file(found / f"{name}.safetensors")
            for key, tensor in tensors.items():
                tensor.copy_(stored[key])
    unflatten(optimizer, load_file(found / "optimizer.safetensors"))
    return json.loads((found / "state.json").read_text())


def whole(checkpoint: Path) -> bool:
    """Whether its files are as long as they say; a disk that failed or was full may have cut them. Training then goes
    on from before, to the same result."""
    try:
        json.loads((checkpoint / "state.json").read_text())
        for name in ("weights", "ema", "optimizer"):
            with safe_open(checkpoint / f"{name}.safetensors", "pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        log.warning("%s cannot be read (%s): the training goes on from before it", checkpoint, one_line(error))
        return False
    return True


def cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and counts as `<parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
