"""Another profile or other settings without touching the working tree: a worktree per run, which becomes an experiment.

The worktree shares DVC's cache and the project's `.iy/` (MLflow store, weights, resume states), starts from the
last commit plus whatever is not committed yet, and is removed when its run is done. A cancelled one stays, and a rerun
finishes it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows import graph, locks
from iy import git, params, project
from iy.errors import UserError, one_line
from iy.overrides import changed
from iy.storage import file_sha256, sha256

UNTRACKED_LIMIT = 200 * 2**20  # bytes of files that git does not know: more is a data set, not an edit


def chosen(profile: str | None, overrides: dict[str, Any], home: Path) -> params.Params:
    """The settings of `profile` (None: params.yaml's) with `overrides` applied; a mistake is one sentence."""
    with contextlib.chdir(home):
        settings = params.load(profile)
        if not overrides:
            return settings
        values = params.read_yaml(Path("profiles", f"{settings.profile}.yaml"))
        return params.parse({"profile": settings.profile, **changed(values, overrides)}, "overrides")


def title(profile: str, overrides: dict[str, Any]) -> str:
    """The same choice gives the same name, so that a rerun finds what a cancelled run left."""
    if not overrides:
        return profile
    return f"{profile}-{sha256(json.dumps([sorted(overrides.items())], default=str).encode())[:8]}"


def alone(home: Path, what: str, say: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """Wait for other runs in the same folder, or at git's references: two at once would write the same files."""
    return locks.held(project.state(home) / "locks" / f"{what}.lock", repr(what), say)


def quietly(line: str) -> None:
    """For waits of less than a second."""


@contextlib.contextmanager
def worktree(
    home: Path, name: str, profile: str, overrides: dict[str, Any], say: Callable[[str], None]
) -> Iterator[Path]:
    """The folder to run in; removed when the block ends well, kept for a rerun when it does not."""
    with alone(home, name, say):
        top = project.state(home) / "experiments" / name
        folder = top / inside(home)
        start = beginning(home, profile, overrides)
        if not resumable(folder, start):
            create(home, top, profile, overrides, start)
        else:
            say(f"continuing in {top.name}, left by a run that did not finish ({folder})")
        try:
            yield folder
        except BaseException:
            say(f"kept {folder}: run the same again and it continues there")
            raise
        remove(home, top)


def possible(home: Path) -> None:
    """Refuse what no worktree can be made of."""
    if git.ask("rev-parse", "--is-inside-work-tree", folder=home) != "true":
        raise UserError(
            f"{home} is not a git checkout: another profile or other settings run in a git worktree, "
            "so `git init` and commit first"
        )
    if project.in_submodule(home):
        raise UserError(
            f"{home} is a git submodule, and DVC keeps no experiments of one: another profile or other settings need a "
            "clone of its own; or write them into params.yaml and profiles/, which run in place"
        )
    if not git.commit(home):
        raise UserError(f"{home} has no commit yet: another profile or other settings start from one, so commit first")


def inside(home: Path) -> str:
    """Where the project lies in its repository: "." unless it is a sub-folder of a larger one."""
    return git.ask("rev-parse", "--show-prefix", folder=home) or "."


def beginning(home: Path, profile: str, overrides: dict[str, Any]) -> str:
    """A hash of all that a worktree starts from: commit, uncommitted changes, choice."""
    untracked = [(path, file_sha256(home / path)) for path in untracked_files(home) if path != "dvc.lock"]
    parts = [git.commit(home), git.tree(home), untracked, profile, sorted(overrides.items())]
    return sha256(json.dumps(parts, default=str).encode())


def untracked_files(home: Path) -> list[str]:
    files = [path for path in git.untracked(home) if (home / path).is_file() and path.split("/")[0] != project.STATE]
    if (size := sum((home / path).stat().st_size for path in files)) > UNTRACKED_LIMIT:
        raise UserError(
            f"{size / 2**20:.0f} MB of files here are unknown to git ({files[0]} ...): commit them, name them in "
            ".gitignore or move them out, then run again"
        )
    return files


def resumable(folder: Path, start: str) -> bool:
    mark = folder / ".dvc" / "tmp" / "started-from"
    return mark.exists() and mark.read_text() == start


def create(home: Path, top: Path, profile: str, overrides: dict[str, Any], start: str) -> None:
    """A fresh worktree at HEAD with the checkout's uncommitted changes and the chosen settings."""
    remove(home, top)
    check_out(home, top)
    folder = top / inside(home)
    (folder / project.STATE).symlink_to(project.state(home))
    share_cache(home, folder)
    edit(folder, profile, overrides, home)
    link(home, folder, params.read_yaml(folder / "profiles" / f"{profile}.yaml"))
    mark = folder / ".dvc" / "tmp" / "started-from"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(start)


def check_out(home: Path, top: Path) -> None:
    """A worktree at HEAD whose files are as they are in the checkout."""
    now = git.tree(home)
    with alone(home, "git", quietly):
        git.run("worktree", "prune", folder=home)
        git.run("worktree", "add", "--force", "--detach", str(top), "HEAD", folder=home)
    git.run("read-tree", "-m", "-u", "HEAD", now, folder=top)  # files as they are in the checkout …
    git.run("read-tree", "HEAD", folder=top)  # … and, as there, uncommitted
    for path in untracked_files(home):
        target = top / inside(home) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(home / path, target)


def share_cache(home: Path, folder: Path) -> None:
    """Same cache, same remotes and secrets as the project.

    The cache's place is relative: DVC writes its settings in ASCII, and a home may be called otherwise.
    """
    from dvc.repo import Repo

    with Repo(str(home)) as repo:
        cache = repo.cache.local_cache_dir
    if (local := home / ".dvc" / "config.local").exists():
        shutil.copy2(local, folder / ".dvc" / "config.local")
    place = os.path.relpath(Path(cache).resolve(), folder.resolve())
    words = ["dvc", "config", "--local", "cache.dir", place]
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError(f"DVC's cache {cache} cannot be named in {folder}: {one_line(done.stderr)}")


def edit(folder: Path, profile: str, overrides: dict[str, Any], home: Path) -> None:
    """Write the choice into the worktree's params.yaml and profile, keeping comments and order."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    for path, changes in (
        (folder / "params.yaml", {"profile": profile}),
        (folder / "profiles" / f"{profile}.yaml", absolute(overrides, home)),
    ):
        value = yaml.load(path)
        before = json.dumps(value, default=str)
        if json.dumps(changed(value, changes), default=str) != before:
            with path.open("w", encoding="utf-8") as file:
                yaml.dump(value, file)


def link(home: Path, folder: Path, values: Any) -> None:
    """Weights and photos that the settings name and git ignores: seen from the worktree as from the project."""
    if isinstance(values, dict):
        for value in values.values():
            link(home, folder, value)
    elif isinstance(values, str) and "/" in values and ".." not in values and not values.startswith("/"):
        if (home / values).exists() and not (folder / values).exists():
            (folder / values).parent.mkdir(parents=True, exist_ok=True)
            (folder / values).symlink_to(home / values)


def absolute(overrides: dict[str, Any], home: Path) -> dict[str, Any]:
    """A relative folder of photographs means one seen from the project."""
    path = overrides.get("photos.path")
    return (
        overrides
        if not isinstance(path, str) or "://" in path
        else {**overrides, "photos.path": str((home / Path(path).expanduser()).resolve())}
    )


def save(home: Path, folder: Path, name: str, stages: list[str]) -> None:
    """Record the finished worktree as DVC experiment `name` on the checkout's commit, with what these stages wrote."""
    # DVC adds a dvc.lock that git does not know by itself, but not in a sub-folder of a larger repository.
    lock = ["--include-untracked", "dvc.lock"] if inside(home) != "." and "dvc.lock" in git.untracked(folder) else []
    with alone(home, "git", quietly):  # git's references are shared between worktrees
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "save", "--force", "--name", name, *lock, *stages],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise UserError(f"dvc exp save: {(done.stderr.strip() or 'failed').splitlines()[0]}")


def bring(home: Path, folder: Path) -> list[str]:
    """Move outputs that the project has none of (another profile's folders) there; its own stay as they are."""
    own, moved = set(graph.outputs(home)), []
    for out in graph.outputs(folder):
        if out in own or not (folder / out).exists():
            continue
        target = home / out
        target.parent.mkdir(parents=True, exist_ok=True)
        discard(target)
        os.replace(folder / out, target)
        moved.append(out)
    return moved


def discard(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def remove(home: Path, top: Path) -> None:
    link = top / inside(home) / project.STATE
    if link.is_symlink():
        link.unlink()  # never follow it: it is the project's own
    with alone(home, "git", quietly):
        # Twice --force: one that was killed while it was made is locked.
        git.ask("worktree", "remove", "--force", "--force", str(top), folder=home)
        if top.exists():
            shutil.rmtree(top)
        git.run("worktree", "prune", folder=home)
