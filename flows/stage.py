"""One Prefect task: `dvc repro --single-item STAGE`, its output live in the task's log, an unchanged stage *Cached*."""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import State, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.states import Completed, Failed

from flows import locks, process
from flows.turn import turn
from iy.stage import ENDING
from iy.stage import UNREACHABLE as LATER

UNCHANGED = ("didn't change, skipping", "is cached - skipping run")  # dvc's words: dvc is pinned
KILLED = re.compile(r"exited with -(\d+)$")  # likewise
UNREACHABLE = "Unreachable"  # the state of a stage that the same command may bring further later
NOISE = re.compile(  # hints that are for somebody who types dvc, and what MLflow, pip and Warp say of themselves
    r"^(To track the changes with git|To enable auto staging|\s*git add |\s*dvc config core\.autostage|Use `dvc push`"
    r"|.*Warp CUDA warning: |Warp \d"
    r"|   CUDA |   Devices:|     \"(cpu|cuda)|   Kernel cache:|     /.*/warp/|Module .* load on device "
    r"|WARNING: 'erasures/erased\.txt' is empty|\s*color_warning\($|.*INFO mlflow\.pyfunc: "
    r"|WARNING: Process .* in RWLock-file "
    r"|\[notice\] |.*INFO +\[?alembic\.|.*INFO mlflow\.store\.db\.utils: |.*WARNING mlflow\.utils\.environment: "
    r"|.*WARNING mlflow\.utils\.requirements_utils: |.*INFO mlflow\.tracking\."
    r"|.*UserWarning: Add type hints to the `predict`)"
)
STEP = re.compile(r"\b(\d+)(?: ?/ ?| of )(\d+)\b")


def unreachable(task: Any, run: Any, state: State) -> bool:
    """Only what did not answer is worth another try."""
    return state.name == UNREACHABLE


@task(
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=unreachable,
    persist_result=False,
)
def repro(stage: str, folder: str, state: str, force: bool = False, pipeline: str | None = None) -> State:
    """Bring one stage up to date in `folder`; the seconds that took are the result, None where nothing had to run.

    A failing one is a Failed state with its own last words, no traceback.
    """
    with turn(stage, Path(state), get_run_logger().warning):
        began = time.monotonic()
        ended = run(stage, Path(folder), force, pipeline)
    if ended.code == 0 and ended.unchanged:
        return Completed(name="Cached", message="nothing changed")
    if ended.code == 0:
        return Completed(data=time.monotonic() - began)
    return Failed(name=UNREACHABLE if ended.unreachable else "Failed", message=named(stage, ended.said))


def named(stage: str, said: str) -> str:
    """What went wrong, after the stage's name, which it may begin with already."""
    return said if said.startswith(f"{stage}:") else f"{stage}: {said}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How `dvc repro` ended: its exit code, whether nothing had to run, what went wrong, whether it may work later."""

    code: int
    unchanged: bool
    said: str
    unreachable: bool = False


def run(stage: str, folder: Path, force: bool, pipeline: str | None) -> Ended:
    log, unchanged, complaint, shown = get_run_logger(), False, None, Progress(stage)
    ending = folder / ".dvc" / "tmp" / "iy-ending.json"
    ending.unlink(missing_ok=True)
    locks.mend(folder / ".dvc" / "tmp" / "rwlock")
    child = process.start(
        process.python("dvc", "repro", "--single-item", stage, *["--force"] * force),
        cwd=folder,
        env={**environment(folder, pipeline), ENDING: str(ending.resolve())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        for line in process.lines(child):
            unchanged |= any(words in line for words in UNCHANGED)
            if line.startswith(("ERROR: ", "interrupted:")):
                complaint = line
            if not NOISE.match(line) and shown.take(line):
                log.info(line)
        return how(child.wait(), unchanged, complaint, ending)
    finally:  # cancelled from the UI, Ctrl-C, or done
        process.stop_work(child)


def how(code: int, unchanged: bool, complaint: str | None, ending: Path) -> Ended:
    """The stage's own reason if it left one, else what dvc says of it."""
    try:
        left = json.loads(ending.read_text(encoding="utf-8"))
    except FileNotFoundError:
        said = complaint or f"dvc repro ended with exit code {code}"
        if killed := KILLED.search(said):
            said = (
                f"its process was ended from outside (signal {killed[1]}), as the kernel does when memory runs out: "
                "free some, then run the same command again and it continues"
            )
        return Ended(code=code, unchanged=unchanged, said=said)
    ending.unlink()
    return Ended(code=code, unchanged=unchanged, said=left["message"], unreachable=left["code"] == LATER)


def environment(folder: Path, pipeline: str | None) -> dict[str, str]:
    """The stage's environment: its own folder's code, unbuffered output, and the run that it belongs to in MLflow."""
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    own = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([str(folder.resolve()), *others])}
    return {**os.environ, **own, **({"IY_PIPELINE": pipeline} if pipeline else {})}


class Progress:
    """Turns `12/80` in what a stage prints into a progress artifact; lets a progress bar into the log every 5 s."""

    def __init__(self, stage: str) -> None:
        self.stage, self.updated, self.logged = stage, 0.0, 0.0
        self.artifact: UUID | None = None

    def take(self, line: str) -> bool:
        """Whether the line belongs in the log."""
        now, found = time.monotonic(), STEP.search(line)
        if found and 0 < int(found[2]) and int(found[1]) <= int(found[2]):
            self.show(100 * int(found[1]) / int(found[2]), now)
        if "%|" not in line:
            return True
        due = now - self.logged > 5
        self.logged = now if due else self.logged
        return due

    def show(self, percent: float, now: float) -> None:
        if self.artifact is None:
            made = create_progress_artifact(
                percent, key=f"{self.stage}-progress", description=f"{self.stage}, steps done"
            )
            assert isinstance(made, UUID)  # a coroutine only where one is awaited
            self.artifact = made
        elif now - self.updated > 2 or percent >= 100:
            update_progress_artifact(self.artifact, percent)
        else:
            return
        self.updated = now
