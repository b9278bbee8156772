"""How this project's processes begin and end: quiet, with their parent, and deaf to Ctrl-C where another hears it."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    # What nobody can act on while a stage runs: newer versions of pip, its being root in a container, colour codes.
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "NO_COLOR": "1",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
RUN = "IY_RUN"  # environment variable: "<process> <its start> <the project's .iy>" of the run that a process works for


def set_environment() -> None:
    """What every tool reads from the environment, keeping what the user has set. No proxy is asked for this machine."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    named = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    without = dict.fromkeys(part.strip() for text in named for part in text.split(",") if part.strip())
    for name in ("no_proxy", "NO_PROXY"):  # tools differ in which they read
        os.environ[name] = ",".join([*without, *(one for one in LOOPBACK if one not in without)])


def die_with_parent() -> None:
    """Ask the kernel to stop this process when its parent ends: a killed `dvc` must leave no stage writing (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    run = os.environ.get(RUN, "").partition(" ")[0]
    if run and not exists(int(run)):  # it ended before the kernel was asked
        sys.exit("the run that started this has ended")


def exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Processes started within never see Ctrl-C: the stage's own process ends them, and says so in one line.

    They inherit the blocked signal. A Ctrl-C that comes meanwhile is raised afterwards, not halfway through a start.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's: nothing to hold back here
        return
    came: list[int] = []
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts: not within the block
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
