"""Whose face may be drawn: lists of faces, a threshold, erased photographs; refusals say nothing of whom."""

import json
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from iy import erased, params, records
from iy.errors import UserError
from iy.policy import people
from iy.policy.adding import block_erased
from iy.policy.people import Person
from iy.policy.rule import Rules, current, open_policy, rules
from iy.storage import sha256, write_json

ADA, BOB = [1.0, 0.0], [0.0, 1.0]
ANALYSER = SimpleNamespace(recogniser=SimpleNamespace(name="r", version="1", threshold=0.9))


def policy(faces="any", threshold=None):
    settings = params.Policy(faces=faces, people="lists", false_match_rate=0.01)
    return open_policy(Rules(settings, "r@1", threshold), ANALYSER)


def listed(name, face, kind, recogniser="r@1"):
    people.add(Path("lists"), Person(name, kind, recogniser, [face], "2026-11-27"))


def turned(face, cosine):
    """A face that similar to this one."""
    return np.array(face) * cosine + np.array(face[::-1]) * np.sqrt(1 - cosine**2)


def test_a_blocked_face_is_refused_in_every_mode_and_others_are_drawn(empty_project):
    listed("Bob", BOB, "blocked")
    listed("Ada", ADA, "allowed")
    for faces in ("any", "listed"):
        policy(faces).face(lambda: np.array(ADA), "ada.jpg")
        with pytest.raises(UserError, match="me.jpg: this person must not be drawn"):
            policy(faces).face(lambda: turned(BOB, 0.95), "me.jpg")
    policy().face(lambda: turned(BOB, 0.85), "stranger.jpg")
    with pytest.raises(UserError, match="nobody on the list"):
        policy("listed").face(lambda: turned(ADA, 0.85), "stranger.jpg")


def test_who_is_listed_meanwhile_counts_at_once(empty_project):
    rule = policy()
    assert current(rule, ANALYSER) is rule, "nothing is read anew where nothing changed"
    listed("Bob", BOB, "blocked")
    with pytest.raises(UserError, match="must not be drawn"):
        current(rule, ANALYSER).face(lambda: np.array(BOB), "me.jpg")
    erased.add([sha256(b"a photo")])
    with pytest.raises(UserError, match="was erased"):
        current(rule, ANALYSER).photo(b"a photo", "me.jpg")


def test_the_calibrated_threshold_counts(empty_project):
    listed("Bob", BOB, "blocked")
    policy(threshold=0.97).face(lambda: turned(BOB, 0.95), "me.jpg")


def test_it_comes_from_curates_calibration(project):
    settings = params.load("studio")
    assert rules(settings).threshold is None, "before curate has run"
    found = {"recogniser": "r@1", "false_match": {"0.01": {"threshold": 0.97}}}
    write_json(settings.data_dir("curate") / "calibration.json", found)
    assert rules(settings)[1:] == ("r@1", 0.97)


def test_no_face_is_read_where_nobody_is_listed(empty_project):
    policy().face(lambda: pytest.fail("read for nothing"), "me.jpg")


def test_refusals_are_noted_without_name_or_face(empty_project, caplog):
    listed("Bob Secret", BOB, "blocked")
    with pytest.raises(UserError):
        policy().face(lambda: np.array(BOB), "bobs-holiday.jpg")
    [line] = Path("lists/refusals.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"at", "reason"}
    assert not any(word in line + caplog.text for word in ("Secret", "holiday"))


def test_an_erased_photograph_is_refused_by_its_bytes(empty_project):
    erased.add([sha256(b"a photo")])
    with pytest.raises(UserError, match="was erased"):
        policy().photo(b"a photo", "me.jpg")
    policy().photo(b"another", "me.jpg")


def test_who_is_erased_can_be_blocked_without_a_name(empty_project):
    rows = [
        {"id": "a", "person": "Ada", "embedding": ADA, "recogniser": "r@1"},
        {"id": "b", "person": "Bob", "embedding": BOB, "recogniser": "r@1"},
        {"id": "c", "person": "Bob", "embedding": None, "recogniser": None},
    ]
    records.write(Path("data/studio/curate/photos.parquet"), rows, records.PHOTO)
    assert block_erased(Path("lists"), ["b", "c"]) == 1
    assert "Bob" not in people.place(Path("lists")).read_text()
    with pytest.raises(UserError, match="must not be drawn"):
        policy().face(lambda: np.array(BOB), "me.jpg")
    policy().face(lambda: np.array(ADA), "me.jpg")


def test_lists_are_their_owners_and_fail_closed(empty_project):
    listed("Ada", ADA, "allowed")
    assert stat.S_IMODE(people.place(Path("lists")).stat().st_mode) == 0o600
    people.remove(Path("lists"), "Ada")
    with pytest.raises(UserError, match="nobody who may be drawn"):
        policy("listed")
    with pytest.raises(UserError, match="nobody on the lists is called 'Ada'"):
        people.remove(Path("lists"), "Ada")
    people.place(Path("lists")).write_text("[{]")
    with pytest.raises(UserError, match="damaged: nobody is drawn"):
        policy()


def test_faces_of_another_recogniser_are_not_compared(empty_project):
    listed("Bob", BOB, "blocked", recogniser="other@2")
    with pytest.raises(UserError, match="'Bob' was read by other@2, not by r@1"):
        policy()
