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
from iy.finetune.shards import read_whole
from iy.storage import atomic_folder, write_json

FILES, STATE, MOMENTS = ("weights", "ema", "optimizer"), "state.json", "optimizer."

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
        write_json(aside / STATE, {"step": step, "ema_step": ema_step, "scaler": scaler, "curves": curves})
    remove_others(folder, step)


def remove_others(folder: Path, step: int) -> None:
    """Checkpoints of other steps than `step`, and whatever a killed process left of one."""
    for old in folder.glob("*step-*"):
        if old.name != f"step-{step:08d}":
            shutil.rmtree(old)


def load_checkpoint(
    folder: Path, *, weights: Mapping[str, torch.Tensor], ema: list[torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict | None:
    """Fill weights, averages and optimiser from the newest checkpoint and return its state.json; None without one."""
    found = newest(folder)
    if found is None:
        return None
    stored = tensors_of(found)
    with torch.no_grad():
        for key, tensor in weights.items():
            tensor.copy_(stored[f"weights.{key}"])
        for index, tensor in enumerate(ema):
            tensor.copy_(stored[f"ema.{index}"])
    unflatten(optimizer, {key.removeprefix(MOMENTS): value for key, value in stored.items() if key.startswith(MOMENTS)})
    return json.loads((found / STATE).read_text())


def newest(folder: Path) -> Path | None:
    return next((one for one in sorted(folder.glob("step-*"), reverse=True) if whole(one)), None)


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whether one process wrote it or several their parts, named as in
    `iy.finetune.shards`."""
    if is_sharded(checkpoint):
        return read_whole(checkpoint)
    files = ((name, load_file(checkpoint / f"{name}.safetensors")) for name in FILES)
    return {f"{name}.{key}": value for name, file in files for key, value in file.items()}


def is_sharded(checkpoint: Path) -> bool:
    return "shards" in json.loads((checkpoint / STATE).read_text())


def whole(checkpoint: Path) -> bool:
    """Whether its files are as long as they say; a disk that failed or was full may have cut them. Training then goes
    on from before, to the same result."""
    try:
        state = json.loads((checkpoint / STATE).read_text())
        for name in state.get("shards", [f"{name}.safetensors" for name in FILES]):
            with safe_open(checkpoint / name, "pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        log.warning("%s cannot be read (%s): the training goes on from before it", checkpoint, one_line(error))
        return False
    return True


def cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and counts as `<parameter's number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
