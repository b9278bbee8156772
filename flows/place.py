"""Where a run works and what it is called: in the project, or in a worktree that becomes a DVC experiment."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import experiment, locks
from iy import params, project
from iy.errors import UserError
from iy.storage import sha256

DEFAULT = "params.yaml"  # the choice that leaves the profile to params.yaml
NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Place:
    """`home`, the checkout that was asked; `folder`, where the run works (`home` or a worktree); the settings; the
    name of the experiment that it becomes (None in place)."""

    home: Path
    folder: Path
    settings: params.Params
    name: str | None

    @property
    def state(self) -> Path:
        return project.state(self.home)


def chosen(profile: str | None, overrides: dict[str, Any], home: Path) -> tuple[params.Params, bool]:
    """The settings, and whether they are the very ones that params.yaml and its profile state."""
    settings = experiment.chosen(profile, overrides, home)
    return settings, not overrides and settings.profile == experiment.chosen(None, {}, home).profile


@contextlib.contextmanager
def place(profile: str | None, overrides: dict[str, Any], say: Callable[[str], None]) -> Iterator[Place]:
    """The place, which no other run works in meanwhile."""
    home = Path.cwd()
    settings, in_place = chosen(profile, overrides, home)
    if in_place:
        lock = project.state(home) / "locks" / f"workspace-{sha256(str(home).encode())[:8]}.lock"
        with locks.held(lock, f"the project folder {home}", say):
            yield Place(home=home, folder=home, settings=settings, name=None)
        return
    name = experiment.title(settings.profile, overrides)
    with experiment.worktree(home, name, settings.profile, overrides, say) as folder:
        yield Place(home=home, folder=folder, settings=settings, name=name)


def supported(home: Path) -> None:
    """Refuse, by name, a folder that DVC would take for a part of something larger."""
    project.refuse_misread(home)
    if project.in_submodule(home) and project.main_checkout(home):
        raise UserError(
            f"{home} is a worktree of a git submodule, in which DVC does not work: clone it, then run there"
        )
    if (home / ".dvc").is_dir():
        return
    above = next((folder for folder in home.parents if (folder / ".dvc").is_dir()), None)
    if above:
        raise UserError(
            f"{home} lies inside the DVC project {above}, which would keep its runs: make it a project of its own with "
            "`dvc init --subdir` here, then run again"
        )
    raise UserError(f"{home} is no DVC project: `dvc init` (without git: `dvc init --no-scm`) here, then run again")


def called(profile: str | None, photos: str, overrides: dict[str, Any]) -> str:
    """A run's name in Prefect: `studio, photos /home/ana/family, seed=5`."""
    said = {key: value for key, value in overrides.items() if not key.startswith("photos.")}
    where = photos or overrides.get("photos.path") or ""
    parts = [named(profile), f"photos {where}" if where else "", *(f"{key}={value}" for key, value in said.items())]
    return ", ".join(filter(None, parts))[:NAME_LENGTH]


def named(profile: str | None) -> str:
    """The profile's own name, also where the choice was left to params.yaml."""
    if profile and profile != DEFAULT:
        return profile
    try:
        return str(params.read_yaml(Path("params.yaml"))["profile"])
    except (UserError, KeyError, TypeError):
        return DEFAULT
