"""The rule: may the person in this photograph be drawn? Blocked people never; under `faces: listed` allowed ones only.

A photograph that was erased (`iy erase`) is known by its bytes and refused too. Refusals are logged without photograph,
name or face.
"""

import json
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iy import erased, params
from iy.errors import UserError
from iy.faces import Analyser, recogniser_name
from iy.faces.recognise import unit
from iy.policy import people
from iy.policy.people import ALLOWED, BLOCKED, Person
from iy.storage import sha256

log = logging.getLogger(__name__)
WHY = {
    BLOCKED: "this person must not be drawn: they are on the block list",
    "listed": "nobody on the list of allowed people has this face, and policy.faces is listed: `iy policy add`",
    "erased": "this photograph was erased and must not be used any more",
}


class Rules(NamedTuple):
    """The settings, and the similarity from which a face is somebody's, with the recogniser that it holds for."""

    settings: params.Policy
    recogniser: str | None
    threshold: float | None


def rules(settings: params.Params) -> Rules:
    """With the threshold that curate calibrated on the profile's own photos, if it has run."""
    path = settings.data_dir("curate") / "calibration.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        threshold = found["false_match"][str(settings.policy.false_match_rate)]["threshold"]
        return Rules(settings.policy, str(found["recogniser"]), float(threshold))
    except FileNotFoundError:
        return Rules(settings.policy, None, None)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: delete data/{settings.profile}/curate and run curate again") from None


def stamp(rules: Rules) -> str:
    """Of the rule and the lists as they are now: where it is equal, the same people are refused."""
    lists = [people.contents(Path(rules.settings.people)), erased.LIST.read_bytes() if erased.LIST.exists() else None]
    held = [None if one is None else sha256(one) for one in lists]
    return sha256(json.dumps([rules.settings.model_dump(mode="json"), rules[1:], held]).encode())


class Policy:
    """threshold: cosine from which two faces are one person's. stamp: of the lists, see there."""

    def __init__(self, rules: Rules, listed: list[Person], marks: set[str], threshold: float, stamp: str) -> None:
        self.rules, self.stamp = rules, stamp
        self.only_listed, self.marks, self.threshold = rules.settings.faces == "listed", marks, threshold
        self.folder = Path(rules.settings.people)
        self.faces = {kind: stacked(one for one in listed if one.kind == kind) for kind in (ALLOWED, BLOCKED)}

    def photo(self, data: bytes, name: str) -> None:
        """Refuse a photograph that was erased; `name` stands for it in the message."""
        if self.marks and erased.mark(sha256(data)) in self.marks:
            self.refuse("erased", name)

    def face(self, embed: Callable[[], np.ndarray], name: str) -> None:
        """Refuse the face in a photograph. embed: reads it, where it must be compared."""
        if not self.only_listed and not len(self.faces[BLOCKED]):
            return
        face = unit(embed())
        if self.resembles(face, BLOCKED):
            self.refuse(BLOCKED, name)
        if self.only_listed and not self.resembles(face, ALLOWED):
            self.refuse("listed", name)

    def blocked(self, face: Any) -> bool:
        """Whether this embedding (D,) is of a blocked person."""
        return self.resembles(unit(face), BLOCKED)

    def resembles(self, face: np.ndarray, kind: str) -> bool:
        known = self.faces[kind]
        return bool(len(known)) and float((known @ face).max()) >= self.threshold

    def refuse(self, reason: str, name: str) -> None:
        log.warning("policy: refused a photograph: %s", WHY[reason])
        note(self.folder, reason)
        raise UserError(f"{name}: {WHY[reason]}")


def note(folder: Path, reason: str) -> None:
    """A line of refusals.jsonl: when and why, and nothing of whom."""
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason})
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(folder / "refusals.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        log.warning("%s: refusals cannot be noted: %s", folder, error.strerror)


def stacked(several: Iterable[Person]) -> np.ndarray:
    """Everybody's faces as unit vectors (N, D)."""
    faces = [face for one in several for face in one.faces]
    return unit(np.array(faces)) if faces else np.zeros((0, 0))


def open_policy(rules: Rules, analyser: Analyser) -> Policy:
    """The rule with the lists as they are now, for faces that this analyser reads."""
    name, folder, now = recogniser_name(analyser), Path(rules.settings.people), stamp(rules)
    listed = people.read(folder)
    known = {one.name for one in listed if one.recogniser == name}
    if other := next((one for one in listed if one.name not in known), None):
        raise UserError(
            f"{people.place(folder)}: {other.name!r} was read by {other.recogniser}, not by {name}: add them again "
            "from photographs, remove them, or let policy.people name another folder"
        )
    listed = [one for one in listed if one.recogniser == name]
    if rules.settings.faces == "listed" and not any(one.kind == ALLOWED for one in listed):
        raise UserError(
            f"policy.faces is listed and {people.place(folder)} lists nobody who may be drawn: "
            "`iy policy add NAME PHOTO`"
        )
    calibrated = rules.threshold if rules.recogniser == name else None
    threshold = analyser.recogniser.threshold if calibrated is None else calibrated
    return Policy(rules, listed, erased.read(), threshold, now)


def current(policy: Policy, analyser: Analyser) -> Policy:
    """The same rule with the lists as they are now: who draws may run for weeks, and people are added meanwhile."""
    return policy if policy.stamp == stamp(policy.rules) else open_policy(policy.rules, analyser)
