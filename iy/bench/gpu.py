"""A quarter of an hour on one GPU: the benchmarks of a profile's size and its rehearsal, each within its share of time.

Every step is a command of its own, so that one that fails or runs late costs the others nothing; what it measured and
what it said lie in the folder `out`, a JSON and a log each.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from iy.storage import write_json

LEAST = 30  # seconds under which no step is begun


class Step(NamedTuple):
    """share: of the time that is left, at most; json: whether the command takes --out."""

    name: str
    command: list[str]
    share: float
    json: bool


def steps(profile: str, shape: str, device: str, photos: Path | None) -> list[Step]:
    """In the order of their worth."""
    where = ["--device", device]
    folder = ["--photos", str(photos.resolve())] if photos else []
    return [
        Step("train", ["bench", "train", "-p", profile, "--rounds", "5", *where], 0.3, True),
        Step("unet", ["bench", "unet", "--shape", shape, "--rounds", "7", *where], 0.25, True),
        Step("generate", ["bench", "generate", "-p", profile, "--random", "--rounds", "3", *where], 0.4, True),
        Step("rehearse", ["rehearse", "-p", profile, "--whole", *folder], 0.95, False),
    ]


def run(todo: list[Step], seconds: float, out: Path, say: Callable[[str], None]) -> dict[str, dict]:
    """Each step's exit code (None: stopped when its time was up, or never begun) and seconds; also as summary.json."""
    out.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + seconds, {}
    for step in todo:
        left = end - time.monotonic()
        if left < LEAST:
            found[step.name] = {"code": None, "seconds": 0.0}
            say(f"{step.name}: not begun, {max(0, left):.0f} s are left")
            continue
        start = time.monotonic()
        code = command(step, out, left * step.share)
        found[step.name] = {"code": code, "seconds": round(time.monotonic() - start, 1)}
        ended = "stopped: its time was up" if code is None else f"exit code {code}"
        say(f"{step.name}: {ended}, see {out / step.name}.log")
        write_json(out / "summary.json", found)
    return found


def command(step: Step, out: Path, seconds: float) -> int | None:
    """Its exit code; None where it was stopped."""
    more = ["--out", str(out / f"{step.name}.json")] if step.json else []
    with open(out / f"{step.name}.log", "w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "iy", *step.command, *more], stdout=log, stderr=log, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return None
    return done.returncode
