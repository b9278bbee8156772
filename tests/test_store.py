"""A project's own MLflow store that somebody deleted from, moved, copied, broke, or made with another MLflow."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from flows import place
from iy import doctor, erased, tracking
from iy.erasure import erase as erasing
from iy.erasure import runs
from iy.erasure.find import Found
from iy.errors import UserError
from iy.params import Params, parse
from iy.storage import file_sha256
from iy.tracking import local
from tests.tiny import tiny_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project whose store holds one run with a picture, and a registered model; to be copied."""
    root = tmp_path_factory.mktemp("made") / "first place"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    before, kept = Path.cwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(root)
    try:
        with tracking.stage_run(settings(), "curate") as run:
            run.log_image("validation", 1, np.full((4, 4, 3), 90, np.uint8))
            run.set_tags({"iy.test": "the run"})
        client = tracking.connect()
        client.create_registered_model("iy-test")
        place = client.get_run(run.run_id).info.artifact_uri
        client.create_model_version("iy-test", f"{place}/model", run.run_id)
    finally:
        os.chdir(before)
        if kept is not None:
            os.environ["MLFLOW_TRACKING_URI"] = kept
    return root


def settings() -> Params:
    return parse(tiny_settings(Path("base")), "test")


@pytest.fixture
def store(made, tmp_path, monkeypatch) -> Path:
    """The current folder: the project as it is after it was copied or moved here, beyond an `é` and a space."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("IY_PIPELINE", raising=False)
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "sécond place"))
    return Path.cwd()


def the_run(client):
    experiment = client.get_experiment_by_name("iy-tiny")
    [run] = client.search_runs([experiment.experiment_id], "tags.`iy.test` = 'the run'")
    return run


def pictures(client) -> list[str]:
    return [file.path for file in client.list_artifacts(the_run(client).info.run_id, "images")]


def test_a_deleted_experiment_is_restored_with_its_runs_and_that_is_told(store, caplog):
    client = tracking.connect()
    client.delete_experiment(client.get_experiment_by_name("iy-tiny").experiment_id)
    with caplog.at_level(logging.WARNING), tracking.stage_run(settings(), "select") as run:
        assert run.client is not None, "it is tracked"
    assert "MLflow's experiment iy-tiny had been deleted: it is restored" in caplog.text
    assert tracking.connect().get_run(run.run_id).info.status == "FINISHED" and pictures(client)


def set_version(root: Path, value: str) -> None:
    with sqlite3.connect(root / ".iy" / "mlflow.db") as opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", (value,))
    opened.close()


def started() -> None:
    with tracking.stage_run(settings(), "finetune1"):
        pytest.fail("the long work would begin")


@pytest.mark.parametrize("older", [True, False])
def test_a_store_of_another_version_is_told_before_the_work_with_the_way_out(older, store):
    known, newest = local.versions()
    set_version(store, sorted(known - {newest})[0] if older else "ffffffffffff")
    way = f"run `mlflow db upgrade 'sqlite:///{store}/.iy/mlflow.db'`" if older else "written by a newer MLflow"
    with pytest.raises(UserError) as caught:
        started()
    assert way in str(caught.value) and "\n" not in str(caught.value)
    assert [found.state for found in doctor.services() if found.what == "MLflow"] == ["missing"]


def test_a_database_that_is_none_any_more_is_told_before_the_work(store):
    (store / ".iy" / "mlflow.db").write_bytes(b"<<<<<<< not a database" * 300)
    with pytest.raises(UserError, match="mlflow.db is not a database any more: move it away"):
        started()


ROOT = Path(__file__).parents[1]
MAKE = "from iy import tracking; print('ready', flush=True); tracking.connect()"


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


@pytest.mark.parametrize("written", [0, 200_000, 400_000])
def test_a_store_whose_making_was_killed_is_made_again(written, tmp_path, monkeypatch):
    """`written`: bytes at which it is killed, of about 700,000."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    making = subprocess.Popen(
        [sys.executable, "-c", MAKE], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    while bytes_of(tmp_path / ".iy" / ".new-mlflow.db") <= written:
        assert making.poll() is None, "it was killed while it made the store"
        time.sleep(0.001)
    making.kill()
    making.wait()
    tracking.connect()
    assert [path.name for path in sorted((tmp_path / ".iy").glob("*mlflow.db*"))] == ["mlflow.db"]


