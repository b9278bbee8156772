"""What lies beside a photo: `me.txt` or `me.jpg.txt`: its caption; `me.json`: caption, person, licence, consent."""

import json
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

from iy.pictures import Unreadable

P = TypeVar("P", bound=PurePath)
SUFFIXES = (".txt", ".json")
KEYS = {"caption": "caption", "person": "label", "licence": "licence", "consent": "consent"}
MAXIMUM_BYTES = 65536
TOO_LARGE = f"its sidecar {{}} is larger than {MAXIMUM_BYTES} bytes"


def read(photo: P, look: Callable[[P], bytes | None]) -> dict[str, str]:
    """Columns that the photo's sidecars state; JSON goes before text. A wrong sidecar makes the photo unreadable: it
    may have said that the photo must not be used. `look`: what a sidecar holds, None where there is none."""
    columns: dict[str, str] = {}
    for suffix in SUFFIXES:
        for file in (photo.with_suffix(suffix), photo.with_name(photo.name + suffix)):
            if (data := look(file)) is not None:
                columns |= (caption if suffix == ".txt" else fields)(text(data, file.name), file.name)
    return columns


def caption(said: str, name: str) -> dict[str, str]:
    words = " ".join(said.split())
    return {"caption": words} if words else {}


def fields(said: str, name: str) -> dict[str, str]:
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        raise Unreadable(f"its sidecar {name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Unreadable(f"its sidecar {name} must hold a JSON object")
    return checked(value, f"its sidecar {name}")


def checked(value: dict, name: str) -> dict[str, str]:
    """The columns that `value` states under their `KEYS`; null: nothing is said. `name` stands for it in messages."""
    stated = {key: value[key] for key in KEYS if value.get(key) is not None}
    for key, words in stated.items():
        if not (isinstance(words, str) and words.strip()):
            raise Unreadable(f"{name} says {key} = {words!r:.40}: it must be text")
        if len(words) > MAXIMUM_BYTES:
            raise Unreadable(f"{name} says {key} in {len(words)} characters: more than {MAXIMUM_BYTES}")
    return {KEYS[key]: " ".join(words.split()) for key, words in stated.items()}


def text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"its sidecar {name} is not UTF-8 text") from None
