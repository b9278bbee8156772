"""Timing several ways of doing one thing in turns, so that a slow moment of the machine hits all of them."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from iy import git
from iy.device import torch_has_gpu


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, float]:
    """Median seconds of each way over `rounds`; the order turns from round to round, `warm` rounds do not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for k in range(-warm, rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            wait()
            start = time.perf_counter()
            ways[name]()
            wait()
            if k >= 0:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


class Case(NamedTuple):
    """One comparison: ours beside `against`, in the same unit."""

    case: str
    against: str
    ours: float
    theirs: float
    unit: str

    @property
    def ratio(self) -> float:
        """Ours as a share of theirs: of time and memory less is better, of a rate more."""
        return self.ours / self.theirs


def against_all(name: str, measured: dict[str, float], unit: str) -> list[Case]:
    """`ours` beside every other way that was measured."""
    return [Case(name, way, measured["ours"], value, unit) for way, value in measured.items() if way != "ours"]


def report(cases: list[Case], device: torch.device, **details: object) -> dict[str, object]:
    """What every benchmark gives: its comparisons, on what, when and of which code they were made, and the details."""
    compared = [case._asdict() | {"ratio": round(case.ratio, 4)} for case in cases]
    made = {"machine": machine(device), "date": time.strftime("%Y-%m-%d"), "commit": git.commit()}
    return {"cases": compared} | made | details


def wait() -> None:
    if torch_has_gpu():
        torch.cuda.synchronize()


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
