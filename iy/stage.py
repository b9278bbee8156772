"""What every stage process does first and last: `main("curate", run)` is the body of `python -m iy.curate`."""

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

from iy.errors import UserError

Tell = Callable[[dict[str, float], int], None]  # figures at a step: how a stage's work reaches whoever keeps its run

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


def die_with_parent() -> None:
    """Ask the kernel to stop this process when its parent ends: a killed `dvc` must not leave a stage writing (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def silently(figures: dict[str, float], step: int) -> None:
    """Tells nobody."""


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


def main(stage: str, run: Callable, **options) -> None:
    """Run `run(params, **chosen options)` for the profile in params.yaml; a `UserError` becomes one line and exit code 2."""
    from iy import params as settings

    parser = argparse.ArgumentParser(prog=f"python -m iy.{stage}")
    for name, choices in options.items():
        parser.add_argument(name, choices=choices)
    arguments = vars(parser.parse_args())
    if not os.environ.get("IY_DETACHED"):
        die_with_parent()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a cancelled stage ends as after Ctrl-C: MLflow hears of it
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run(settings.load(), **arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command again to continue")
    except OSError as error:
        if error.errno not in (13, 28):
            raise
        sys.exit(
            f"error: {error.filename or 'disk'}: {error.strerror}; free space or change permissions, then run again"
        )
