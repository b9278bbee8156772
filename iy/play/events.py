"""Work in a thread whose news is read line by line, as JSON, by whoever waits for it."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from iy.errors import UserError, one_line

log = logging.getLogger(__name__)
Tell = Callable[[dict[str, Any]], None]


async def lines(work: Callable[[Tell, threading.Event], None]) -> AsyncIterator[bytes]:
    """Each thing that `work` tells as a line; at last {"done": true}, or {"error": a sentence}.

    When the reader goes away, the event that `work` was given is set.
    """
    loop, news, stop = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]](), threading.Event()

    def tell(one: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(news.put_nowait, one)

    def run() -> None:
        try:
            work(tell, stop)
            tell({"done": True})
        except Exception as error:
            if not stop.is_set():  # else nobody reads it
                tell({"error": told(error)})

    running = loop.run_in_executor(None, run)
    try:
        while True:
            one = await news.get()
            yield json.dumps(one).encode() + b"\n"
            if "done" in one or "error" in one:
                await running
                return
    finally:
        stop.set()


def told(error: Exception) -> str:
    """What the page is told of an error: the sentence, or in short what is a bug; the log then has the whole."""
    if isinstance(error, UserError):
        return str(error)
    log.error("a drawing broke off", exc_info=error)
    return f"{type(error).__name__}: {one_line(error)} (the rest stands where `iy play` was started)"
