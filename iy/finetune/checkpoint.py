"""Exact resume: everything a training needs to go on, in one call, as safetensors and JSON.

Batches, noise and dropout follow from (seed, step): the step is the data position and the state of random numbers.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from iy.storage import atomic_folder, write_json


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
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    with torch.no_grad():
        for tensors, name in ((weights, "weights"), ({str(i): x for i, x in enumerate(ema)}, "ema")):
            stored = load_file(found[-1] / f"{name}.safetensors")
            for key, tensor in tensors.items():
                tensor.copy_(stored[key])
    unflatten(optimizer, load_file(found[-1] / "optimizer.safetensors"))
    return json.loads((found[-1] / "state.json").read_text())


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
