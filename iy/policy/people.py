"""The lists: who is allowed and who is blocked, by what a recogniser read of their faces.

`people.json` in the folder of policy.people, for its owner's eyes alone. No photograph is kept.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from iy.errors import UserError
from iy.storage import atomic_path

ALLOWED, BLOCKED = "allowed", "blocked"


@dataclass(frozen=True)
class Person:
    """faces: an embedding per photograph; recogniser: name@version of what read them; added: the day, as 2026-11-27."""

    name: str
    kind: Literal["allowed", "blocked"]
    recogniser: str
    faces: list[list[float]]
    added: str


def place(folder: Path) -> Path:
    return folder / "people.json"


def contents(folder: Path) -> bytes | None:
    """The lists as they stand in their file; None where there is none."""
    path = place(folder)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}: nobody is drawn while that is so") from None


def read(folder: Path) -> list[Person]:
    """Everybody on the lists; nobody where there is no file."""
    path, data = place(folder), contents(folder)
    if data is None:
        return []
    try:
        people = [Person(**one) for one in json.loads(data)]
        if not all(valid(one) for one in people):
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(
            f"{path} is damaged: nobody is drawn while it is; restore it, or remove it and add everybody again"
        ) from None
    return people


def valid(one: Person) -> bool:
    lengths = {len(face) for face in one.faces}
    return one.kind in (ALLOWED, BLOCKED) and len(lengths) == 1 and isinstance(one.name, str)


def write(folder: Path, people: list[Person]) -> None:
    path = place(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps([asdict(one) for one in people], indent=1, ensure_ascii=False)
    with atomic_path(path) as aside:
        aside.touch(mode=0o600)
        aside.write_text(text, encoding="utf-8")


def add(folder: Path, person: Person) -> None:
    """Put somebody on a list, in place of who was called so and read by the same recogniser."""
    own = person.name, person.recogniser
    write(folder, [one for one in read(folder) if (one.name, one.recogniser) != own] + [person])


def remove(folder: Path, name: str) -> None:
    people = read(folder)
    left = [one for one in people if one.name != name]
    if len(left) == len(people):
        raise UserError(f"nobody on the lists is called {name!r}: `iy policy show` names everybody")
    write(folder, left)
