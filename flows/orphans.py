"""What a killed run leaves working: found by the mark that each process of a run carries, and ended.

Age proves nothing. A process is an orphan when the run that it names (by process number and start, so that a number
that was given out again deceives nobody) is gone.
"""

import os
import socket

import psutil

from flows.locks import Say
from iy import project
from iy.process import RUN

GRACE = 20.0  # seconds: a training may save its state


def mark() -> dict[str, str]:
    """What every process that this one starts carries in its environment."""
    return {RUN: f"{os.getpid()} {started(os.getpid())} {project.state()}"}


def started(process: int) -> str | None:
    """When a process began, in a form that only compares; None when it is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b")")[2].split()
            return None if state == b"Z" else rest[18].decode()
    except FileNotFoundError:
        pass
    if os.path.exists("/proc/self/stat"):
        return None
    try:
        return str(psutil.Process(process).create_time())
    except psutil.Error:
        return None


def tag() -> str:
    """`process 12034 of lab3, begun 815533`: the number, the machine, and the start in a form that only compares."""
    return f"process {os.getpid()} of {socket.gethostname()}, begun {started(os.getpid())}"


def ended(tag: str) -> bool:
    """Whether `tag` names a process of this machine that is gone."""
    word, _, rest = tag.partition(" ")
    process, _, rest = rest.partition(" of ")
    machine, _, begun = rest.partition(", begun ")
    known = word == "process" and process.isdecimal() and machine == socket.gethostname()
    return known and started(int(process)) != begun


def found() -> list[psutil.Process]:
    """Processes of this project whose run is gone."""
    left, state = [], str(project.state())
    for process in psutil.process_iter():
        try:
            run, begun, of = process.environ()[RUN].split(" ", 2)
        except (psutil.Error, OSError, KeyError, ValueError):
            continue
        if of == state and started(int(run)) != begun and process.pid != os.getpid():
            left.append(process)
    return left


def sweep(say: Say) -> None:
    """End what a killed run left: asked first, killed after GRACE. Nothing of a run that lives is touched."""
    if not (left := found()):
        return
    say(f"ending what a run that was killed left: {', '.join(told(process) for process in left)}")
    signal_all(left, "terminate")
    _, left = psutil.wait_procs(left, GRACE)
    signal_all(left, "kill")
    psutil.wait_procs(left, 5.0)


def signal_all(processes: list[psutil.Process], how: str) -> None:
    for process in processes:
        try:
            getattr(process, how)()
        except psutil.Error:
            continue


def told(process: psutil.Process) -> str:
    """`python -m iy.finetune --stage 1 (12034)`."""
    try:
        name, *words = process.cmdline()
        return f"{' '.join([os.path.basename(name), *words])[:60]} ({process.pid})"
    except (psutil.Error, ValueError):
        return str(process.pid)
