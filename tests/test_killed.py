"""A stage that is killed at any moment and run again ends in the very files of one that nobody disturbed."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iy.params import Params
from tests.test_curate_photographs import att_faces, project, settings, take_photos  # noqa: F401 (a fixture)
from tests.test_synpairs import tiny_project  # noqa: F401 (a fixture)

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
def test_curate_killed_at_twenty_moments(project):  # noqa: F811
    from iy.curate.run import run

    for file in att_faces():
        if file.parent.name in ("s1", "s2", "s3", "s4", "s5") and int(file.stem) <= 4:
            (project / "in" / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, project / "in" / file.parent.name)
    wanted: Params = settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    check(lambda: run(wanted), wanted.data_dir("curate"), wanted.report_dir("curate"))


@pytest.mark.slow
def test_synpairs_killed_at_twenty_moments(tiny_project, monkeypatch):  # noqa: F811
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)  # three shards: later runs go on from those of killed ones
    check(lambda: run(tiny_project), tiny_project.data_dir("synpairs"), tiny_project.report_dir("synpairs"))
