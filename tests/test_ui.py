"""Prefect's pages, driven in a real Chromium: Run with a form, watch, cancel during training, run again.

The toy project takes a minute; the real smoke profile in a fresh clone takes a few, and needs the weights that ship.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from flows import experiment, graph
from tests import browser, toy_project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.CHROMIUM, args=["--no-sandbox"])
        opened = chromium.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(browser.PATIENCE)
        yield opened
        chromium.close()


@pytest.fixture(scope="module")
def toy(tmp_path_factory, page):
    """A toy project with a training of 10 s, its services and the browser."""
    folder = toy_project.make(tmp_path_factory.mktemp("ui") / "toy", steps=100)
    with browser.services(folder, toy_project.HERE) as base:
        yield folder, browser.Prefect(base, page)


def noted(folder: Path) -> dict[str, str]:
    return json.loads((folder / ".iy" / "ui.json").read_text())


def reports_page(folder: Path) -> str:
    with urllib.request.urlopen(noted(folder)["reports"]) as answer:
        return answer.read().decode()


def stages_of(folder: Path) -> list[psutil.Process]:
    """Stage processes whose working folder lies in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            words = " ".join(process.info["cmdline"] or [])
            if ("toy_stage.py" in words or "iy.finetune" in words) and Path(process.cwd()).is_relative_to(
                folder.resolve()
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_cancel_during_training_stops_the_process_and_a_rerun_finishes(toy):
    folder, prefect = toy
    run = prefect.press_run("pipeline", "smoke")
    prefect.open(f"/runs/flow-run/{run}")
    browser.wait(
        lambda: [one for one in stages_of(folder) if "finetune1" in " ".join(one.cmdline())], 300, "finetune1 running"
    )
    prefect.press_cancel(run)
    assert prefect.ends(run, 180) == "Cancelled"
    browser.wait(lambda: not stages_of(folder), 30, "the end of the stage's process")
    assert (folder / ".iy" / "experiments" / "smoke").is_dir()
    again = prefect.press_run("pipeline", "smoke")
    assert prefect.ends(again, 600) == "Completed"
    states = {name: one["state"]["name"] for name, one in prefect.tasks(again).items()}
    assert states == {"photos": "Cached", "curate": "Cached", "finetune1": "Completed", "evaluate": "Completed"}
    assert prefect.links(again) == {name: set(needs) for name, needs in toy_project.GRAPH.items()}
    shown = prefect.shown(again, "Artifacts", ["evaluate-metrics", "evaluate-pictures", "where-to-look"])
    assert "Completed" in shown and "4 Task runs" in shown
    assert not (folder / ".iy" / "experiments" / "smoke").exists()
    assert (folder / "data" / "smoke" / "evaluate" / "out.json").exists()
    assert any(tag.startswith("process ") for tag in prefect.api(f"/flow_runs/{again}")["tags"]), "which one it was"
    listed = reports_page(folder)
    assert f'href="{again}/evaluate/"' in listed and "complete" in listed
    assert listed.index(again) < listed.index("run the same again and it continues"), "the newest first"


def test_a_quick_run_of_one_stage_runs_in_place_what_that_stage_needs(toy):
    folder, prefect = toy
    run = prefect.press_run("curate")
    assert prefect.ends(run, 300) == "Completed"
    assert set(prefect.tasks(run)) == {"photos", "curate"}
    assert (folder / "data" / "studio" / "curate").is_dir() and not (folder / "data" / "studio" / "finetune1").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": {"seeed": 1}}, "overrides: unknown key 'seeed': did you mean 'seed'?"),
        ({"photos": "/no/such/folder"}, "--photos /no/such/folder: there is no such folder"),
    ],
)
def test_a_wrong_choice_in_the_form_fails_at_once_and_says_what_is_wrong(toy, given, message):
    _, prefect = toy
    run = prefect.api(f"/deployments/{prefect.deployments()['pipeline']}/create_flow_run", {"parameters": given})["id"]
    assert prefect.ends(run, 120) == "Failed"
    assert prefect.api(f"/flow_runs/{run}")["state"]["message"] == message