def test_a_store_that_is_only_busy_stops_nothing(store, monkeypatch):
    assert local.fault(store / ".iy" / "mlflow.db") is None and local.fault(store / "none") is None
    monkeypatch.setattr(local, "version", lambda _: (_ for _ in ()).throw(sqlite3.OperationalError("locked")))
    assert local.fault(store / ".iy" / "mlflow.db") is None


def absolute(root: Path, text: str) -> list[str]:
    """What in the store still says `text`: table and column."""
    found = []
    with sqlite3.connect(root / ".iy" / "mlflow.db") as opened:
        for table, column in local.PLACES:
            if opened.execute(f"SELECT 1 FROM {table} WHERE instr({column}, ?)", (text,)).fetchone():
                found.append(f"{table}.{column}")
    opened.close()
    return found


def test_a_project_that_was_renamed_keeps_its_pictures_and_makes_new_ones_where_it_is(store, caplog):
    named = [f"{table}.{column}" for table, column in local.PLACES if table != "logged_models"]
    assert absolute(store, "first%20place") == named
    with caplog.at_level(logging.WARNING):
        client = tracking.connect()
    assert "where this project is no more" in caplog.text
    assert pictures(client) and not absolute(store, "first%20place")
    assert absolute(store, (store / ".iy" / "mlartifacts").as_uri()) == named
    with tracking.stage_run(settings(), "select") as run:
        run.log_image("validation", 1, np.zeros((4, 4, 3), np.uint8))
    assert client.get_run(run.run_id).info.artifact_uri.startswith((store / ".iy" / "mlartifacts").as_uri())
    caplog.clear()
    tracking.connect()
    assert not caplog.records, "told once"


def found(run: str) -> Found:
    return Found(["Ada"], ["ab" * 32], [], [], {}, {}, [run], [])


@pytest.mark.parametrize("name", ["100%", "a#b", "semi;colon & 'quote'", "zoé"])
def test_the_database_lies_in_the_project_whatever_its_folder_is_called(name, tmp_path, monkeypatch):
    (home := tmp_path / name).mkdir()
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert make_url(tracking.store.tracking_uri()).database == str(home / ".iy" / "mlflow.db")


@pytest.mark.parametrize("name", ["a%20b", "what?"])
def test_a_folder_beside_which_databases_would_be_made_is_refused_before_anything_starts(name, tmp_path, monkeypatch):
    (home := tmp_path / name).mkdir()
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for asked in (tracking.connect, started, lambda: place.supported(home)):
        with pytest.raises(UserError, match="rename that folder"):
            asked()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_an_erasure_after_a_copy_takes_its_own_pictures_and_not_the_first_ones(store, made):
    erasing.erase(found(the_run(tracking.connect()).info.run_id))
    assert not list((store / ".iy" / "mlartifacts").rglob("*.png"))
    assert list((made / ".iy" / "mlartifacts").rglob("*.png"))


def test_an_erasure_refuses_where_pictures_stayed_behind_and_leaves_no_trace(store, made):
    shutil.rmtree(store / ".iy" / "mlartifacts")
    run = the_run(tracking.connect()).info.run_id
    with pytest.raises(UserError, match="MLflow keeps what 1 runs left at file://.*first%20place.*nothing was erased"):
        erasing.erase(found(run))
    assert not erasing.JOURNAL.exists() and not erased.LIST.exists()
    shutil.copytree(made / ".iy" / "mlartifacts", store / ".iy" / "mlartifacts")
    erasing.erase(found(run))
    assert not list((store / ".iy" / "mlartifacts").rglob("*.png"))


def test_pictures_of_another_machine_are_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "experiment").mkdir()
    assert runs.within_reach("mlflow-artifacts:/1/abc/artifacts") and runs.within_reach("s3://bucket/1/abc/artifacts")
    assert runs.within_reach((tmp_path / "experiment" / "run" / "artifacts").as_uri())
    assert not runs.within_reach("file:///elsewhere/experiment/run/artifacts")


def test_runs_that_were_deleted_in_the_page_are_found_by_an_erasure(store, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_bytes(b"rows")
    with tracking.stage_run(settings(), "select") as run:
        run.log_dataset("photos", table)
    client = tracking.connect()
    digest = {file_sha256(table)}
    client.delete_run(run.run_id)
    assert run.run_id in {one.info.run_id for one in runs.touched(client, digest)}
    client.delete_experiment(client.get_experiment_by_name("iy-tiny").experiment_id)
    assert run.run_id in {one.info.run_id for one in runs.touched(client, digest)}
