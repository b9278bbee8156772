"""One store whatever kind of checkout the project is, with real git and DVC; what is not supported says so by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import experiment, place
from iy import project
from iy.errors import UserError
from tests import toy_project
from tests.depth import depth


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def clone(made: Path, toy: Path) -> Path:
    git(made, "clone", "-q", str(toy), "clone")
    return made / "clone"


def linked(made: Path, toy: Path) -> Path:
    git(clone(made, toy), "worktree", "add", "-q", "-b", "feature", str(made / "linked"))
    return made / "linked"


def submodule(made: Path, toy: Path) -> Path:
    git(made, "init", "-q", "above")
    git(made / "above", "submodule", "add", "-q", str(toy), "libs/toy")
    return made / "above" / "libs" / "toy"


def of_a_submodule(made: Path, toy: Path) -> Path:
    git(submodule(made, toy), "worktree", "add", "-q", "-b", "feature", str(made / "linked"))
    return made / "linked"


def of_a_bare_one(made: Path, toy: Path) -> Path:
    git(made, "clone", "-q", "--bare", str(toy), "bare.git")
    git(made / "bare.git", "worktree", "add", "-q", "-b", "feature", str(made / "linked"))
    return made / "linked"


def sub_folder(made: Path, toy: Path) -> Path:
    own = made / "large" / "models" / "toy"
    shutil.copytree(toy, own, ignore=shutil.ignore_patterns(".git", ".iy", ".dvc", "__pycache__"))
    git(made, "init", "-q", "large")
    toy_project.run(own, sys.executable, "-m", "dvc", "init", "-q", "--subdir")
    git(made / "large", "add", "-A")
    git(made / "large", "commit", "-qm", "large")
    return own


def without_git(made: Path, toy: Path) -> Path:
    shutil.copytree(toy, made / "plain", ignore=shutil.ignore_patterns(".git", ".iy", ".dvc", "__pycache__"))
    toy_project.run(made / "plain", sys.executable, "-m", "dvc", "init", "-q", "--no-scm")
    return made / "plain"


KINDS = {  # the kind, and where its store lies below the folder in which it is made
    clone: "clone",
    linked: "clone",
    submodule: "above/libs/toy",
    of_a_submodule: "above/libs/toy",
    of_a_bare_one: "linked",
    sub_folder: "large/models/toy",
    without_git: "plain",
}


TASTE = ("commit.gpgSign=true", "gpg.program=false", "diff.noprefix=true", "color.ui=always", "core.hooksPath=hooks")


REFUSED = {  # no experiments there
    without_git: "is not a git checkout",
    submodule: "is a git submodule, and DVC keeps no experiments of one",
    of_a_submodule: "is a git submodule",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return toy_project.make(tmp_path_factory.mktemp("project") / "toy", steps=2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_flows_stages_and_worktrees_agree_on_one_store(kind, toy, tmp_path):
    made = kind(tmp_path, toy)
    state = (tmp_path / KINDS[kind]).resolve() / ".iy"
    assert project.state(made) == state
    assert project.state(made) == Path(asked("from iy import project; print(project.state())", made))
    uri = asked("from iy.tracking.store import tracking_uri; print(tracking_uri())", made)
    assert uri == f"sqlite:///{state}/mlflow.db"
    if kind in REFUSED:
        with pytest.raises(UserError, match=REFUSED[kind]):
            experiment.possible(made)
        return
    experiment.possible(made)
    experiment.check_out(made, tmp_path / "run")
    within = tmp_path / "run" / experiment.inside(made)
    (within / ".iy").symlink_to(state)
    assert (within / "dvc.yaml").exists() and project.state(within) == state
    experiment.remove(made, tmp_path / "run")


def asked(code: str, folder: Path) -> str:
    return toy_project.run(folder, sys.executable, "-c", code).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("kind", depth([sub_folder], [of_a_bare_one, sub_folder]), ids=lambda kind: kind.__name__)
def test_a_run_with_other_settings_works_there_and_leaves_its_experiment(kind, toy, tmp_path):
    made = kind(tmp_path, toy)
    for hook in ("pre-commit", "post-checkout", "commit-msg"):
        (made / "hooks").mkdir(exist_ok=True)
        (made / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
        (made / "hooks" / hook).chmod(0o755)
    (made / "new.txt").write_text("git does not know it")
    for setting in TASTE:
        git(made, "config", *setting.split("="))
    done = toy_project.run(made, sys.executable, "-m", "flows", "--stage", "curate", "--set", "seed=5")
    name = experiment.title("studio", {"seed": 5})
    assert f"saved as DVC experiment {name!r}" in done.stdout + done.stderr
    said = toy_project.run(made, sys.executable, "-m", "dvc", "exp", "apply", name, check=False).stderr
    assert "data/studio/finetune1" in said and "data/studio/curate" not in said, "that was not asked for"
    assert json.loads((made / "data/studio/curate/out.json").read_text())["seed"] == 5
    state = tmp_path / KINDS[kind] / ".iy"
    assert (state / "prefect").is_dir() and not list((state / "experiments").iterdir())


@pytest.mark.slow
def test_a_run_without_git_works_in_place(toy, tmp_path):
    made = without_git(tmp_path, toy)
    toy_project.run(made, sys.executable, "-m", "flows", "--stage", "photos")
    assert (made / "data/studio/photos/out.json").exists()
    done = toy_project.run(made, sys.executable, "-m", "flows", "--set", "seed=5", check=False)
    assert done.returncode == 2 and "is not a git checkout" in done.stderr and done.stderr.count("\n") == 1


def test_what_is_no_dvc_project_of_its_own_is_told_by_name(toy, tmp_path):
    own = tmp_path / "large" / "own"
    own.mkdir(parents=True)
    with pytest.raises(UserError, match=r"own is no DVC project: `dvc init`"):
        place.supported(own)
    (tmp_path / "large" / ".dvc").mkdir()
    with pytest.raises(UserError, match=r"lies inside the DVC project .*large, .*`dvc init --subdir`"):
        place.supported(own)


def test_a_worktree_of_a_submodule_is_told_by_name_and_the_submodule_itself_works(toy, tmp_path):
    (tmp_path / "a").mkdir()
    made = of_a_submodule(tmp_path, toy)
    with pytest.raises(UserError, match="is a worktree of a git submodule, in which DVC does not work"):
        place.supported(made)
    own = submodule(tmp_path / "a", toy)
    place.supported(own)
    (own / ".iy").mkdir()
    toy_project.run(own, sys.executable, "-m", "dvc", "repro", "photos")
    assert (own / "data/studio/photos/out.json").exists()


def test_a_state_folder_on_another_disk_stays_this_projects(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "own").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "own" / ".iy")
    assert project.state(tmp_path / "own") == tmp_path / "own" / ".iy"
