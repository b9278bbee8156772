"""Another profile or other settings without touching the working tree: a worktree per run, which becomes an experiment.

The worktree shares DVC's cache and the main checkout's `.iy/` (MLflow store, weights, resume states), starts from the
last commit plus whatever is not committed yet, and is removed when its run is done. A cancelled one stays, and a rerun
finishes it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows import graph
from iy import params as settings
from iy.errors import UserError
from iy.storage import sha256

UNTRACKED_LIMIT = 200 * 2**20  # bytes of files that git does not know: more is a data set, not an edit


def chosen(profile: str | None, overrides: dict[str, Any], root: Path) -> settings.Params:
    """The settings of `profile` (None: params.yaml's) with `overrides` applied; a mistake is one sentence."""
    with contextlib.chdir(root):
        params = settings.load(profile)
        if not overrides:
            return params
        values = settings.read_yaml(Path("profiles", f"{params.profile}.yaml"))
        return settings.parse({"profile": params.profile, **changed(values, overrides)}, "overrides")


def changed(values: Any, overrides: dict[str, Any]) -> Any:
    """`values` with each `a.b.c` of `overrides` set in place."""
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = values
        for part in path:
            if not isinstance(place, dict):
                break
            place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UserError(f"override {key!r}: {key.rpartition('.')[0]!r} holds one value and has no keys below it")
        place[last] = value
    return values


def title(profile: str, overrides: dict[str, Any]) -> str:
    """The same choice gives the same name, so that a rerun finds what a cancelled run left."""
    if not overrides:
        return profile
    return f"{profile}-{sha256(json.dumps([sorted(overrides.items())], default=str).encode())[:8]}"


def git(root: Path, *arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["git", "-C", str(root), *arguments], input=data, capture_output=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    return done.stdout


@contextlib.contextmanager
def alone(root: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Wait for other runs in the same folder: two at once would write the same files."""
    path = root / ".iy" / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is working on {name!r}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def worktree(
    root: Path, name: str, profile: str, overrides: dict[str, Any], say: Callable[[str], None]
) -> Iterator[Path]:
    """The folder to run in; removed when the block ends well, kept for a rerun when it does not."""
    with alone(root, name, say):
        folder = root / ".iy" / "experiments" / name
        start = beginning(root, profile, overrides)
        if not resumable(folder, start):
            create(root, folder, profile, overrides, start)
        else:
            say(f"continuing in {folder.relative_to(root)}, left by a run that did not finish")
        try:
            yield folder
        except BaseException:
            say(f"kept {folder.relative_to(root)}: run the same again and it continues there")
            raise
        remove(root, folder)


def beginning(root: Path, profile: str, overrides: dict[str, Any]) -> str:
    """A hash of all that a worktree starts from: commit, uncommitted changes, choice."""
    untracked = [(path, sha256((root / path).read_bytes())) for path in untracked_files(root) if path != "dvc.lock"]
    return sha256(
        json.dumps(
            [
                git(root, "rev-parse", "HEAD").decode(),
                sha256(git(root, "diff", "HEAD", "--binary")),
                untracked,
                profile,
                sorted(overrides.items()),
            ],
            default=str,
        ).encode()
    )


def untracked_files(root: Path) -> list[str]:
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
    files = sorted(path for path in listed if path and (root / path).is_file() and not path.startswith(".iy"))
    if (size := sum((root / path).stat().st_size for path in files)) > UNTRACKED_LIMIT:
        raise UserError(
            f"{size / 2**20:.0f} MB of files here are unknown to git ({files[0]} ...): commit them, name them in "
            ".gitignore or move them out, then run again"
        )
    return files


def resumable(folder: Path, start: str) -> bool:
    mark = folder / ".dvc" / "tmp" / "started-from"
    return mark.exists() and mark.read_text() == start


def create(root: Path, folder: Path, profile: str, overrides: dict[str, Any], start: str) -> None:
    """A fresh worktree at HEAD with the main checkout's uncommitted changes and the chosen settings."""
    if not (root / ".git").exists():
        raise UserError(
            f"{root} is not a git checkout: another profile or other settings run in a git worktree, "
            "so `git init` and commit first"
        )
    remove(root, folder)
    with alone(root, "git", lambda line: None):
        git(root, "worktree", "prune")
        git(root, "worktree", "add", "--force", "--detach", str(folder), "HEAD")
    if difference := git(root, "diff", "HEAD", "--binary"):
        git(folder, "apply", "--whitespace=nowarn", "-", data=difference)
    for path in untracked_files(root):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, folder / path)
    (folder / ".iy").symlink_to(root / ".iy")
    share_cache(root, folder)
    edit(folder, profile, overrides, root)
    link(root, folder, settings.read_yaml(folder / "profiles" / f"{profile}.yaml"))
    mark = folder / ".dvc" / "tmp" / "started-from"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(start)


def share_cache(root: Path, folder: Path) -> None:
    """Same cache, same remotes and secrets as the main checkout."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
    if (local := root / ".dvc" / "config.local").exists():
        shutil.copy2(local, folder / ".dvc" / "config.local")
    subprocess.run(
        [sys.executable, "-m", "dvc", "config", "--local", "cache.dir", cache],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def edit(folder: Path, profile: str, overrides: dict[str, Any], root: Path) -> None:
    """Write the choice into the worktree's params.yaml and profile, keeping comments and order."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    for path, changes in (
        (folder / "params.yaml", {"profile": profile}),
        (folder / "profiles" / f"{profile}.yaml", absolute(overrides, root)),
    ):
        value = yaml.load(path)
        before = json.dumps(value, default=str)
        if json.dumps(changed(value, changes), default=str) != before:
            with path.open("w", encoding="utf-8") as file:
                yaml.dump(value, file)


def link(root: Path, folder: Path, values: Any) -> None:
    """Weights and photos that the settings name and git ignores: seen from the worktree as from the main checkout."""
    if isinstance(values, dict):
        for value in values.values():
            link(root, folder, value)
    elif isinstance(values, str) and "/" in values and ".." not in values and not values.startswith("/"):
        if (root / values).exists() and not (folder / values).exists():
            (folder / values).parent.mkdir(parents=True, exist_ok=True)
            (folder / values).symlink_to(root / values)


def absolute(overrides: dict[str, Any], root: Path) -> dict[str, Any]:
    """A relative folder of photographs means one seen from the main checkout."""
    path = overrides.get("photos.path")
    return (
        overrides
        if not isinstance(path, str) or "://" in path
        else {**overrides, "photos.path": str((root / Path(path).expanduser()).resolve())}
    )


def save(root: Path, folder: Path, name: str) -> None:
    """Record the finished worktree as DVC experiment `name` on the main checkout's commit."""
    with alone(root, "git", lambda line: None):  # git's references are shared between worktrees
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "save", "--force", "--name", name],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise UserError(f"dvc exp save: {(done.stderr.strip() or 'failed').splitlines()[0]}")


def bring(root: Path, folder: Path) -> list[str]:
    """Move outputs that the main checkout has none of (another profile's folders) there; its own stay as they are."""
    own, moved = set(graph.outputs(root)), []
    for out in graph.outputs(folder):
        if out in own or not (folder / out).exists():
            continue
        target = root / out
        target.parent.mkdir(parents=True, exist_ok=True)
        discard(target)
        os.replace(folder / out, target)
        moved.append(out)
    return moved


def discard(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def remove(root: Path, folder: Path) -> None:
    if (link := folder / ".iy").is_symlink():
        link.unlink()  # never follow it: it is the main checkout's own
    with alone(root, "git", lambda line: None):
        subprocess.run(["git", "-C", str(root), "worktree", "remove", "--force", str(folder)], capture_output=True)
        if folder.exists():
            shutil.rmtree(folder)
        git(root, "worktree", "prune")
