"""One Prefect task: `dvc repro --single-item STAGE`, its output live in the task's log, an unchanged stage *Cached*."""

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, Failed, State

from flows import process

UNCHANGED = ("didn't change, skipping", "is cached - skipping run")  # dvc's words: dvc is pinned
NOISE = re.compile(
    r"^(To track the changes with git|To enable auto staging|\s*git add |\s*dvc config core\.autostage|Use `dvc push`)"
)
NETWORK = r"(timed? ?out|connection|temporar|unreachable|name resolution|\b50[234]\b)"
STEP = re.compile(r"\b(\d+)(?: ?/ ?| of )(\d+)\b")


def unreachable(task, run, state: State) -> bool:
    """Only a failing network is worth another try, and only fetching photos needs one."""
    return bool(re.match("photos: .*" + NETWORK, state.message or "", re.I))


@task(
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=unreachable,
    persist_result=False,
)
def repro(stage: str, folder: str = ".", force: bool = False, pipeline: str | None = None) -> State:
    """Bring one stage up to date in `folder`. A failing one is a Failed state with its own last words, no traceback."""
    with turn(stage):
        code, unchanged, said = run(stage, Path(folder), force, pipeline)
    if code == 0:
        return Completed(name="Cached" if unchanged else "Completed", message="nothing changed" if unchanged else None)
    return Failed(message=f"{stage}: {said or f'dvc repro ended with exit code {code}'}")


def turn(stage: str):
    """One training at a time on this server: the global concurrency limit `training`."""
    return concurrency("training", occupy=1) if stage.startswith("finetune") else contextlib.nullcontext()


def run(stage: str, folder: Path, force: bool, pipeline: str | None) -> tuple[int, bool, str | None]:
    """(exit code, whether nothing had to run, the line that says what went wrong)."""
    log, unchanged, said, shown = get_run_logger(), False, None, Progress(stage)
    child = process.start(
        process.python("dvc", "repro", "--single-item", stage, *["--force"] * force),
        cwd=folder,
        env=environment(folder, pipeline),
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
            if line.startswith(("error:", "ERROR: ", "interrupted:")) and not (said or "").startswith("error:"):
                said = line
            if not NOISE.match(line) and shown.take(line):
                log.info(line)
        return child.wait(), unchanged, said.removeprefix("error: ") if said else None
    finally:  # cancelled from the UI, Ctrl-C, or done
        process.stop_work(child)


def environment(folder: Path, pipeline: str | None) -> dict[str, str]:
    """The stage's environment: its own folder's code, unbuffered output, and the run that it belongs to in MLflow."""
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    own = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([str(folder.resolve()), *others])}
    return {**os.environ, **own, **({"IY_PIPELINE": pipeline} if pipeline else {})}


class Progress:
    """Turns `12/80` in what a stage prints into a progress artifact; lets a progress bar into the log every 5 s."""

    def __init__(self, stage: str):
        self.stage, self.artifact, self.updated, self.logged = stage, None, 0.0, 0.0

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
            self.artifact = create_progress_artifact(
                percent, key=f"{self.stage}-progress", description=f"{self.stage}, steps done"
            )
        elif now - self.updated > 2 or percent >= 100:
            update_progress_artifact(self.artifact, percent)
        else:
            return
        self.updated = now
