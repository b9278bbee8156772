"""Which project a folder belongs to: the one whose `.iy/` keeps runs, weights, locks and what language models answered.

A plain clone, a submodule, a sub-folder of a larger repository, a folder without git: the folder itself. A linked
worktree: the main checkout, so that all of its worktrees share one store. A worktree of a bare repository has no main
checkout and stands for itself. A worktree that a run made says by its link `.iy` whose it is.
"""

import os
import re
from functools import cache
from pathlib import Path

from iy import git
from iy.errors import UserError

STATE = ".iy"
MISREAD = re.compile(r"\?|%[0-9a-fA-F]{2}")


def root(folder: Path | str = ".") -> Path:
    """The folder of the project that `folder`, a checkout's project folder, belongs to."""
    own = Path(folder).resolve()
    link = own / STATE
    if link.is_symlink() and (target := own / os.readlink(link)).name == STATE:
        return target.parent
    return main_checkout(own) or own


def refuse_misread(path: Path) -> None:
    """Refuse a place that the addresses of databases (sqlite:///…) name another by: MLflow and Prefect would make
    theirs beside the project, without a word."""
    if found := MISREAD.search(str(path)):
        raise UserError(
            f"{path} has {found[0]} in its name, with which MLflow and Prefect find another place: rename that folder"
        )


def state(folder: Path | str = ".") -> Path:
    """The project's `.iy/`."""
    return root(folder) / STATE


@cache
def main_checkout(folder: Path) -> Path | None:
    """The same folder in the repository's main checkout; None where this is it, or where there is none."""
    words = ("--path-format=absolute", "--git-dir", "--git-common-dir", "--show-toplevel")
    if not (told := git.ask("rev-parse", *words, folder=folder)):
        return None
    own, common, top = (Path(line).resolve() for line in told.split("\n")[:3])
    if own == common or not (main := work_tree(common)):
        return None
    return main / folder.relative_to(top)


def in_submodule(folder: Path) -> bool:
    """Whether `folder` is of a repository that is another's submodule."""
    common = git.ask("rev-parse", "--path-format=absolute", "--git-common-dir", folder=folder)
    return bool(common and git.ask("config", "--file", f"{common}/config", "core.worktree"))


def work_tree(common: Path) -> Path | None:
    """The checkout that a repository's folder was made with; None for a bare one."""
    settings = ("config", "--file", str(common / "config"))
    if git.ask(*settings, "--type=bool", "core.bare") == "true":
        return None
    if named := git.ask(*settings, "core.worktree"):  # a submodule's lies elsewhere
        return (common / named).resolve()
    return common.parent if common.name == ".git" else None
