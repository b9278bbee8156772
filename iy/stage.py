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
from typing import NoReturn

from iy.errors import Unreachable, UserError

Tell = Callable[[dict[str, float], int], None]  # figures at a step: how a stage's work reaches whoever keeps its run

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
ENDING = "IY_ENDING"  # environment variable: the file in which a stage leaves the reason why it failed
UNREACHABLE = 75  # exit code, sysexits' EX_TEMPFAIL: the same may work later


def set_environment() -> None:
    """What every tool reads from the environment, keeping what the user has set. No proxy is asked for this machine."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    named = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    without = dict.fromkeys(part.strip() for text in named for part in text.split(",") if part.strip())
    for name in ("no_proxy", "NO_PROXY"):  # tools differ in which they read
        os.environ[name] = ",".join([*without, *(one for one in LOOPBACK if one not in without)])


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent: a killed `dvc` must not leave a stage writing (Linux)."""
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
    """Run `run(params, **chosen options)` for the profile in params.yaml; a `UserError` becomes one line."""
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
    set_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run(settings.load(), **arguments)
    except UserError as error:
        fail(str(error), UNREACHABLE if isinstance(error, Unreachable) else 1)
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command again to continue")
    except OSError as error:
        if error.errno not in (13, 28):
            raise
        fail(f"{error.filename or 'disk'}: {error.strerror}; free space or change permissions, then run again", 1)


def fail(message: str, code: int) -> NoReturn:
    """Say it in one line, and leave it to whoever started this stage: `dvc` between them passes neither on."""
    from iy.storage import write_json  # numpy: `iy --help` needs none of it

    print(f"error: {message}", file=sys.stderr)
    if place := os.environ.get(ENDING):
        write_json(place, {"message": message, "code": code})
    sys.exit(code)
