"""Child processes that never outlive the run: own process group, stopped together, dying with their parent."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from flows import orphans

COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
STARTED: list[subprocess.Popen] = []
# Becomes the wanted user (0: stays), asks the kernel to end this process with its parent (Linux), ends if that is gone
# already (the kernel tells only of what comes later), becomes the command.
BECOME = (
    "import ctypes, os, sys; uid, gid, parent = map(int, sys.argv[1:4]); "
    "uid and (os.setgroups([]), os.setgid(gid), os.setuid(uid)); "
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == parent or sys.exit(1); os.execvp(sys.argv[4], sys.argv[4:])"
)


def start(
    command: list[str], user: tuple[int, int] = (0, 0), env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen:
    """Run `command` in its own process group, as `user` (uid, gid; zeros: as now), ending when this process ends.

    It carries this process's mark, by which the next run knows it should it stay behind nevertheless.
    """
    words = [sys.executable, "-ISc", BECOME, *map(str, user), str(os.getpid()), *command]
    marked = {**(os.environ if env is None else env), **orphans.mark()}
    STARTED.append(subprocess.Popen(words, start_new_session=True, env=marked, **options))
    return STARTED[-1]


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", module, *arguments]


def members(group: int) -> list[psutil.Process]:
    """The living processes of a process group; one that ended and waits to be collected does not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def stop_work(process: subprocess.Popen, grace: float = 20.0) -> None:
    """End what `process` runs before itself: a training may save its state, and dvc notes that the stage failed."""
    with contextlib.suppress(psutil.Error):
        if children := psutil.Process(process.pid).children():
            for child in children:
                child.terminate()
            gone(process, grace)
    stop(process)


def stop(process: subprocess.Popen, grace: float = 15.0) -> None:
    """End the whole group of `process`: asked first, killed after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if gone(process, seconds):
            break
    process.wait()


def stop_all() -> None:
    """End whatever this process started that still works, the last first."""
    for process in reversed(STARTED):
        if process.poll() is None:
            stop_work(process)


def gone(process: subprocess.Popen, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.poll()
        if not members(process.pid):
            return True
        time.sleep(0.2)
    return False


def lines(process: subprocess.Popen) -> Iterator[str]:
    """What the process prints, line by line as it comes, without colours; a progress bar's redraws count as lines."""
    for line in process.stdout or ():
        if line := COLOUR.sub("", line).rstrip():
            yield line


def last_line(log: Path) -> str:
    """The last words in a log file, for an error message."""
    with contextlib.suppress(OSError):
        found = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return found[-1][:300] if found else "no output"
    return "no output"
