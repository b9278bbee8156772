"""How this project's processes begin and end: quiet, with their parent, and deaf to Ctrl-C where another hears it."""

import contextlib
import ctypes
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
}


def die_with_parent() -> None:
    """Ask the kernel to stop this process when its parent ends: a killed `dvc` must leave no stage writing (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


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
