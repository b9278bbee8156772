"""A stage that is killed at any moment and run again ends in the very files of one that nobody disturbed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iy.params import Params
from iy.photos.run import run as take_photos
from tests import att_faces, curating

KILLS = 20


def files(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def begun(work: Callable[[], None]) -> int:
    """A process that works; forked, so that twenty of them do not import everything again."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.close(2)
        work()
        code = 0
    finally:
        os._exit(code)


def undisturbed(work: Callable[[], None]) -> None:
    assert os.waitpid(begun(work), 0)[1] == 0


def check(work: Callable[[], None], *outputs: Path) -> None:
    start = time.monotonic()
    undisturbed(work)
    took, whole = time.monotonic() - start, files(*outputs)
    assert whole
    rng, survived = np.random.default_rng(0), 0
    for _ in range(KILLS):
        process = begun(work)
        time.sleep(rng.uniform(0, took))
        os.kill(process, signal.SIGKILL)
        survived += os.waitpid(process, 0)[1] == 0
        there = files(*outputs)
        assert there.items() <= whole.items(), "never half a file"
    assert survived <= KILLS / 2, "most were hit while they worked"
    undisturbed(work)
    assert files(*outputs) == whole
    assert not [path for folder in outputs for path in folder.parent.glob(f".{folder.name}.*")], (
        "what the killed ones left is gone"
    )


@pytest.mark.slow
def test_curate_killed_at_twenty_moments(empty_project):
    from iy.curate.run import run

    att_faces.copy_folders(empty_project / "in", persons=5, photos=4)
    wanted: Params = curating.settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    check(lambda: run(wanted), wanted.data_dir("curate"), wanted.report_dir("curate"))


@pytest.mark.slow
def test_synpairs_killed_at_twenty_moments(tiny_project, monkeypatch):
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)  # three shards: later runs go on from those of killed ones
    check(lambda: run(tiny_project), tiny_project.data_dir("synpairs"), tiny_project.report_dir("synpairs"))
