"""One way to git: what it answers does not depend on anybody's taste, hooks, environment or the names of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import experiment
from iy import git
from iy.errors import UserError
from tests import toy_project

ODD = os.fsdecode(b"caf\xe9.txt")  # Latin-1: no UTF-8


def plain(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True)
    return os.fsdecode(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A toy project with one file of every kind changed since its commit, and one that git does not know."""
    made = toy_project.make(tmp_path / "toy")
    for name, data in (("text.txt", b"one\n"), ("data.bin", bytes(range(256))), (ODD, b"a\n"), ("gone.txt", b"x\n")):
        (made / name).write_bytes(data)
    (made / ".gitattributes").write_text("*.bin diff=shown\n*.txt diff=shown\n")
    plain(made, "add", "-A")
    plain(made, "commit", "-qm", "files")
    (made / "text.txt").write_bytes(b"one\ntwo  \n")
    (made / "data.bin").write_bytes(bytes(range(255, -1, -1)))
    (made / ODD).write_bytes(b"b\n")
    (made / "gone.txt").unlink()
    (made / "link").symlink_to("text.txt")
    plain(made, "add", "link")
    (made / "text.txt").chmod(0o755)
    (made / os.fsdecode(b"neu\xff")).write_bytes(b"unknown to git\n")
    return made


TASTES = [
    {},
    {"diff.noprefix": "true"},
    {"diff.mnemonicPrefix": "true"},
    {"color.ui": "always", "color.diff": "always"},
    {"diff.external": "true"},
    {"diff.shown.textconv": "rev", "diff.shown.command": "false"},
    {"core.pager": "false", "pager.diff": "true"},
    {"diff.context": "0", "diff.algorithm": "patience", "diff.renames": "copies"},
    {"apply.whitespace": "error-all", "core.whitespace": "trailing-space"},
    {"status.showUntrackedFiles": "no", "core.quotePath": "false"},
    {"submodule.recurse": "true", "diff.ignoreSubmodules": "all"},
    {"core.fsmonitor": "false", "core.untrackedCache": "true", "index.version": "4"},
]


@pytest.mark.parametrize("taste", TASTES, ids=lambda taste: ",".join(taste) or "none")
def test_a_worktree_gets_every_change_whatever_somebody_has_set(folder, taste, monkeypatch, tmp_path):
    for key, value in taste.items():
        plain(folder, "config", key, value)
    before = plain(folder, "status", "--porcelain", "-z", "-uall")
    made = tmp_path / "tree"
    experiment.check_out(folder, made)
    for name in ("text.txt", "data.bin", ODD, "link", os.fsdecode(b"neu\xff")):
        assert (made / name).read_bytes() == (folder / name).read_bytes(), name
    assert not (made / "gone.txt").exists() and (made / "link").is_symlink()
    assert os.access(made / "text.txt", os.X_OK)
    assert plain(folder, "status", "--porcelain", "-z", "-uall") == before, (
        "the checkout and its index stay as they are"
    )
    assert not list((folder / ".git").glob("iy-*"))
    experiment.remove(folder, made)
    assert not made.exists() and plain(folder, "worktree", "list").count("\n") == 1


def test_hooks_and_the_environment_of_hooks_change_nothing(folder, monkeypatch, tmp_path):
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\nexit 1\n")
    hook.chmod(0o755)
    other = tmp_path / "other"
    plain(tmp_path, "init", "-q", str(other))
    before = git.tree(folder)
    for name, value in (("GIT_DIR", f"{other}/.git"), ("GIT_INDEX_FILE", "x"), ("GIT_EXTERNAL_DIFF", "true")):
        monkeypatch.setenv(name, value)
    assert git.tree(folder) == before and git.changed(folder)
    experiment.check_out(folder, tmp_path / "tree")
    assert not (tmp_path / "tree" / "ran").exists() and (tmp_path / "tree" / "text.txt").read_bytes() == b"one\ntwo  \n"


def test_a_worktree_that_was_killed_while_it_was_made_is_made_again(folder, tmp_path):
    made = tmp_path / "tree"
    plain(folder, "worktree", "add", "-q", "--detach", str(made))
    plain(folder, "worktree", "lock", "--reason", "initializing", str(made))
    (folder / ".git" / "iy-index-4194304").write_bytes(b"of a process that is gone")
    experiment.create(folder, made, "studio", {"seed": 5}, "start")
    assert experiment.resumable(made, "start") and not list((folder / ".git").glob("iy-index-*"))


def test_unchanged_is_unchanged_though_times_differ(folder):
    plain(folder, "add", "-A")
    plain(folder, "commit", "-qm", "all")
    assert not git.changed(folder)
    os.utime(folder / "text.txt", (1, 1))
    assert not git.changed(folder) and git.tree(folder) == plain(folder, "rev-parse", "HEAD^{tree}").strip()


def test_a_folder_that_git_does_not_trust_is_told_with_the_way_out(folder, monkeypatch, tmp_path):
    """Another user's, as in containers: git says so of every folder when it is told to assume it."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for asked in (git.commit, git.changed, experiment.possible):
        with pytest.raises(UserError, match=rf"`git config --global --add safe.directory {folder}`"):
            asked(folder)
    plain(tmp_path, "config", "--global", "--add", "safe.directory", str(folder))
    assert git.commit(folder)


def test_a_taste_that_ignores_lock_files_does_not_reach_dvcs(tmp_path, root):
    plain(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_bytes((root / ".gitignore").read_bytes())
    (tmp_path / "taste").write_text("*.lock\n")
    plain(tmp_path, "config", "core.excludesFile", str(tmp_path / "taste"))
    assert git.ask("check-ignore", "other.lock", folder=tmp_path) == "other.lock"
    assert git.ask("check-ignore", "dvc.lock", folder=tmp_path) is None


def test_an_experiment_shares_dvcs_cache_in_a_home_of_any_name(tmp_path):
    home = toy_project.make(tmp_path / "zoé #1" / "toy")
    experiment.create(home, made := home / ".iy" / "experiments" / "one", "studio", {"seed": 5}, "start")
    told = toy_project.run(made, sys.executable, "-m", "dvc", "cache", "dir").stdout.strip()
    assert (made / told).resolve() == home / ".dvc" / "cache"


def test_where_there_is_no_git_or_no_commit_it_says_so(tmp_path, monkeypatch):
    assert git.commit(tmp_path) is None and not git.changed(tmp_path)
    with pytest.raises(UserError, match="is not a git checkout"):
        experiment.possible(tmp_path)
    plain(tmp_path, "init", "-q")
    with pytest.raises(UserError, match="has no commit yet"):
        experiment.possible(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.commit(tmp_path) is None
    with pytest.raises(UserError, match="git cannot be started"):
        git.run("rev-parse")
