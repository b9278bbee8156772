"""Runs reach a real sqlite store in a temporary project, and a dead store stops nothing."""

import json
import logging
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iy import tracking
from iy.params import parse, read_yaml
from iy.storage import file_sha256
from iy.tracking import run as runs
from iy.tracking.describe import flatten
from tests.tiny import tiny_settings


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A git project with one worktree; its store is made once (seconds) and shared by the tests."""
    main, tree = tmp_path_factory.mktemp("main"), tmp_path_factory.mktemp("trees") / "tree"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q", main], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], cwd=main, check=True)
    subprocess.run([*git, "worktree", "add", "-q", tree], cwd=main, check=True, capture_output=True)
    return main, tree


@pytest.fixture
def project(checkout, monkeypatch):
    """The main checkout; the current folder is its worktree."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("IY_PIPELINE", raising=False)
    monkeypatch.chdir(checkout[1])
    return checkout[0]


@pytest.fixture
def params(tmp_path, request):
    return parse(tiny_settings(tmp_path) | {"profile": request.node.name}, "test")


def test_one_parent_with_a_child_per_stage(project, params):
    table = project / "photos.parquet"
    pq.write_table(pa.table({"id": ["a", "b"]}), table)
    with tracking.stage_run(params, "curate"):
        pass
    with tracking.stage_run(params, "finetune1") as run:
        for step in range(3):
            run.log_metrics({"loss": 1 / (step + 1), "rate": 0.5}, step)
        run.log_image("validation", 2, np.zeros((4, 4, 3), np.uint8))
        run.log_dataset("photos", table)
    assert (project / ".iy" / "mlflow.db").exists(), "worktrees share the main checkout's store"
    client = tracking.connect()
    experiment = client.get_experiment_by_name(f"iy-{params.profile}")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development", "its page opens on the runs"
    assert experiment.artifact_location == (project / f".iy/mlartifacts/iy-{params.profile}").as_uri()
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"pipeline", "curate", "finetune1"}
    child, parent = found["finetune1"], found["pipeline"]
    assert {found[name].data.tags["mlflow.parentRunId"] for name in ("curate", "finetune1")} == {parent.info.run_id}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert child.data.tags["iy.settings"] == params.digest() and len(child.data.tags["mlflow.source.git.commit"]) == 40
    assert child.data.params["finetune.stages.1.steps"] == str(params.finetune.stages["1"].steps)
    curve = client.get_metric_history(child.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in curve] == [(0, 1), (1, 0.5), (2, 1 / 3)]
    data = child.inputs.dataset_inputs[0]
    assert data.dataset.name == "photos" and json.loads(data.dataset.profile)["num_rows"] == 2
    assert {tag.key: tag.value for tag in data.tags}["iy.sha256"] == file_sha256(table)
    images = [file.path for file in client.list_artifacts(child.info.run_id, "images")]
    assert any(path.startswith("images/validation+step+2+") for path in images), images


def test_an_interrupted_stage_continues_its_run_and_a_finished_one_does_not(project, params):
    ids = []
    for stop in (SystemExit(1), None, None):
        try:
            with tracking.stage_run(params, "finetune2") as run:
                ids.append(run.run_id)
                if stop:
                    raise stop
        except SystemExit:
            assert tracking.connect().get_run(run.run_id).info.status == "KILLED"
    assert ids[0] == ids[1] != ids[2]


def test_a_dead_store_is_told_once_and_stops_nothing(project, params, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with caplog.at_level(logging.WARNING), tracking.stage_run(params, "curate") as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.log_image("picture", 1, np.zeros((4, 4, 3), np.uint8))
        run.log_dataset("gone", "missing.parquet")
    assert [record.message for record in caplog.records if "not tracked" in record.message]


def test_metrics_wait_out_an_outage(project, params, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 1)
    with tracking.stage_run(params, "curate") as run:
        monkeypatch.setattr(run, "client", tracking.connect())
        real = run.client.log_batch
        monkeypatch.setattr(run.client, "log_batch", lambda *a, **k: (_ for _ in ()).throw(OSError("down")))
        run.log_metrics({"loss": 3.0}, 7)
        monkeypatch.setattr(run.client, "log_batch", real)
    assert [m.step for m in tracking.connect().get_metric_history(run.run_id, "loss")] == [7]


def test_one_pipeline_named_by_the_environment(project, params, monkeypatch):
    monkeypatch.setenv("IY_PIPELINE", "night-7")
    with tracking.stage_run(params, "curate") as first:
        pass
    other = parse({**params.resolved(), "seed": 9}, "test")
    with tracking.stage_run(other, "select") as second:
        pass
    client = tracking.connect()
    assert len({client.get_run(run.run_id).data.tags["mlflow.parentRunId"] for run in (first, second)}) == 1


def test_nothing_secret_is_logged(monkeypatch):
    monkeypatch.setenv("IY_OPENAI_API_KEY", "sk-0123456789")
    flat = flatten(
        {
            "a": {
                "endpoint": "https://me:pw@host/v1?api_key=zzz&x=1",
                "note": "uses sk-0123456789",
                "api_key": "q",
                "max_tokens": 5,
                "long": "x" * 9000,
                "none": None,
                "list": [1, 2],
            }
        }
    )
    assert flat["a.endpoint"] == "https://***@host/v1?api_key=***&x=1"
    assert flat["a.note"] == "uses ***" and flat["a.api_key"] == "***"
    assert flat["a.max_tokens"] == "5" and flat["a.none"] == "null" and flat["a.list"] == "[1, 2]"
    assert len(flat["a.long"]) == 6000


def test_the_real_profile_flattens_within_limits():
    from pathlib import Path

    flat = flatten(read_yaml(Path(__file__).parents[1] / "profiles" / "studio.yaml"))
    assert flat["model.lora_targets"] == '["self", "text"]' and "***" not in flat.values()
