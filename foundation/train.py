"""The loop that every foundation part shares: AdamW with warm-up, cosine decay, EMA and a checkpoint a minute."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from foundation.muon import Muon
from iy.storage import atomic_path

FAST = 3  # times as fast, see `fit`


class Plan(NamedTuple):
    """One part's training.

    Its name in the working folder, that folder, how many steps, the largest rate, the device, and how many times as
    many pictures a step takes as it does on a CPU.
    """

    name: str
    folder: Path
    steps: int
    rate: float
    device: torch.device = torch.device("cpu")
    times: int = 1


def fit(
    plan: Plan,
    module: torch.nn.Module,
    loss: Callable[[int], torch.Tensor],
    decay: float = 0.999,
    weight_decay: float = 0.01,
    muon: bool = False,
    fast: str | None = None,
) -> torch.nn.Module:
    """Minimise `loss(step)` over `module`'s trainable weights; it then holds the EMA weights.

    `muon`: for its matrices. Weights with `fast` in their name learn `FAST` times as fast as the others.

    A finished part is read back from `folder/<name>.safetensors`; an unfinished one goes on from its last checkpoint
    (weights and EMA; the optimiser's moments start anew: an interrupted recipe is close to, not equal to, a whole one).
    """
    name, folder, steps, rate = plan[:4]
    rate *= plan.times**0.25 if muon else 1  # more pictures a step, less noise
    module.to(plan.device)
    folder.mkdir(parents=True, exist_ok=True)
    done, part = folder / f"{name}.safetensors", folder / f"{name}.part.safetensors"
    if done.exists():
        module.load_state_dict(load_file(done))
        return module.eval()
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    weights = [p for _, p in named]
    quick = [p for name, p in named if fast and fast in name]
    slow = [p for name, p in named if not (fast and fast in name)]
    optimisers = [
        (optimiser, times)
        for some, times in ((slow, 1), (quick, FAST))
        if some
        for optimiser in choose(some, rate, weight_decay, muon)
    ]
    ema, first = EMAModel(weights, decay=decay, use_ema_warmup=True, power=0.75, foreach=True), 0
    if part.exists():
        first = restore(module, ema, weights, part)
    bar, saved, mean = tqdm(range(first, steps), name, initial=first, total=steps), time.monotonic(), None
    for step in bar:
        now = rate * min(1, (step - first + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        value = loss(step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        for optimiser, times in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = times * now
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        ema.step(weights)
        mean = value.detach() if mean is None else torch.lerp(mean, value.detach(), 0.02)
        if step % 20 == 0:  # reading a number makes a GPU wait
            bar.set_postfix(loss=f"{mean.item():.4f}", refresh=False)
        if time.monotonic() - saved > 60:
            save(module, ema, step + 1, part)
            saved = time.monotonic()
    ema.copy_to(weights)
    with atomic_path(done) as aside:
        save_file({k: v.clone().contiguous() for k, v in module.state_dict().items()}, aside)
    part.unlink(missing_ok=True)
    return module.eval()


def choose(weights: list, rate: float, decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW; or Muon for what has two dimensions and more, and AdamW for the rest."""
    if not muon:
        return [torch.optim.AdamW(weights, rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)]
    matrices, others = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim <= 1]
    return [
        Muon(matrices, rate, weight_decay=decay),
        torch.optim.AdamW(others, rate, weight_decay=0.0, betas=(0.9, 0.99), fused=True),
    ]


def save(module: torch.nn.Module, ema: EMAModel, step: int, path: Path) -> None:
    state = {k: v.clone().contiguous() for k, v in module.state_dict().items()}
    state |= {f"ema.{i}": p.contiguous() for i, p in enumerate(ema.shadow_params)} | {"step": torch.tensor(step)}
    with atomic_path(path) as aside:
        save_file(state, aside)


def restore(module: torch.nn.Module, ema: EMAModel, weights: list, path: Path) -> int:
    state = load_file(path)
    step = int(state.pop("step"))
    ema.shadow_params = [state.pop(f"ema.{i}").to(weight.device) for i, weight in enumerate(weights)]
    ema.optimization_step = step
    module.load_state_dict(state)
    return step
