"""What the server remembers of each open page, in memory alone: face crops, and the pictures drawn last.

It is forgotten when the page closes, when nothing was heard of it for a while, and when the server ends. Photographs
are not kept at all: they end with the request that brings them.
"""

import base64
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iy.errors import UserError

MOST_PAGES, MOST_FACES = 32, 16  # of them all; of one page: the oldest goes
SILENCE = 15 * 60.0  # seconds; a page that is open says so every minute


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A photograph's face. crops: uint8 (S, S, 3) for each kind of model that it was shown to."""

    name: str
    crops: dict[tuple, np.ndarray]

    def crop(self, kind: tuple) -> np.ndarray:
        if kind not in self.crops:
            raise UserError(f"{self.name} was not shown to this model, which reads another crop: drop it again")
        return self.crops[kind]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture as it leaves (PNG), and what it was drawn with."""

    png: bytes
    record: dict[str, Any]


@dataclass(slots=True)
class Page:
    faces: dict[str, Seen] = field(default_factory=dict)
    pictures: dict[str, Drawn] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)

    def see(self, seen: Seen) -> str:
        """Keep a face; what it is called from now on."""
        while len(self.faces) >= MOST_FACES:
            del self.faces[next(iter(self.faces))]
        key = secrets.token_urlsafe(8)
        self.faces[key] = seen
        return key

    def face(self, key: str) -> Seen:
        if key not in self.faces:
            raise UserError("a photograph is no longer at hand: drop it again")
        return self.faces[key]

    def show(self, drawn: list[Drawn]) -> list[str]:
        """Keep these pictures too; what they are called from now on."""
        named = {secrets.token_urlsafe(8): one for one in drawn}
        self.pictures |= named
        return list(named)


class Pages:
    """The open pages by token, which only the page itself was told: whoever has it is the page."""

    def __init__(self) -> None:
        self.lock, self.open_ones = threading.Lock(), dict[str, Page]()

    def open(self) -> str:
        token = secrets.token_urlsafe(32)
        with self.lock:
            while len(self.open_ones) >= MOST_PAGES:
                del self.open_ones[min(self.open_ones, key=lambda one: self.open_ones[one].heard)]
            self.open_ones[token] = Page()
        return token

    def get(self, token: str) -> Page | None:
        with self.lock:
            page = self.open_ones.get(token)
            if page is not None:
                page.heard = time.monotonic()
            return page

    def close(self, token: str) -> None:
        with self.lock:
            self.open_ones.pop(token, None)

    def sweep(self) -> None:
        """Forget the pages that fell silent."""
        oldest = time.monotonic() - SILENCE
        with self.lock:
            self.open_ones = {token: page for token, page in self.open_ones.items() if page.heard > oldest}


def embedded(png: bytes) -> str:
    """A picture as an address that a page can show."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
