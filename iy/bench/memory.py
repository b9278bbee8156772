"""Peak memory of drawing, each way in a process of its own, beside what the process held before it."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from iy import params

if TYPE_CHECKING:
    import torch

STATUS = Path("/proc/self/status")


def run(settings: params.Params, steps: int, batch: int = 1, device: str = "cpu") -> dict:
    """Megabytes: `start` after imports, `peak` after drawing; on a GPU what its allocator held at most."""
    from iy.bench.generate import WAYS
    from iy.bench.measure import against_all, report
    from iy.device import choose_device

    held = {}
    for way in WAYS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            held[way] = pool.submit(measure, way, settings.resolved(), steps, batch, device).result()
    cases = against_all("peak memory", {way: value["peak"] for way, value in held.items()}, "MB")
    return report(cases, choose_device(device), steps=steps, batch=batch, megabytes=held)


def measure(way: str, resolved: dict, steps: int, batch: int, device: str) -> dict[str, float]:
    import torch

    from iy.bench import generate
    from iy.device import choose_device
    from iy.diffusion import load_base

    settings, where = params.parse(resolved, "iy bench memory"), choose_device(device)
    start = held(where)
    base = load_base(settings.base, where)
    draw = generate.images(way, base, settings.model, steps, batch)
    with torch.no_grad():
        draw()
    return {"start": start, "peak": held(where)}


def held(device: "torch.device") -> float:
    import torch

    value = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()
    return round(value / 1e6, 1)


def peak_resident() -> int:
    """Bytes this process held at most. Linux's ru_maxrss will not do: a new process inherits its parent's."""
    if STATUS.exists():
        return 1024 * int(next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