def test_a_taken_port_is_one_line(toy):
    folder, prefect = toy
    port = prefect.base.rsplit(":", 1)[1]
    done = toy_project.run(folder, sys.executable, "-m", "flows.ui", "--prefect-port", port, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: already running at")
    other = toy_project.make(folder.parent / "other")
    done = toy_project.run(other, sys.executable, "-m", "flows.ui", "--prefect-port", port, check=False)
    assert (
        done.returncode == 1
        and done.stderr.startswith(f"error: port {port} for prefect cannot be used")
        and done.stderr.count("\n") == 1
    )


def test_closing_the_pages_waits_for_the_run_of_another_terminal_and_ends_it_when_told_again(toy):
    folder, prefect = toy
    ui, said, log = noted(folder)["process"].split()[1], folder.parent / "run.log", folder.parent / "toy-ui.log"
    with said.open("w") as out:
        run = subprocess.Popen(
            [sys.executable, "-m", "iy", "run", "--profile", "smoke", "--set", "seed=5"],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=toy_project.environment(folder),
        )
    browser.wait(lambda: stages_of(folder) and "finetune1 step 9" in said.read_text(), 120, "a training")
    os.kill(int(ui), signal.SIGINT)
    browser.wait(lambda: "smoke, seed=5: still runs and needs this server" in log.read_text(), 20, "why it stays")
    assert prefect.api("/health") is True and run.poll() is None
    os.kill(int(ui), signal.SIGINT)
    assert run.wait(40) == 1 and "`make ui`, whose Prefect server this run used, was ended: run the" in said.read_text()
    assert "Traceback" not in said.read_text() and not stages_of(folder)
    browser.wait(lambda: log.read_text().endswith("stopped\n"), 40, "the end of the pages")


def runs_of(folder: Path) -> dict[str, dict[str, float]]:
    """Figures by name of the run, newest last, from MLflow's store."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/.iy/mlflow.db")
    experiment = client.get_experiment_by_name("iy-smoke").experiment_id
    found = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return {run.info.run_name: run.data.metrics for run in found}


@pytest.mark.skipif(
    "note" in json.loads((toy_project.HERE / "weights" / "studio" / "CARD.json").read_text()),
    reason="weights/studio/CARD.json says the weights are interim: train the foundation first",
)
def test_the_smoke_profile_from_the_browser_in_a_fresh_clone(tmp_path, page):
    """Every stage a linked task; artifacts, figures, an experiment."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(toy_project.HERE), str(clone)], check=True)
    for name in ("user.email", "user.name"):
        toy_project.run(clone, "git", "config", name, "test@example.org")
    if (toy_project.HERE / ".iy" / "weights").is_dir():  # fetched by `make install`
        shutil.copytree(toy_project.HERE / ".iy" / "weights", clone / ".iy" / "weights")
    with browser.services(clone, clone) as base:
        prefect = browser.Prefect(base, page)
        changed = {"finetune.stages.1.steps": 6}
        run = prefect.press_run("pipeline", "smoke", changed)
        prefect.look_away()
        assert prefect.ends(run, 1200) == "Completed", prefect.api(f"/flow_runs/{run}")["state"]["message"]
        links, tasks = prefect.links(run), prefect.tasks(run)
        assert set(tasks) == set(graph.names(clone))
        assert {one["state"]["name"] for one in tasks.values()} == {"Completed"}
        assert "finetune4" in links["evaluate"] and links["synpairs"] == {"photos", "curate", "finetune1"}
        prefect.shown(run, "Artifacts", ["evaluate-metrics", "evaluate-report", "mlflow-run", "where-to-look"])
    runs = runs_of(clone)
    assert set(runs) == {"pipeline", *graph.names(clone)}, "every stage is a run in MLflow"
    assert runs["curate"]["photos_measured"] == 24 and runs["curate"]["photos_kept"] > 18
    assert (clone / "reports" / "smoke" / "evaluate" / "metrics.json").exists()
    assert (clone / "params.yaml").read_bytes() == (toy_project.HERE / "params.yaml").read_bytes()
    named = toy_project.run(clone, sys.executable, "-m", "dvc", "exp", "list", "--name-only").stdout.split()
    assert experiment.title("smoke", changed) in named
    toy_project.run(clone, sys.executable, "-m", "dvc", "exp", "apply", experiment.title("smoke", changed))
    assert yaml.safe_load((clone / "profiles" / "smoke.yaml").read_text())["finetune"]["stages"]["1"]["steps"] == 6
