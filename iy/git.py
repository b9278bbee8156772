"""The one way to git: plumbing whose answer no setting, hook, pager, filter for the eye or environment changes.

The user's own configuration stays in force where it says what files are (line endings, Git LFS, ignored names, which
folders are safe): only what is taste is overruled. Names and contents are bytes until somebody decodes them.
"""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from iy.errors import UserError
from iy.storage import alive

# Settings that run programs or change what a command does; no plumbing command ignores them by itself.
OVERRULED = (
    "core.hooksPath=/dev/null",  # post-checkout runs after `worktree add`
    "core.fsmonitor=false",
    "core.splitIndex=false",  # the temporary index below would write shared parts into the repository
    "submodule.recurse=false",
    "color.ui=false",
)
# What hooks and aliases leave in the environment; `-C` must decide which repository is meant, and no tool compares.
REMOVED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_EXTERNAL_DIFF",
    "GIT_DIFF_OPTS",
)
ASIDE = "iy-index-"  # and the process that it is for
SECONDS = 600  # a large worktree on a slow disk; nothing here talks to a network


def call(*arguments: str, folder: Path | str = ".", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """`git ARGUMENTS` in `folder`, as bytes; OSError where there is no git."""
    settings = [word for one in OVERRULED for word in ("-c", one)]
    kept = {key: value for key, value in os.environ.items() if key not in REMOVED}
    steady = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        ["git", "--no-pager", "-C", str(folder), *settings, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**kept, **steady, **variables},
        timeout=SECONDS,
    )


def ask(*arguments: str, folder: Path | str = ".") -> str | None:
    """The answer without its last newline; None where there is no git, no repository or no such thing."""
    try:
        done = call(*arguments, folder=folder)
    except (OSError, subprocess.TimeoutExpired):
        return None
    refuse_distrust(done.stderr)
    return os.fsdecode(done.stdout).removesuffix("\n") if done.returncode == 0 else None


def refuse_distrust(said: bytes) -> None:
    """A folder of another user (a container's, a shared disk's) is no folder without git, though git will not read it:
    without a word its runs would name no commit, and its worktrees would keep stores of their own."""
    if b"dubious ownership" in said:
        folder = os.fsdecode(said.partition(b" at '")[2].partition(b"'")[0])
        raise UserError(
            f"git does not read {folder}, which is another user's: trust it with "
            f"`git config --global --add safe.directory {shlex.quote(folder)}`, then run again"
        )


def run(*arguments: str, folder: Path | str = ".", **variables: str) -> bytes:
    """What git says; a failure is its own last line."""
    try:
        done = call(*arguments, folder=folder, **variables)
    except OSError as error:
        raise UserError(f"git cannot be started ({error.strerror}): install it, then run again") from None
    if done.returncode:
        refuse_distrust(done.stderr)
        last = (done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"git {arguments[0]}: {last}")
    return done.stdout


def commit(folder: Path | str = ".") -> str | None:
    """The commit that is checked out."""
    return ask("rev-parse", "--verify", "HEAD", folder=folder)


def changed(folder: Path | str = ".") -> bool:
    """Whether files that git knows differ from the last commit."""
    if not commit(folder):
        return False
    return tree(folder) != ask("rev-parse", "HEAD^{tree}", folder=folder)


def tree(folder: Path | str = ".") -> str:
    """The id of a tree that holds every file git knows as it lies in the folder now. The index stays as it is.

    A tree, not a patch: modes, links, binary files and names of any bytes are in it as they are, and nothing that
    shows differences to people has a part in it.
    """
    words = ("--path-format=absolute", "--show-toplevel", "--git-path", "index")
    top, index = os.fsdecode(run("rev-parse", *words, folder=folder)).removesuffix("\n").split("\n")
    with copied(Path(index)) as copy:
        run("add", "--update", folder=top, GIT_INDEX_FILE=str(copy))
        return run("write-tree", folder=top, GIT_INDEX_FILE=str(copy)).decode().strip()


@contextlib.contextmanager
def copied(index: Path) -> Iterator[Path]:
    """A copy of git's index beside it, for this process alone; what killed processes left there goes."""
    for left in index.parent.glob(f"{ASIDE}*"):
        if not alive(int(left.name.removeprefix(ASIDE).partition(".")[0])):
            left.unlink(missing_ok=True)
    copy = index.with_name(f"{ASIDE}{os.getpid()}")
    if index.exists():
        copy.write_bytes(index.read_bytes())
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def untracked(folder: Path | str = ".") -> list[str]:
    """Files below `folder` that git neither knows nor ignores, relative to it."""
    listed = run("ls-files", "--others", "--exclude-standard", "-z", folder=folder)
    return sorted(os.fsdecode(path) for path in listed.split(b"\0") if path)
