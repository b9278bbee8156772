"""What a run says of itself: its name, how long its stages take, nothing that nobody can act on; no proxy for this
machine."""

import os
import subprocess
import sys

import pytest
import yaml

from flows import durations, place, process
from flows.stage import NOISE
from iy.process import set_environment
from tests import toy_project


@pytest.mark.parametrize(
    "given, name",
    [
        (("params.yaml", "", {}), "studio"),
        (("smoke", "", {"seed": 5}), "smoke, seed=5"),
        (("params.yaml", "/home/ana/family", {}), "studio, photos /home/ana/family"),
        (
            (None, "", {"photos.source": "folder", "photos.path": "/p", "photos.licence": "unknown"}),
            "studio, photos /p",
        ),
        (
            ("sdxl", "s3://b/p", {"photos.path": "/no", "finetune.stages.4.steps": 40}),
            "sdxl, photos s3://b/p, finetune.stages.4.steps=40",
        ),
    ],
)
def test_a_run_is_called_by_profile_photos_and_changes(given, name):
    assert place.called(*given) == name


def test_the_start_says_how_long_each_stage_takes_and_whose_figures_these_are(tmp_path, monkeypatch):
    stages = ["photos", "train"]
    monkeypatch.setattr(durations, "SHIPPED", tmp_path / "shipped.yaml")
    durations.SHIPPED.write_text("{machine: a, seconds: {}}")
    assert "from the second run on" in durations.expected(tmp_path, "own", stages)
    shipped = {"machine": "two cores", "seconds": {"own": {"photos": 40, "train": 600}}}
    durations.SHIPPED.write_text(yaml.safe_dump(shipped))
    said = durations.expected(tmp_path, "own", stages)
    assert said.startswith("2 stages, about 11 min if all run: photos 40 s, train 10 min (measured on two cores)")
    durations.note(tmp_path, "own", "train", 7000.0)
    said = durations.expected(tmp_path, "own", stages)
    assert "about 2.0 h if all run: photos 40 s, train 1.9 h (photos on two cores)" in said
    durations.note(tmp_path, "own", "photos", 12.3)
    assert "photos 12 s, train 1.9 h (as last time here)" in durations.expected(tmp_path, "own", stages)
    (tmp_path / "durations.json").write_text("{broken")
    assert "(measured on two cores)" in durations.expected(tmp_path, "own", stages)


def test_figures_that_ship_are_of_stages_that_there_are(root):
    from flows import graph

    for seconds in yaml.safe_load(durations.SHIPPED.read_text())["seconds"].values():
        assert set(seconds) == set(graph.names(root)) and all(0 < one < 86400 for one in seconds.values())


def test_colours_and_what_nobody_can_act_on_stay_out_of_the_log():
    words = r"print('\x1b[33m2026/11/26 WARNING mlflow.utils.environment: x\x1b[0m'); print('\x1b[31mloss 0.5\x1b[0m')"
    child = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True)
    lines = list(process.lines(child))
    child.communicate()
    assert [line for line in lines if not NOISE.match(line)] == ["loss 0.5"]
    assert NOISE.match("  color_warning(") and NOISE.match("portraits:  0%|  | 0/40 Warp CUDA warning: no driver")
    assert NOISE.match("[notice] A new release of pip is available: 25.0 -> 26.1")
    assert not NOISE.match("error: photos: the folder is empty")


def test_no_proxy_stands_between_this_machine_and_itself(monkeypatch):
    monkeypatch.setenv("no_proxy", "corp.example, localhost")
    monkeypatch.delenv("NO_PROXY", raising=False)
    set_environment()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "corp.example,localhost,127.0.0.1,::1"
    set_environment()
    assert os.environ["no_proxy"] == "corp.example,localhost,127.0.0.1,::1"


@pytest.mark.slow
def test_a_run_behind_a_proxy_that_is_dead_reaches_its_own_server(tmp_path):
    folder = toy_project.make(tmp_path / "toy")
    dead = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = {key: value for key, value in toy_project.environment(folder).items() if key.lower() != "no_proxy"}
    environment.pop("PREFECT_API_URL", None)
    done = toy_project.run(
        folder, sys.executable, "-m", "flows", "--stage", "photos", env=environment | dead, timeout=200
    )
    assert "Finished in state Completed" in done.stdout + done.stderr
