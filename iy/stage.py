"""The one door of every stage: `main("curate")` is the body of `python -m iy.curate`."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from iy.errors import Unreachable, UserError
from iy.process import die_with_parent, set_environment

if TYPE_CHECKING:
    from iy.params import Params

ENDING = "IY_ENDING"  # environment variable: the file in which a stage leaves the reason why it failed
UNREACHABLE = 75  # exit code, sysexits' EX_TEMPFAIL: the same may work later


Launch = Callable[["Params", list[str]], bool]


def main(stage: str, launch: Launch | None = None, **options: Sequence[str]) -> None:
    """Run `iy.<stage>.run.run` for the profile in params.yaml, with its run in MLflow.

    launch: called before anything else with the settings and the command line's words; True: the stage was run in
    processes that it started. options: names as on the command line, each with its choices. What is heavy is imported
    within: Ctrl-C during the imports is one line too.
    """
    parser = argparse.ArgumentParser(prog=f"python -m iy.{stage}")
    for name, choices in options.items():
        parser.add_argument(name, choices=choices, required=True)
    chosen = vars(parser.parse_args())
    attend(lambda: work(stage, chosen, launch))


def work(stage: str, chosen: dict[str, str], launch: Launch | None = None) -> None:
    """The run is opened before anything is loaded: a store that cannot be used is told before the long work."""
    from iy import params, tracking

    settings = params.load()
    if launch and launch(settings, sys.argv[1:]):
        return
    if os.environ.get("RANK", "0") != "0":  # under `accelerate launch` the first of the processes keeps the run
        importlib.import_module(f"iy.{stage}.run").run(settings, **chosen)
        return
    with tracking.stage_run(settings, "".join([stage, *chosen.values()])) as tracked:
        importlib.import_module(f"iy.{stage}.run").run(settings, **chosen, tracked=tracked)


def attend(work: Callable[[], None]) -> None:
    """Do it as a stage's process: what the user can mend, and an interruption, is one line and an exit code."""
    if not os.environ.get("IY_DETACHED"):
        die_with_parent()
    # a cancelled stage ends as after Ctrl-C: MLflow hears of it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    set_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        work()
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
