"""FSDP2: each process holds its part of every weight, frozen or trained, and of its gradient, moments and average.

PyTorch's `fully_shard` is used as it is, and not by Accelerate: Accelerate's knows GPUs only, and shards whole blocks,
while K and V of all cross-attentions are computed before any block runs (`Personaliser.context`). Those, and whatever
else is outside the groups below, are gathered for the whole step; the groups one after the other.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from iy.finetune.checkpoint import MOMENTS, STATE, flat, is_sharded, newest, remove_others, tensors_of, unflatten
from iy.finetune.parallel import Replicated, reduced, trained
from iy.finetune.shards import empty, read_shards, write_shards
from iy.model import Personaliser
from iy.storage import write_json


class Sharded(Replicated):
    """weights: this process's part of each, as a leaf of its own; α, a number each, are whole everywhere."""

    def __init__(self, accelerator: Accelerator, model: Personaliser):
        super().__init__(accelerator, model)
        numbers = {weight for weight in model.parameters() if weight.ndim == 0}
        self.mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for group in groups(model):
            fully_shard(group, mesh=self.mesh, ignored_params=numbers)
        fully_shard(model, mesh=self.mesh, reshard_after_forward=True, ignored_params=numbers)
        self.held = trained(model)
        self.weights = {name: leaf(weight) for name, weight in self.held.items()}
        self.wrapped = self.forward

    def forward(self, *inputs: Any) -> torch.Tensor:
        with self.accelerator.autocast():
            return self.model(*inputs)

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        self.optimizer = optimizer
        return optimizer

    @contextlib.contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(not more)
        yield

    def collect(self) -> None:
        """Gradients of the parts are already means; those of α are not."""
        numbers = [name for name, weight in self.held.items() if not isinstance(weight, DTensor)]
        mean = reduced(self.accelerator, torch.stack([gradient(self.held[name]) for name in numbers]), "mean")
        for name, weight in self.held.items():
            if isinstance(weight, DTensor):
                self.weights[name].grad = gradient(weight).to_local()  # pyright: ignore # of a DTensor one too
        for name, value in zip(numbers, mean, strict=True):
            self.weights[name].grad = value

    def clip(self, norm: float) -> None:
        """By the norm of the whole gradient: each part is in one process, α's is in all."""
        parts, numbers = [], []
        for name, weight in self.held.items():
            (parts if isinstance(weight, DTensor) else numbers).append(gradient(self.weights[name]))
        squares = reduced(self.accelerator, torch.nn.utils.get_total_norm(parts).square(), "sum")
        total = (squares + torch.nn.utils.get_total_norm(numbers).square()).sqrt()
        torch.nn.utils.clip_grads_with_norm_(list(self.weights.values()), norm, total)

    def clear(self) -> None:
        for weight in (*self.held.values(), *self.weights.values()):
            weight.grad = None

    @contextlib.contextmanager
    def drawing(self) -> Iterator[bool]:
        """The model is whole everywhere for as long: its entrances are more than the `forward` that gathers."""
        modules = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield self.accelerator.is_main_process
        finally:
            for module in modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()

    def save(self, folder: Path, *, step: int, ema: list[torch.Tensor], **state: Any) -> None:
        """As `save_checkpoint`; each process writes its own part, and the first one says when all are there."""
        aside = folder / f".step-{step:08d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)  # a killed process left it
            aside.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        write_shards(aside, self.whole(self.named(ema, flat(self.optimizer))))
        if self.accelerator.is_main_process:
            shards = sorted(path.name for path in aside.glob("*.safetensors"))
            write_json(aside / STATE, {"step": step, "shards": shards, **state})
            aside.rename(folder / f"step-{step:08d}")
            remove_others(folder, step)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path, ema: list[torch.Tensor]) -> dict | None:
        found = newest(folder)
        if found is None:
            return None
        moments: dict[str, torch.Tensor] = {}
        if is_sharded(found):
            for key, one in empty(found).items():
                if key.startswith(MOMENTS):
                    moments[key.removeprefix(MOMENTS)] = self.part(torch.empty_like(one, device="cpu"))
            read_shards(found, self.whole(self.named(ema, moments)), alone=False)
        else:
            stored = {name: self.part(value) for name, value in tensors_of(found).items()}
            moments = {key.removeprefix(MOMENTS): stored[key] for key in stored if key.startswith(MOMENTS)}
            with torch.no_grad():
                for name, value in self.named(ema, {}).items():
                    value.copy_(stored[name])
        unflatten(self.optimizer, moments)
        return json.loads((found / STATE).read_text())

    def named(self, ema: list[torch.Tensor], moments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """This process's parts under their names in a checkpoint."""
        weights = {f"weights.{name}": weight.detach() for name, weight in self.weights.items()}
        averages = {f"ema.{index}": value for index, value in enumerate(ema)}
        return weights | averages | {f"{MOMENTS}{key}": value for key, value in moments.items()}

    def whole(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same as DTensors, which know what they are parts of. What has no dimension is whole."""
        names = {id(weight): name for name, weight in self.weights.items()}
        order = [names[id(weight)] for group in self.optimizer.param_groups for weight in group["params"]]
        numbered = {"ema": list(self.weights), "optimizer": order}

        def made(key: str, value: torch.Tensor) -> torch.Tensor:
            kind, rest = key.split(".", 1)
            name = numbered[kind][int(rest.split(".")[0])] if kind in numbered else rest
            return self.of(name, value) if value.ndim else value

        return {key: made(key, value) for key, value in parts.items()}

    def of(self, name: str, part: torch.Tensor) -> DTensor:
        like = self.held[name]
        assert isinstance(like, DTensor)
        return DTensor.from_local(
            part, self.mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def part(self, value: torch.Tensor) -> torch.Tensor:
        """This process's part of a whole tensor, as `fully_shard` divides it: along the first dimension."""
        if value.ndim == 0:
            return value
        parts = value.chunk(self.accelerator.num_processes)
        index = self.accelerator.process_index
        return (parts[index] if index < len(parts) else value[:0]).clone()

    def finish(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self.held.items():
            value = values[name].to(self.accelerator.device)
            whole = self.of(name, value).full_tensor() if isinstance(weight, DTensor) else value
            if self.accelerator.is_main_process:
                module, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(module), last, nn.Parameter(whole))


def groups(model: Personaliser) -> Iterator[nn.Module]:
    """What is gathered at a time."""
    for module in model.unet.modules():
        if isinstance(module, ResnetBlock2D):
            yield module
        if isinstance(module, BasicTransformerBlock):
            yield from (module.attn1, module.ff)
    yield from model.vision.tower.vision_model.encoder.layers


def leaf(weight: nn.Parameter) -> nn.Parameter:
    """The memory of this process's part of a weight."""
    return nn.Parameter(weight.detach().to_local()) if isinstance(weight, DTensor) else weight


def gradient(weight: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
