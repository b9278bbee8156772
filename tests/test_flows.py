"""The flows on a toy project with real DVC, git and Prefect: order, Cached, experiments, failures, cancel."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows import artifacts, experiment, graph, process, services
from flows.stage import how, unreachable
from iy.errors import UserError
from tests import toy_project
from tests.depth import depth

RUN = (sys.executable, "-m", "flows")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A toy project that has run once, without any server, and what that run said. Later runs share one server."""
    folder = toy_project.make(tmp_path_factory.mktemp("flows") / "toy")
    done = toy_project.run(folder, *RUN)
    port, patch = services.some_ports(1)[0], pytest.MonkeyPatch()
    patch.setenv("PREFECT_HOME", str(folder / ".iy" / "prefect"))
    server = services.prefect(port, {})
    server.start(folder.parent)
    try:
        server.wait(folder.parent)
        patch.setitem(toy_project.MORE, "PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        yield folder, done.stdout + done.stderr
    finally:
        services.stop_all([server])
        patch.undo()


def test_a_run_without_a_server_brings_every_stage_up_to_date(project):
    folder, said = project
    assert [said.index(f"Running stage '{name}'") for name in toy_project.GRAPH] == sorted(
        said.index(f"Running stage '{name}'") for name in toy_project.GRAPH
    )
    assert json.loads((folder / "data/studio/evaluate/out.json").read_text())["pipeline"] is True
    assert f"Report       {folder}/reports/studio/evaluate/index.html" in said and "Prefect run  http" in said
    assert "`make ui` opens the pages" in said
    assert (folder / ".iy" / "prefect").is_dir()


def test_a_second_run_does_nothing_and_says_so_without_prefect(project):
    folder, _ = project
    lock = (folder / "dvc.lock").read_bytes()
    began = time.monotonic()
    done = toy_project.run(folder, *RUN)
    assert "up to date" in done.stdout and "temporary server" not in done.stdout + done.stderr
    assert (folder / "dvc.lock").read_bytes() == lock
    assert time.monotonic() - began < 60


def test_dvc_alone_agrees_that_nothing_is_to_do(project):
    folder, _ = project
    assert "up to date" in toy_project.run(folder, sys.executable, "-m", "dvc", "repro").stdout


def test_overrides_become_an_experiment_and_leave_the_files_alone(project):
    folder, _ = project
    before = {
        path: (folder / path).read_bytes()
        for path in ("params.yaml", "profiles/studio.yaml", "dvc.lock", "data/studio/curate/out.json")
    }
    (folder / "notes.txt").write_text("not committed")
    done = toy_project.run(folder, *RUN, "--set", "seed=5")
    said = done.stdout + done.stderr
    assert "photos' - Finished in state Cached" in said and "Running stage 'curate'" in said
    assert {path: (folder / path).read_bytes() for path in before} == before
    name = experiment.title("studio", {"seed": 5})
    assert name in toy_project.run(folder, sys.executable, "-m", "dvc", "exp", "show", "--csv").stdout
    assert not (folder / ".iy" / "experiments" / name).exists()
    toy_project.run(folder, sys.executable, "-m", "dvc", "exp", "apply", name)
    assert json.loads((folder / "data/studio/curate/out.json").read_text())["seed"] == 5
    assert yaml.safe_load((folder / "profiles/studio.yaml").read_text())["seed"] == 5
    assert "# research | commercial" in (folder / "profiles/studio.yaml").read_text()  # comments survive
    toy_project.run(folder, "git", "checkout", "-q", "--", ".")


def test_a_failing_stage_is_one_line_and_its_worktree_stays_for_the_rerun(project):
    folder, _ = project
    done = toy_project.run(folder, *RUN, "--set", "seed=13", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "\nerror: curate: photo 7 is unlucky: choose another seed\n" in said and "Traceback" not in said
    assert (folder / ".iy" / "experiments" / experiment.title("studio", {"seed": 13})).is_dir()


@pytest.mark.parametrize(
    "given, told",
    [
        (["--set", "seeed=5"], "unknown key 'seeed': did you mean 'seed'?"),
        (["--set", "select.review=required"], "required needs select.decisions: name the file"),
        (["--set", "finetune.stages.1.stepz=5"], "did you mean 'steps'?"),
        (["--set", "seed=abc"], "seed = 'abc'"),
        (["--set", "seed"], "write KEY=VALUE"),
        (["--set", "seed.deep=1"], "has no keys below it"),
        (["--profile", "smok"], "smok.yaml does not exist"),
        (["--photos", "/nowhere"], "no such folder"),
        (["--stage", "curat"], "no such stage"),
    ],
)
def test_a_bad_argument_is_one_line_before_anything_starts(project, given, told, capsys, monkeypatch):
    from iy import cli

    monkeypatch.chdir(project[0])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", *given])
    said = capsys.readouterr().err
    assert told in said and said.startswith("error: ") and said.count("\n") == 1


def test_missing_face_weights_are_told_before_anything_starts(project, tmp_path, monkeypatch, capsys):
    from iy import cli

    monkeypatch.setenv("IY_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(project[0])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "--set", "seed=5"])
    said = capsys.readouterr().err
    assert "face weights 'fr_feature' are not at" in said and said.count("\n") == 1


def test_prefects_folder_is_made_where_the_whole_of_iy_is_gone(tmp_path, monkeypatch):
    from flows import environment

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "gone" / "prefect"))
    environment.prepare()
    assert (tmp_path / "gone" / "prefect").is_dir()


def without_a_server(folder: Path) -> dict[str, str]:
    """The environment of a run that starts Prefect's temporary server."""
    return {key: value for key, value in toy_project.environment(folder).items() if key != "PREFECT_API_URL"}


def test_ctrl_c_ends_the_stage_and_a_rerun_finishes(project):
    """As a terminal sends it: to every process that is in front, Prefect's temporary server among them."""
    folder, _ = project
    longer = (*RUN, "--set", "finetune.stages.1.steps=40")
    child = subprocess.Popen(
        longer,
        cwd=folder,
        env=without_a_server(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in child.stdout:
        if "finetune1 step 2/40" in line:
            break
    pid = int((folder / ".iy" / "toy.pid").read_text())
    os.killpg(child.pid, signal.SIGINT)
    said = child.communicate(timeout=45)[0]
    assert child.returncode == 130 and "run the same" in said and "Traceback" not in said, said
    assert not alive(pid)
    done = toy_project.run(folder, *longer)
    assert "photos' - Finished in state Cached" in done.stdout + done.stderr
    assert "continuing in" in done.stdout + done.stderr


@pytest.mark.parametrize("number", depth([signal.SIGTERM], [signal.SIGTERM, signal.SIGKILL]))
def test_a_run_that_is_ended_from_outside_leaves_no_stage_behind(project, number):
    """By SIGKILL too: tests/test_run_killed.py does that at any moment."""
    import psutil

    folder, _ = project
    child = subprocess.Popen(
        (*RUN, "--set", "finetune.stages.1.steps=300"),
        cwd=folder,
        env=without_a_server(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in child.stdout:
        if "finetune1 step 2/300" in line:
            break
    stage, servers = int((folder / ".iy" / "toy.pid").read_text()), []
    for one in psutil.Process(child.pid).children():
        servers += [one.pid] if "server" in one.cmdline() else []
    child.send_signal(number)
    child.wait(60)
    end = time.monotonic() + 30
    while any(map(alive, [stage, *servers])) and time.monotonic() < end:
        time.sleep(0.2)
    child.stdout.close()
    assert len(servers) == 1 and not any(map(alive, [stage, *servers]))


def alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_order_and_dependencies_come_from_dvc_yaml():
    needs = graph.upstream(toy_project.HERE)
    assert list(needs) == graph.names(toy_project.HERE)
    assert set(needs["synpairs"]) == {"photos", "curate", "finetune1"} and "evaluate" in needs["register"]
    assert len(needs) >= 8


def test_every_stage_has_a_flow_with_a_form():
    from flows import pipeline

    for name in ("pipeline", *graph.names(toy_project.HERE)):
        form = getattr(pipeline, name).parameters.properties
        assert (
            "smoke" in form["profile"]["enum"]
            and form["overrides"]["description"]
            and form["force"]["type"] == "boolean"
        )
    with pytest.raises(AttributeError):
        _ = pipeline.curat


def test_only_what_did_not_answer_is_tried_again():
    from prefect.states import Failed

    assert unreachable(None, None, Failed(name="Unreachable", message="photos: the store is away"))
    assert not unreachable(None, None, Failed(message="photos: Connection reset by peer"))


@pytest.mark.parametrize(
    "raised, code, kept",
    [
        ("Unreachable('s3://a: timed out')", 75, {"message": "s3://a: timed out", "code": 75}),
        ("UserError('folder x is empty: connection')", 1, {"message": "folder x is empty: connection", "code": 1}),
        (
            "OSError(28, 'No space left', 'x')",
            1,
            {"message": "x: No space left; free space or change permissions, then run again", "code": 1},
        ),
    ],
)
def test_a_stage_leaves_the_kind_of_its_failure_to_whoever_started_it(tmp_path, raised, code, kept):
    text = f"from iy import stage\nfrom iy.errors import Unreachable, UserError\ndef run():\n    raise {raised}\n"
    (tmp_path / "fails.py").write_text(text + "stage.attend(run)\n")
    environment = {**os.environ, "PYTHONPATH": str(toy_project.HERE), "IY_ENDING": str(tmp_path / "ending.json")}
    command = [sys.executable, str(tmp_path / "fails.py")]
    done = subprocess.run(command, cwd=toy_project.HERE, env=environment, capture_output=True, text=True)
    assert done.returncode == code and done.stderr == f"error: {kept['message']}\n"
    ending = tmp_path / "ending.json"
    assert json.loads(ending.read_text()) == kept
    ended = how(255, False, "ERROR: failed to reproduce", ending)
    assert (ended.said, ended.unreachable) == (kept["message"], code == 75) and not ending.exists()


def test_a_stage_that_was_killed_is_told_as_such(tmp_path):
    ended = how(255, False, "ERROR: failed to reproduce 'a': failed to run: a.py, exited with -9", tmp_path / "no")
    assert "ended from outside (signal 9), as the kernel does when memory runs out" in ended.said
    assert how(255, False, "ERROR: the lock is broken", tmp_path / "no").said == "ERROR: the lock is broken"


def test_relative_weights_and_photos_of_the_settings_are_seen_from_the_worktree(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "tree"
    (root / "weights" / "big").mkdir(parents=True)
    folder.mkdir()
    experiment.link(
        root, folder, {"base": {"unet": {"path": "weights/big"}}, "photos": {"path": "../elsewhere"}, "name": "a/b"}
    )
    assert (folder / "weights" / "big").resolve() == root / "weights" / "big" and not (folder / "a").exists()


def test_a_large_untracked_file_is_refused_by_name(project, monkeypatch):
    folder, _ = project
    monkeypatch.setattr(experiment, "UNTRACKED_LIMIT", 2)
    (folder / "huge.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="unknown to git"):
        experiment.untracked_files(folder)
    (folder / "huge.bin").unlink()


def test_figures_and_facts_become_tables():
    cell = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 9}
    assert artifacts.rows({"base": {"identity": cell}, "stage1": {}}) == [
        {"metric": "identity", "base": "0.25 (0.2 to 0.3)", "stage1": "-"}
    ]
    assert artifacts.rows({"a": {"b": 1.23456789}, "c": list(range(20))}) == [
        {"name": "a.b", "value": 1.2346},
        {"name": "c", "value": "20 values, 0 … 19"},
    ]


def test_stopping_ends_the_whole_group():
    child = process.start(["sh", "-c", "sleep 100 & sleep 100; true"])
    time.sleep(0.5)
    assert len(process.members(child.pid)) >= 2
    process.stop_work(child, grace=5)
    assert process.members(child.pid) == [] and child.returncode is not None
