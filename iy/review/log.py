"""The log of a review: a JSON line per judgement or undo, on disk before anybody is told that it is.

A line is there whole or not at all: what a killed process left of one is cut off by the next that opens the log.
Several processes may append; each holds the file's lock while it reads what the others wrote and adds its own line.
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from iy import names
from iy.errors import UserError


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `reviewer` thinks of the photo or pair `id`: verdict accepted | rejected, and why."""

    id: str
    verdict: str
    reviewer: str
    reason: str


class Log:
    """`judged[reviewer][id]`: the standing judgements, in the order they were made."""

    def __init__(self, path: Path):
        self.path, self.offset, self.threads = path, 0, threading.Lock()
        self.judged: dict[str, dict[str, Judgement]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.opened():
            pass

    def add(self, *judgements: Judgement) -> None:
        """A later judgement of the same thing by the same reviewer takes the place of the earlier one."""
        with self.opened() as file:
            self.write(file, [asdict(one) for one in judgements])

    def undo(self, reviewer: str) -> Judgement | None:
        """Take back the reviewer's last standing judgement."""
        with self.opened() as file:
            last = next(reversed(self.of(reviewer).values()), None)
            if last is not None:
                self.write(file, [{"undo": last.id, "reviewer": names.clean(reviewer)}])
            return last

    def of(self, reviewer: str) -> dict[str, Judgement]:
        """The reviewer's standing judgements by id, however the name is spelt."""
        return self.judged.get(names.clean(reviewer), {})

    def refresh(self) -> None:
        """Read what other processes wrote."""
        with self.opened():
            pass

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        with self.threads, open(self.path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.read(file)
            yield file

    def read(self, file: BinaryIO) -> None:
        file.seek(self.offset)
        for line in file.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                file.truncate(self.offset)
                return
            try:
                self.apply(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(
                    f"{self.path}, byte {self.offset}: not a line of a review's log: mend or remove it"
                ) from None
            self.offset += len(line)

    def write(self, file: BinaryIO, entries: list[dict]) -> None:
        data = b"".join(json.dumps(entry, ensure_ascii=False, sort_keys=True).encode() + b"\n" for entry in entries)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        for entry in entries:
            self.apply(entry)
        self.offset += len(data)

    def apply(self, entry: dict) -> None:
        reviewer = names.clean(entry["reviewer"])  # one person in two spellings would count twice
        own = self.judged.setdefault(reviewer, {})
        if "undo" in entry:
            own.pop(entry["undo"], None)
            return
        one = Judgement(**entry | {"reviewer": reviewer})
        own.pop(one.id, None)  # so that it comes last
        own[one.id] = one
