"""One process at a time: a file lock, which the kernel frees when its holder ends, however it ends."""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

Say = Callable[[str], None]
PATIENCE = 3.0  # seconds of waiting that nobody is told about
LOOK = 0.3  # seconds between tries


def to_terminal(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def held(path: Path, what: str, say: Say) -> Iterator[None]:
    """Hold the lock at `path` for `what`; who waits for it longer is told who has it and how to end that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        wait(file, what, say)
        file.truncate(0)
        json.dump({"process": os.getpid(), "since": time.strftime("%H:%M"), "does": " ".join(sys.argv)[:200]}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def mend(rwlock: Path) -> None:
    """Take away DVC's list of who reads and writes what, if it is none: DVC empties it to write it, a process that is
    killed just then leaves it so, and from then on every `dvc repro` fails. DVC makes a new one."""
    if broken(rwlock):
        time.sleep(LOOK)  # unless it is being written now
        if broken(rwlock):
            rwlock.unlink(missing_ok=True)


def broken(rwlock: Path) -> bool:
    try:
        return not isinstance(json.loads(rwlock.read_bytes()), dict)
    except FileNotFoundError:
        return False
    except ValueError:
        return True


def wait(file: IO[str], what: str, say: Say) -> None:
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if not told and time.monotonic() - began > PATIENCE:
            told = True
            say(f"waiting for {what}: {holder(file)}")
        time.sleep(LOOK)


def holder(file: IO[str]) -> str:
    """Who has the lock and what to do about it."""
    file.seek(0)
    try:
        who = json.load(file)
    except ValueError:
        return "another process has it; this goes on when that ends"
    return (
        f"process {who['process']} has it since {who['since']} ({who['does']}); this goes on when that ends, "
        f"or end it with `kill {who['process']}`"
    )
