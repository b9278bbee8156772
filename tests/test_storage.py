"""Files appear whole or not at all; shards give back the very bytes, at the places that they report."""

import os
import socket
import subprocess
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iy import storage


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    storage.write_bytes(path, b"old")
    with pytest.raises(RuntimeError), storage.atomic_path(path) as aside:
        aside.write_bytes(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.txt"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    for number in (1, 2):
        with storage.atomic_folder(tmp_path / "out") as aside:
            (aside / f"{number}.txt").write_text("x")
            assert names(tmp_path) != ["out"]
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["2.txt"]
    with pytest.raises(KeyboardInterrupt), storage.atomic_folder(tmp_path / "out") as aside:
        (aside / "3.txt").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["2.txt"]


def test_folders_that_killed_processes_left_are_removed_and_those_of_living_ones_stay(tmp_path):
    done = subprocess.Popen(["true"])
    done.wait()
    start = f".data.{socket.gethostname()}-"
    dead, living, others = (
        tmp_path / name for name in (f"{start}{done.pid}.x", f"{start}{os.getppid()}.x", f".data.far-{done.pid}.x")
    )
    for folder in (dead, living, others):
        (folder / "inner").mkdir(parents=True)
    with storage.atomic_folder(tmp_path / "data"):
        assert not dead.exists() and living.exists() and others.exists()


def test_others_may_read_what_is_written(tmp_path):
    with storage.atomic_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("x")
    storage.write_bytes(tmp_path / "b", b"x")
    assert os.stat(tmp_path / "out").st_mode & 0o055 == 0o055
    assert os.stat(tmp_path / "b").st_mode & 0o044 == 0o044


@settings(max_examples=30, deadline=None)
@given(contents=st.lists(st.binary(max_size=1500), max_size=6))
def test_members_lie_where_they_are_said_to(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("shard")
    files = [(f"{number:05}.png", data) for number, data in enumerate(contents)]
    members = storage.write_shard(folder / "00000.tar", files)
    assert [storage.read_member(folder, *member) for member in members] == contents
    with tarfile.open(folder / "00000.tar") as tar:
        assert [(item.name, tar.extractfile(item).read()) for item in tar] == files
    storage.write_shard(folder / "again.tar", files)
    assert (folder / "again.tar").read_bytes() == (folder / "00000.tar").read_bytes()


def test_images_survive(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    [member] = storage.write_shard(tmp_path / "s.tar", [("a.png", storage.png(image))])
    assert (storage.read_image(tmp_path, member._asdict()) == image).all()


def test_json_is_the_same_whatever_the_order(tmp_path):
    storage.write_json(tmp_path / "a", {"x": 1, "y": [2]})
    storage.write_json(tmp_path / "b", {"y": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "a", {"x": float("nan")})
    assert b"nan" not in (tmp_path / "a").read_bytes().lower()


def test_a_model_folders_hash_follows_names_and_contents(tmp_path):
    storage.write_bytes(tmp_path / "a" / "x.safetensors", b"1")
    storage.write_bytes(tmp_path / "b" / "x.safetensors", b"1")
    storage.write_bytes(tmp_path / "b" / "training.json", b"not part of the model")
    same = storage.folder_sha256(tmp_path / "a")
    assert storage.folder_sha256(tmp_path / "b") == same
    (tmp_path / "b" / "x.safetensors").rename(tmp_path / "b" / "y.safetensors")
    assert storage.folder_sha256(tmp_path / "b") != same
