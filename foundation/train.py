"""The loop that every part of the foundation is trained by: AdamW or Muon, warm-up, cosine decay, averaged weights.

On a GPU a whole step (forward, backward, optimiser) is recorded once as a CUDA graph and replayed: the parts are small,
and a processor that starts thousands of kernels a step would hold the GPU back. So a part states its training as two
functions: `draw(step)`, on the processor, chooses what a step sees, as tensors of fixed shapes; `loss(batch)`, on the
device, must not read a number back.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from foundation.muon import Muon
from iy.storage import atomic_path

Batch = dict[str, torch.Tensor]
WARM_UP, EAGER, TOLD, SAVED = 100, 3, 50, 60.0  # steps, steps before recording, steps between readings, seconds
log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """One part's training: its name in the working folder, that folder, the steps, the largest rate, pictures or
    captions a step, the device, and the seconds after which it ends though steps are left (None: never).
    """

    name: str
    folder: Path
    steps: int
    rate: float
    batch: int
    device: torch.device
    seconds: float | None = None


class State:
    """Everything that a training holds: trained weights, their averages, optimisers, how far it is."""

    def __init__(self, module: torch.nn.Module, plan: Plan, decay: float, weight_decay: float, muon: bool):
        self.module, self.decay = module, decay
        self.weights = [p for p in module.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.weights]
        self.rate = torch.zeros((), device=plan.device)
        matrices = [p for p in self.weights if muon and p.ndim > 1]
        others = [p for p in self.weights if not (muon and p.ndim > 1)]
        on_gpu = plan.device.type == "cuda"
        self.optimisers: list[torch.optim.Optimizer] = []
        if matrices:
            self.optimisers.append(Muon(matrices, self.rate, weight_decay=weight_decay))
        if others:
            rate = self.rate if on_gpu else 0.0
            self.optimisers.append(
                torch.optim.AdamW(others, rate, weight_decay=weight_decay, capturable=on_gpu, foreach=on_gpu)
            )
        self.step, self.seconds = 0, 0.0

    def set_rate(self, rate: float) -> None:
        self.rate.fill_(rate)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                if not torch.is_tensor(group["lr"]):
                    group["lr"] = rate

    def average(self) -> None:
        share = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1 - share)

    def save(self, path: Path) -> None:
        """Weights and averages; the optimisers' moments start anew, so an interrupted training is close to a whole one,
        not equal to it."""
        state = distinct(self.module)
        state |= {f"average.{i}": value.cpu().contiguous() for i, value in enumerate(self.averages)}
        state |= {"step": torch.tensor(self.step), "seconds": torch.tensor(self.seconds)}
        with atomic_path(path) as aside:
            save_file(state, aside)

    def restore(self, path: Path) -> None:
        state = load_file(path)
        self.step, self.seconds = int(state.pop("step")), float(state.pop("seconds"))
        for i, average in enumerate(self.averages):
            average.copy_(state.pop(f"average.{i}"))
        fill(self.module, state)


def distinct(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state on the processor; of tensors that are one and the same (T5's embeddings), the first."""
    first: dict[int, str] = {}
    for name, value in module.state_dict().items():
        first.setdefault(value.data_ptr(), name)
    return {
        name: value.detach().cpu().contiguous()
        for name, value in module.state_dict().items()
        if first[value.data_ptr()] == name
    }


