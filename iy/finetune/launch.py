"""`finetune.parallel`: the stage's process becomes `accelerate launch`, whose processes are stages like it.

It starts them, watches them, and ends all when one fails or when it is ended itself; what it is killed with reaches
them by the kernel (`iy.process.die_with_parent`).
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iy.errors import UserError

if TYPE_CHECKING:
    from iy.params import Params


def launched(settings: "Params", words: list[str]) -> bool:
    """Run `python -m iy.finetune <words>` in as many processes as the settings say, to their end.

    False where this process is to train by itself: one process is asked for, or it is one of several already.
    """
    parallel = settings.finetune.parallel
    if "RANK" in os.environ or (parallel.processes == 1 and parallel.accelerate is None):
        return False
    start(arguments(settings), ["iy.finetune", *words])
    return True


def arguments(settings: "Params") -> list[str]:
    """What `accelerate launch` is told. `--multi_gpu` starts processes by torchrun, which serves CPUs as well: theirs
    by `--cpu` needs MPI."""
    parallel = settings.finetune.parallel
    if parallel.accelerate is None:
        where = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(parallel.processes)]
        return [*where, "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    if parallel.processes > 1:
        raise UserError("finetune.parallel.accelerate says how many processes there are: set processes to 1")
    if not Path(parallel.accelerate).is_file():
        raise UserError(f"finetune.parallel.accelerate = {parallel.accelerate!r}: there is no such file")
    return ["--config_file", parallel.accelerate]


def start(options: list[str], command: list[str]) -> None:
    """`accelerate launch <options> -m <command>`, within this process. The ones it starts say themselves what fails."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in ("torch.distributed.elastic", "torch.distributed.run"):  # what failed has been said by then
        logging.getLogger(name).setLevel(logging.CRITICAL)
    parsed: Any = launch_command_parser().parse_args([*options, "-m", *command])
    try:
        launch_command(parsed)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        sys.exit(max(1, error.get_first_failure()[1].exitcode))
    except ValueError as error:
        raise UserError(f"accelerate launch {' '.join(options)}: {error}") from None
