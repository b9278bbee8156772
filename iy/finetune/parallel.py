"""One process, or several that hold the whole model each (DDP): what the trainer asks of them.

Every batch is one batch of all processes: each takes its rows of it, and gradients are averaged. So losses, order of
examples and learning rates do not depend on how many there are.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from iy.errors import UserError
from iy.finetune.checkpoint import load_checkpoint, save_checkpoint
from iy.model import Personaliser


def rows_of(accelerator: Accelerator, batch: int) -> slice:
    """This process's rows of a batch."""
    count, index = accelerator.num_processes, accelerator.process_index
    if batch < count:
        raise UserError(
            f"finetune.training.batch = {batch} is less than the {count} processes that share it: make it larger"
        )
    return slice(index * batch // count, (index + 1) * batch // count)


class Replicated:
    """Every process holds the whole model.

    weights: what is trained, by name, each with its gradient after `collect`. wrapped: what is called in training.
    """

    def __init__(self, accelerator: Accelerator, model: Personaliser):
        self.accelerator, self.model = accelerator, model
        self.weights: dict[str, nn.Parameter] = trained(model)
        self.wrapped: Any = model

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        return self.optimizer

    @contextlib.contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """A backward pass; more: another one follows before the weights change, so nothing is exchanged yet."""
        with self.accelerator.no_sync(self.wrapped) if more else contextlib.nullcontext():
            yield

    def collect(self) -> None:
        """After the last backward pass of a step."""

    def clip(self, norm: float) -> None:
        self.accelerator.clip_grad_norm_(self.weights.values(), norm)

    def clear(self) -> None:
        self.optimizer.zero_grad()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[bool]:
        """While pictures are drawn with the model; whether this process is to draw them."""
        yield self.accelerator.is_main_process

    def save(self, folder: Path, **state: Any) -> None:
        """state: as `save_checkpoint` takes it, besides weights and optimiser."""
        if self.accelerator.is_main_process:
            save_checkpoint(folder, weights=self.weights, optimizer=self.optimizer, **state)

    def load(self, folder: Path, ema: list[torch.Tensor]) -> dict | None:
        """Fill weights, averages and optimiser; what `state.json` says, None without a checkpoint."""
        return load_checkpoint(folder, weights=self.weights, ema=ema, optimizer=self.optimizer)

    def finish(self, values: Mapping[str, torch.Tensor]) -> None:
        """After training: the model is whole in the first process, with these values of its weights."""
        for name, weight in self.weights.items():
            weight.data = values[name].to(weight.device)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def reduced(accelerator: Accelerator, value: torch.Tensor, how: str) -> torch.Tensor:
    """One tensor of those of all processes: their `sum` or `mean`."""
    return cast(torch.Tensor, accelerator.reduce(value, how))  # a tensor for a tensor
