"""A stage that is killed at any moment and run again ends in the very files of one that nobody disturbed."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from iy.params import Params
from iy.photos.run import run as take_photos
from tests import att_faces, curating, encoding
from tests.depth import depth
from tests.tiny import tiny_base

KILLS = depth(4, 20)  # tries at least; more where too few of them hit a process at work


def files(*folders: Path) -> dict[str, bytes]:
    """Without what is being written, whose names begin with a dot."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return {str(path): path.read_bytes() for path in found if path.is_file() and path.name[0] != "."}


def ended(work: Callable[[], None], killed_after: float = 0.0) -> tuple[int, float]:
    """How a process that works ends (its wait status), and its CPU seconds.

    It is forked, so that they do not all import everything again. killed_after: CPU seconds, 0 for never; a busy
    machine does not move the moment. What ends it is SIGPROF, which nobody handles: it dies where it is, as of SIGKILL.
    """
    process = os.fork()
    if process:
        _, status, used = os.wait4(process, 0)
        return status, used.ru_utime + used.ru_stime
    code = 1
    try:
        os.close(2)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, killed_after)
        work()
        code = 0
    finally:
        os._exit(code)


def check(work: Callable[[], None], *outputs: Path) -> None:
    status, took = ended(work)
    whole = files(*outputs)
    assert status == 0 and whole
    rng, tried, hit = np.random.default_rng(0), 0, 0
    while tried < KILLS or hit < KILLS / 2:
        status, _ = ended(work, killed_after=rng.uniform(0, took))
        assert status in (0, signal.SIGPROF), "it ends well or is killed, and never fails"
        tried, hit = tried + 1, hit + (status == signal.SIGPROF)
        assert tried <= 5 * KILLS, f"{hit} of {tried} were hit while they worked"
        assert files(*outputs).items() <= whole.items(), "never half a file"
    assert ended(work)[0] == 0 and files(*outputs) == whole
    left = [path for folder in outputs for path in (*folder.parent.glob(f".{folder.name}.*"), *folder.rglob(".*"))]
    assert not left, "what the killed ones left is gone"


@pytest.mark.slow
def test_curate_killed_at_any_moment(empty_project):
    from iy.curate.run import run

    att_faces.copy_folders(empty_project / "in", persons=4, photos=3)
    wanted: Params = curating.settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    check(lambda: run(wanted), wanted.data_dir("curate"), wanted.report_dir("curate"))


@pytest.mark.slow
def test_synpairs_killed_at_any_moment(tiny_project, monkeypatch):
    from iy.synpairs import shards
    from iy.synpairs.run import run

    monkeypatch.setattr(shards, "SHARD", 2)  # three shards: later runs go on from those of killed ones
    check(lambda: run(tiny_project), tiny_project.data_dir("synpairs"), tiny_project.report_dir("synpairs"))


@pytest.mark.slow
def test_encoding_killed_at_any_moment(empty_project, monkeypatch):
    from iy.diffusion import load_base
    from iy.finetune import data, encode

    torch.set_num_threads(1)
    monkeypatch.setattr(encode, "SHARD", encode.ROWS)
    wanted = encoding.settings(tiny_base(empty_project / "base"), encoding="alone")
    encoding.collection(wanted, people=9)
    base = load_base(wanted.base)

    done = Path("done")

    def work() -> None:
        if done.exists():  # what is whole is encoded anew, what is not goes on
            shutil.rmtree(".iy/encoded")
            done.unlink()
        data.load_examples(wanted, wanted.finetune.stages["1"], base, 32)
        done.touch()

    check(work, Path(".iy/encoded"))
