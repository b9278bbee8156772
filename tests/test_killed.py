"""A stage that is killed at any moment and run again ends in the very files of one that nobody disturbed."""

import functools
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from iy.params import Params
from iy.photos.run import run as take_photos
from tests import att_faces, curating, encoding
from tests.depth import depth
from tests.tiny import tiny_base

ROOT = Path(__file__).parents[1]
FORKED = multiprocessing.get_context("forkserver")  # of one that has imported everything and has no threads yet
KILLS = depth(4, 20)  # tries at least; more where too few of them hit a process at work


def files(*folders: Path) -> dict[str, bytes]:
    """Without what is being written, whose names begin with a dot."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return {str(path): path.read_bytes() for path in found if path.is_file() and path.name[0] != "."}


@pytest.fixture(scope="module", autouse=True)
def imported():
    """The process that the others are forked from."""
    FORKED.set_forkserver_preload(["iy.curate.run", "iy.synpairs.run", "iy.finetune.data", "tests.test_killed"])
    here = os.getcwd()
    os.chdir(ROOT)
    forkserver.ensure_running()
    os.chdir(here)


def ended(work: Callable[[], None], killed_after: float = 0.0) -> tuple[int | None, float]:
    """How a process that works ends (its exit code), and its CPU seconds if it ends by itself.

    killed_after: CPU seconds, 0 for never; a busy machine does not move the moment. What ends it is SIGPROF, which
    nobody handles: it dies where it is, as of SIGKILL.
    """
    here, there = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=killable, args=(work, killed_after, os.getcwd(), there))
    process.start()
    there.close()
    try:
        took = here.recv()
    except EOFError:
        took = 0.0
    process.join()
    return process.exitcode, took


def killable(work: Callable[[], None], killed_after: float, folder: str, there: Connection) -> None:
    os.chdir(folder)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, killed_after)
    work()
    signal.setitimer(signal.ITIMER_PROF, 0)
    there.send(time.process_time())


def check(work: Callable[[], None], *outputs: Path) -> None:
    status, took = ended(work)
    whole = files(*outputs)
    assert status == 0 and whole
    rng, tried, hit = np.random.default_rng(0), 0, 0
    while tried < KILLS or hit < KILLS / 2:
        status, _ = ended(work, killed_after=rng.uniform(0, took))
        assert status in (0, -signal.SIGPROF), "it ends well or is killed, and never fails"
        tried, hit = tried + 1, hit + (status == -signal.SIGPROF)
        assert tried <= 5 * KILLS, f"{hit} of {tried} were hit while they worked"
        assert files(*outputs).items() <= whole.items(), "never half a file"
    assert ended(work)[0] == 0 and files(*outputs) == whole
    left = [path for folder in outputs for path in (*folder.parent.glob(f".{folder.name}.*"), *folder.rglob(".*"))]
    assert not left, "what the killed ones left is gone"


def curate(wanted: Params) -> None:
    from iy.curate.run import run

    run(wanted)


@pytest.mark.slow
def test_curate_killed_at_any_moment(empty_project):
    att_faces.copy_folders(empty_project / "in", persons=5, photos=2)
    wanted = curating.settings(photos={"source": "folder", "path": "in"})
    take_photos(wanted)
    check(functools.partial(curate, wanted), wanted.data_dir("curate"), wanted.report_dir("curate"))


def synpairs(wanted: Params) -> None:
    from iy.synpairs import shards
    from iy.synpairs.run import run

    shards.SHARD = 2  # three shards: later runs go on from those of killed ones
    run(wanted)


@pytest.mark.slow
def test_synpairs_killed_at_any_moment(tiny_project):
    work = functools.partial(synpairs, tiny_project)
    check(work, tiny_project.data_dir("synpairs"), tiny_project.report_dir("synpairs"))


def encoded(wanted: Params) -> None:
    from iy.diffusion import load_base
    from iy.finetune import data, encode

    encode.SHARD = encode.ROWS
    done = Path("done")
    if done.exists():  # what is whole is encoded anew, what is not goes on
        shutil.rmtree(".iy/encoded")
        done.unlink()
    data.load_examples(wanted, wanted.finetune.stages["1"], load_base(wanted.base), 32)
    done.touch()


@pytest.mark.slow
def test_encoding_killed_at_any_moment(empty_project):
    wanted = encoding.settings(tiny_base(empty_project / "base"), encoding="alone")
    encoding.collection(wanted, people=9)
    check(functools.partial(encoded, wanted), Path(".iy/encoded"))
