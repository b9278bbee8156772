"""A run that is killed at any moment and started again ends in the very bytes of an undisturbed one; nothing is left.

`iy run` alone, its whole group, Prefect's temporary server alone and the stage alone, in turns, each at a random moment
of its work. A toy project's runs, by default, go on one from another, and each fourth is left to end. The
real profile `smoke`, twenty times, each in a clone of its own and run again to the end (an hour on two cores):

    IY_KILLS=20 IY_KILL_PROFILE=smoke python -m pytest -s tests/test_run_killed.py
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from flows import orphans
from tests import toy_project

KILLS = int(os.environ.get("IY_KILLS", "4"))
PROFILE = os.environ.get("IY_KILL_PROFILE", "")  # empty: a toy project
RUN = (sys.executable, "-m", "flows")
SEED = int(os.environ.get("IY_KILL_SEED", "0"))
UNTRACKED = (b'"pipeline": false', b'"pipeline": true')  # the toy notes whether Prefect told it of its run
KINDS = ("stage", "server", "run", "group")


def begun(folder: Path, said: Path) -> subprocess.Popen:
    with said.open("ab") as log:
        return subprocess.Popen(
            RUN, cwd=folder, env=environment(folder), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def environment(folder: Path) -> dict[str, str]:
    return {key: value for key, value in toy_project.environment(folder).items() if key != "PREFECT_API_URL"}


def project(folder: Path) -> Path:
    """The toy, or a clone of this project whose params.yaml names PROFILE."""
    if not PROFILE:
        return toy_project.make(folder, steps=5)
    subprocess.run(["git", "clone", "-q", str(toy_project.HERE), str(folder)], check=True)
    (folder / "params.yaml").write_text(f"profile: {PROFILE}\n")
    if (toy_project.HERE / ".iy" / "weights").is_dir():
        shutil.copytree(toy_project.HERE / ".iy" / "weights", folder / ".iy" / "weights")
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(*UNTRACKED)
        for place in ("data", "models", "reports")
        for path in sorted((folder / place).rglob("*"))
        if path.is_file()
    }


def workers(folder: Path, run: int) -> list[psutil.Process]:
    """The processes that carry the mark of run `run` in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            number, _, state = process.environ().get(orphans.RUN, "0 0 /").split(" ", 2)
        except (psutil.Error, OSError):
            continue
        if int(number) == run and Path(state).parent == folder.resolve():
            found.append(process)
    return found


def kill(child: subprocess.Popen, folder: Path, kind: str) -> bool:
    """Whether there was one to kill: between two stages there is no stage."""
    if kind in ("run", "group"):
        (os.kill if kind == "run" else os.killpg)(child.pid, signal.SIGKILL)
        return True
    for process in matching(folder, child.pid, kind):
        process.kill()
        return True
    return False


def matching(folder: Path, run: int, kind: str) -> list[psutil.Process]:
    """The server of a run, or its stage: not the dvc between them."""
    word = {"server": "prefect", "stage": "iy." if PROFILE else "toy_stage.py"}[kind]
    return [one for one in workers(folder, run) if any(part.startswith(word) for part in words(one))]


def words(process: psutil.Process) -> list[str]:
    try:
        found = process.cmdline()
    except psutil.Error:
        return []
    return [] if "dvc" in found else found


def wait_until_it_works(child: subprocess.Popen, folder: Path, kind: str) -> None:
    """Server and stage are killed while stages work; a run also while it starts, checks and ends."""
    while kind in ("server", "stage") and child.poll() is None and not matching(folder, child.pid, "stage"):
        time.sleep(0.02)


def nothing_is_left(folder: Path, run: int) -> None:
    """No process but those that end by themselves within seconds, and no lock that is held."""
    end = time.monotonic() + 30
    while (left := workers(folder, run)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]
    for path in (folder / ".iy" / "locks").glob("*.lock"):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def temporary(folder: Path) -> set[str]:
    """Folders and files that are only there while something is written."""
    places = [place for name in ("data", "models", "reports") for place in (folder / name).rglob(".*")]
    return {str(path) for path in [*places, *(folder / ".git").glob("iy-*"), *(folder / ".git").rglob("*.lock")]} | {
        name for name in os.listdir(tempfile.gettempdir()) if name.startswith(("iy-", "pymp-"))
    }


def shown_as_running(folder: Path) -> list[tuple[str, str]]:
    """Flow runs that Prefect believes to be at work."""
    with contextlib.closing(sqlite3.connect(folder / ".iy" / "prefect" / "prefect.db")) as database:
        return database.execute(
            "select name, state_type from flow_run where state_type not in ('COMPLETED', 'FAILED', 'CRASHED')"
        ).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_that_is_killed_anywhere_is_run_again_to_the_same_bytes(tmp_path):
    said, rng, hit = tmp_path / "said.txt", np.random.default_rng(SEED), 0
    whole = project(tmp_path / "whole")
    before = temporary(whole)
    start = time.monotonic()
    assert begun(whole, said).wait() == 0, said.read_text()
    took = time.monotonic() - start
    for number in range(KILLS):
        kind = KINDS[number % len(KINDS)]
        if PROFILE or number % len(KINDS) == 0:
            folder = project(tmp_path / str(number))
        child = begun(folder, said)
        wait_until_it_works(child, folder, kind)
        time.sleep(rng.uniform(0.05, 0.95) * (took if kind in ("run", "group") else took / 10))
        while child.poll() is None and not kill(child, folder, kind):
            time.sleep(0.02)
        if kind in ("server", "stage"):
            assert child.wait(90) in (0, 1), said.read_text()[-3000:]
        child.wait()
        hit += child.returncode != 0
        print(f"{kind}: exit {child.returncode}", flush=True)
        nothing_is_left(folder, child.pid)
        if not PROFILE and kind != KINDS[-1]:
            continue
        again = begun(folder, said)
        assert again.wait(3 * took + 120) == 0, said.read_text()[-3000:]
        assert outputs(folder) == outputs(whole)
        nothing_is_left(folder, again.pid)
        assert not shown_as_running(folder)
        assert temporary(folder) - temporary(whole) <= before
        shutil.rmtree(folder)
    assert hit >= 0.75 * KILLS, "most were hit while they worked"
    assert "Traceback" not in said.read_text(), said.read_text()[-3000:]
