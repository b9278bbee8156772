"""Who waits is told for whom and how to end that; ended, it ends at once; nothing of a live run is touched."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import locks, orphans, process, services
from iy import project
from tests import toy_project
from tests.depth import THOROUGH

HOLD = """
import sys, time
from pathlib import Path
from flows import locks
with locks.held(Path(sys.argv[1]), "it", print):
    print("has it", flush=True)
    time.sleep(600)
"""


def holder(path: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(toy_project.HERE)}
    child = subprocess.Popen([sys.executable, "-c", HOLD, path], env=environment, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line == "has it\n":
            return child
    raise AssertionError("it ended")


@pytest.mark.parametrize("left", [b"", b"{", b"null", b'"\xff'])
def test_what_dvc_left_half_written_when_it_was_killed_stops_no_later_run(left, tmp_path):
    rwlock = tmp_path / "rwlock"
    rwlock.write_bytes(left)
    locks.mend(rwlock)
    assert not rwlock.exists()
    locks.mend(rwlock)
    rwlock.write_text('{"read": {}, "write": {}}')
    locks.mend(rwlock)
    assert rwlock.exists(), "a whole one says who works"


def test_who_waits_is_told_who_has_it_and_a_killed_holder_has_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    child, said = holder(tmp_path / "a.lock"), []

    def say(line: str) -> None:
        said.append(line)
        child.kill()

    with locks.held(tmp_path / "a.lock", "the folder", say):
        assert json.loads((tmp_path / "a.lock").read_text())["process"] == os.getpid()
    child.wait()
    child.stdout.close()
    assert len(said) == 1 and said[0].startswith(f"waiting for the folder: process {child.pid} has it since ")
    assert f"`kill {child.pid}`" in said[0]
    assert (tmp_path / "a.lock").read_text() == ""


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return toy_project.make(tmp_path_factory.mktemp("waiting") / "toy")


def waiting(toy: Path, words: str, **more: str) -> tuple[int, float, str]:
    """Exit code, seconds to the end after SIGTERM and what a run said that was ended when it said `words`."""
    environment = {**toy_project.environment(toy), **more}
    command = [sys.executable, "-m", "flows", "--stage", "finetune1"]
    child = subprocess.Popen(
        command, cwd=toy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = ""
    for line in child.stdout:
        said += line
        if words in line:
            break
    start = time.monotonic()
    child.send_signal(signal.SIGTERM)
    said += child.communicate(timeout=60)[0]
    return child.returncode, time.monotonic() - start, said


@pytest.mark.slow
def test_a_run_that_waits_for_its_turn_to_train_says_so_and_ends_when_told(toy):
    child = holder(toy / ".iy" / "locks" / "training.lock")
    code, seconds, said = waiting(toy, "waiting for a turn to train")
    assert child.poll() is None, "the holder is another project's business"
    child.kill()
    child.communicate()
    assert code == 130 and seconds < 20 and "Traceback" not in said, said
    assert f"process {child.pid} has it" in said and "run the same command again" in said


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="a third of a minute: IY_THOROUGH=1")
def test_so_does_one_that_waits_on_a_server_that_others_use_too(toy):
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import turn

    server = services.prefect(services.some_ports(1)[0], {"PREFECT_HOME": str(toy.parent / "prefect")}, pages=False)
    server.start(toy.parent)
    try:
        server.wait(toy.parent)
        api = server.variables["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            turn.limit_training(client)
            client.increment_concurrency_slots(names=[turn.LIMIT], slots=1, mode="concurrency")
        code, seconds, said = waiting(toy, "the limit 'training' of this Prefect server is taken", PREFECT_API_URL=api)
    finally:
        services.stop_all([server])
    assert code == 130 and seconds < 20 and "Traceback" not in said, said
    assert "prefect gcl update training --active-slots 0" in said


def test_a_dead_runs_processes_are_ended_and_a_live_runs_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, said = project.state(), []
    mine = process.start(["sleep", "100"])
    marks = {"dead": "4194304 1 ", "reused": f"{os.getpid()} 1 ", "other": "4194304 1 "}
    places = {"dead": state, "reused": state, "other": tmp_path / "other" / ".iy"}
    left = {
        name: subprocess.Popen(["sleep", "100"], env={**os.environ, orphans.RUN: f"{mark}{places[name]}"})
        for name, mark in marks.items()
    }
    try:
        wait_for(lambda: {one.pid for one in orphans.found()} == {left["dead"].pid, left["reused"].pid})
        orphans.sweep(said.append)
        assert left["dead"].poll() is not None and left["reused"].poll() is not None
        assert left["other"].poll() is None and mine.poll() is None
        assert len(said) == 1 and f"sleep 100 ({left['dead'].pid})" in said[0]
        orphans.sweep(said.append)
        assert len(said) == 1
    finally:
        left["other"].kill()
        process.stop(mine)


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def starts_one_and_waits(connection) -> None:
    child = process.start(["sleep", "100"])
    connection.send(child.pid)
    time.sleep(100)


def test_what_a_process_started_dies_with_it():
    here, there = multiprocessing.Pipe()
    parent = multiprocessing.get_context("fork").Process(target=starts_one_and_waits, args=(there,))
    parent.start()
    child = psutil.Process(here.recv())
    parent.kill()
    parent.join()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_only_a_run_whose_process_on_this_machine_is_gone_is_called_crashed():
    own = orphans.tag()
    assert not orphans.ended(own)
    assert orphans.ended(own + "1"), "the number was given to another process since"
    assert not orphans.ended(own.replace(" of ", " of another-")), "who knows what works there"
    assert not any(map(orphans.ended, ("iy", "process of x", "process me of here, begun 3", "")))