def fill(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    missing, unknown = module.load_state_dict(state, strict=False)
    shared = set(module.state_dict()) - set(distinct(module))
    assert not unknown and set(missing) <= shared, f"another module's weights: {unknown or missing}"


def fit(
    plan: Plan,
    module: torch.nn.Module,
    draw: Callable[[int], Batch],
    loss: Callable[[Batch], torch.Tensor],
    decay: float = 0.999,
    weight_decay: float = 0.01,
    muon: bool = False,
) -> torch.nn.Module:
    """Minimise `loss(draw(step))` over `module`'s trainable weights; it then holds the averaged ones.

    A finished part is read back from `folder/<name>.safetensors`; an unfinished one goes on from its last checkpoint.
    """
    module.to(plan.device)
    plan.folder.mkdir(parents=True, exist_ok=True)
    done, part = plan.folder / f"{plan.name}.safetensors", plan.folder / f"{plan.name}.part.safetensors"
    if done.exists():
        fill(module, load_file(done))
        return module.eval()
    torch.manual_seed(plan.steps)
    state = State(module, plan, decay, weight_decay, muon)
    if part.exists():
        state.restore(part)
    run(plan, state, stepper(plan, state, loss), draw, part)
    with torch.no_grad():
        for weight, average in zip(state.weights, state.averages, strict=True):
            weight.copy_(average)
    with atomic_path(done) as aside:
        save_file(distinct(module), aside)
    part.unlink(missing_ok=True)
    log.info("%s: %d steps of %d in %.0f s", plan.name, state.step, plan.batch, state.seconds)
    return module.eval()


def run(plan: Plan, state: State, step: Callable[[Batch], torch.Tensor], draw: Callable[[int], Batch], part: Path):
    """Steps until they or the time are over, a checkpoint a minute."""
    first, began, before = state.step, time.monotonic(), state.seconds
    saved, mean = began, None
    bar = tqdm(range(first, plan.steps), plan.name, initial=first, total=plan.steps, mininterval=5)
    for number in bar:
        state.seconds = before + time.monotonic() - began
        gone = number / plan.steps
        if plan.seconds is not None:
            gone = max(gone, state.seconds / plan.seconds)
        if gone >= 1:
            break
        warm = min(1.0, (number - first + 1) / WARM_UP)
        state.set_rate(plan.rate * warm * falling(gone))
        value = step(draw(number))
        state.step = number + 1
        state.average()
        mean = value.clone() if mean is None else mean.lerp_(value, 0.02)
        if number % TOLD == 0:  # reading a number makes a GPU wait
            bar.set_postfix(loss=f"{mean.item():.4f}", refresh=False)
        if time.monotonic() - saved > SAVED:
            state.save(part)
            saved = time.monotonic()


def falling(gone: float) -> float:
    """The rate's share of the largest one when a share 0 to 1 of the training is over: a cosine down to a fiftieth."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, gone)))


def stepper(plan: Plan, state: State, loss: Callable[[Batch], torch.Tensor]) -> Callable[[Batch], torch.Tensor]:
    """One optimiser step on a batch; on a GPU recorded at the `EAGER`th call and replayed from then on."""

    def eager(batch: Batch) -> torch.Tensor:
        for optimiser in state.optimisers:
            optimiser.zero_grad(set_to_none=True)  # here: a recording that failed leaves gradients of its own
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(state.weights, 1.0, foreach=True)
        for optimiser in state.optimisers:
            optimiser.step()
        return value.detach()

    def on_device(batch: Batch) -> Batch:
        return {name: value.to(plan.device, non_blocking=True) for name, value in batch.items()}

    if plan.device.type != "cuda":
        return lambda batch: eager(on_device(batch))
    return Recorded(eager, on_device)


class Recorded:
    """A step on a GPU as a CUDA graph, after torch's recipe for whole-network capture."""

    def __init__(self, eager: Callable[[Batch], torch.Tensor], on_device: Callable[[Batch], Batch]):
        self.eager, self.on_device = eager, on_device
        self.calls, self.failed = 0, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Batch = {}
        self.value = torch.zeros(())

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.calls += 1
        if self.graph is not None:
            for name, value in batch.items():
                self.batch[name].copy_(value, non_blocking=True)
            self.graph.replay()
            return self.value
        if self.calls <= EAGER:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                value = self.eager(self.on_device(batch))
            torch.cuda.current_stream().wait_stream(side)
            return value
        return self.record(self.on_device(batch))

    def record(self, batch: Batch) -> torch.Tensor:
        if self.failed:
            return self.eager(batch)
        self.batch, graph = batch, torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.value = self.eager(self.batch)
        except RuntimeError as error:  # an operation that cannot be recorded, in another version of a library
            log.warning("no CUDA graph, every kernel is started by itself: %s", " ".join(str(error).split())[:300])
            self.failed = True
            torch.cuda.synchronize()
            return self.eager(batch)
        self.graph = graph
        graph.replay()
        return self.value


def mixed(device: torch.device) -> torch.autocast:
    """bfloat16 on GPUs and on processors with instructions for it, else float32. Without autocast's cache: weights that
    were first narrowed without gradients would get none later."""
    pays = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=pays, cache_enabled=False)
