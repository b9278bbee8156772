"""What lies beside a photo: `me.txt` or `me.jpg.txt`: its caption; `me.json`: caption, person, licence, consent."""
import json
from pathlib import Path

from iy.photos.decode import Unreadable

SUFFIXES = (".txt", ".json")
KEYS = {"caption": "caption", "person": "label", "licence": "licence", "consent": "consent"}
MAXIMUM_BYTES = 65536


def read(photo: Path) -> dict[str, str]:
    """Columns that the photo's sidecars state; JSON goes before text. A wrong sidecar makes the photo unreadable: it
    may have said that the photo must not be used."""
    columns: dict[str, str] = {}
    for suffix in SUFFIXES:
        for file in (photo.with_suffix(suffix), photo.with_name(photo.name + suffix)):
            if file.is_file():
                columns |= caption(file) if suffix == ".txt" else fields(file)
    return columns


def caption(file: Path) -> dict[str, str]:
    words = " ".join(text(file).split())
    return {"caption": words} if words else {}


def fields(file: Path) -> dict[str, str]:
    try:
        value = json.loads(text(file))
    except (ValueError, RecursionError):
        raise Unreadable(f"its sidecar {file.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Unreadable(f"its sidecar {file.name} must hold a JSON object")
    for key in KEYS:
        if key in value and not (isinstance(value[key], str) and value[key].strip()):
            raise Unreadable(f"its sidecar {file.name} says {key} = {value[key]!r:.40}: it must be text")
    return {column: " ".join(value[key].split()) for key, column in KEYS.items() if key in value}


def text(file: Path) -> str:
    try:
        if file.stat().st_size > MAXIMUM_BYTES:
            raise Unreadable(f"its sidecar {file.name} is larger than {MAXIMUM_BYTES} bytes")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"its sidecar {file.name} is not UTF-8 text") from None
    except OSError as error:
        raise Unreadable(f"its sidecar {file.name} cannot be read: {error.strerror}") from None
