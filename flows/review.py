"""`select.review: required`: the run stops before stage select, Paused in Prefect, until people have judged.

The page with its photos and pairs is served meanwhile, on this machine; the run goes on by itself with the last
judgement. It may be cancelled, or killed and started again: judgements are kept.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from prefect import State, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Paused, Running

from flows import process
from flows.stage import environment
from iy.errors import UserError
from iy.params import Params
from iy.review.place import address, log_path

SECONDS = 2.0  # between looks at the log
PATIENCE = 365 * 86400  # seconds until Prefect calls a paused run failed


def wait(folder: Path, settings: Params) -> None:
    """Until nothing is left to judge; then write the decisions, which select reads."""
    file, said = settings.select.decided(), ask(folder, settings, "left")
    if said.returncode:
        with served(folder, settings):
            pause(said.stdout.strip())
            until_judged(folder, settings)
            propose(Running())
    exported = ask(folder, settings, "export", file)
    if exported.returncode:
        raise UserError(exported.stderr.strip().removeprefix("error: "))
    get_run_logger().info(exported.stdout.strip())


def until_judged(folder: Path, settings: Params) -> None:
    log, seen = folder / log_path(settings.profile), None
    while True:
        changed = log.stat().st_mtime_ns if log.exists() else None
        if changed != seen:
            seen, said = changed, ask(folder, settings, "left")
            if not said.returncode:
                return
        if resumed():
            pause(ask(folder, settings, "left").stdout.strip())
        time.sleep(SECONDS)


def pause(left: str) -> None:
    words = f"waiting for people: {left}; judge them on {address()}"
    get_run_logger().info(words)
    propose(Paused(timeout_seconds=PATIENCE, message=words))


def propose(state: State) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, state, force=True)


def resumed() -> bool:
    """Did somebody press Resume?"""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run.id).state
    return state is not None and state.is_running()


@contextlib.contextmanager
def served(folder: Path, settings: Params) -> Iterator[None]:
    """The review's page, unless somebody has it open already."""
    create_link_artifact(
        address(), link_text="judge photos and pairs", key="review", description="Stage select waits for this"
    )
    page = process.start(
        process.python("iy", "review", "--profile", settings.profile), cwd=folder, env=environment(folder, None)
    )
    try:
        yield
    finally:
        process.stop_work(page)
        page.terminate()
        page.wait()


def ask(folder: Path, settings: Params, *words: str) -> subprocess.CompletedProcess:
    """`iy review WORDS`, in the run's own folder: a worktree has its own data."""
    command = process.python("iy", "review", *words, "--profile", settings.profile)
    done = subprocess.run(command, cwd=folder, env=environment(folder, None), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise UserError(done.stderr.strip().removeprefix("error: ") or f"iy review {words[0]} failed")
    return done
