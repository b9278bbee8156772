"""Child processes that never outlive the run: own process group, stopped together, dying with their parent."""
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil

# Runs a console script's function after asking the kernel to end this process with its parent (Linux).
WRAP = ("import ctypes, runpy, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 15); "
        "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)")


def start(python: str, module: str, *arguments: str, **options) -> subprocess.Popen:
    """`python -m module arguments` in its own process group, ending when this process ends."""
    return subprocess.Popen([python, "-u", "-c", WRAP, module, *arguments], start_new_session=True, **options)


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
    """End what `process` runs before `process` itself: a training may save its state, and dvc notes that the stage failed."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
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


def gone(process: subprocess.Popen, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.poll()
        if not members(process.pid):
            return True
        time.sleep(0.2)
    return False


def lines(process: subprocess.Popen) -> Iterator[str]:
    """What the process prints, line by line as it comes; a progress bar's redraws count as lines."""
    for line in process.stdout:
        if line := line.rstrip():
            yield line
