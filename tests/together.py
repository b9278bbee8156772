"""Several processes that train together, forked, so that they do not all import everything again."""

import os
import socket
import traceback
from collections.abc import Callable

import torch


def together(count: int, work: Callable[[], object]) -> list[int]:
    """How `count` processes end that do the same work as one group: exit codes, negative for a signal."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = [start(index, count, port, work) for index in range(count)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def start(index: int, count: int, port: int, work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)
        torch.set_num_threads(1)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        numbers = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.update({name: str(value) for name, value in (place | numbers).items()})
        work()
        code = 0
    except SystemExit as stop:
        code = 3 if stop.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
