"""Timing several ways of doing one thing in turns, so that a slow moment of the machine hits all of them."""

import platform
import statistics
import time
from collections.abc import Callable

import torch


def in_turns(ways: dict[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, float]:
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


def ratios(measured: dict[str, float]) -> dict[str, float]:
    """Ours as a share of what `stock` and of what `naive` takes."""
    return {f"ours_to_{way}": round(measured["ours"] / measured[way], 3) for way in ("stock", "naive")}


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
