"""What a person sees of a training, and how they stop it."""

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """A bar on a terminal, a line every ten seconds in a log: steps, loss, images per second."""

    def __init__(self, steps: int, first: int, rows: int, shown: bool):
        self.steps, self.done, self.rows, self.shown = steps, first, rows, shown
        hidden = not (shown and sys.stderr.isatty())
        self.bar = tqdm(total=steps * rows, initial=first * rows, unit="image", disable=hidden)
        self.began = self.told = time.monotonic()
        self.first = first

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return (self.done - self.first) * self.rows / max(time.monotonic() - self.began, 1e-9)

    def advance(self, loss: float | None) -> None:
        """One step more; None: nobody has read its loss."""
        self.done += 1
        self.bar.update(self.rows)
        if loss is None:
            return
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if self.shown and self.bar.disable and (self.done == self.steps or time.monotonic() - self.told > 10):
            self.told = time.monotonic()
            log.info("step %d of %d: loss %.4f, %.1f images/s", self.done, self.steps, loss, self.rate)


@contextlib.contextmanager
def until_signal() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or SIGINT arrives, so that a training ends after its step; a second one kills."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
