"""What `iy run` does: checks first, one line when something is wrong, the run in Prefect, and where to look."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from flows import environment, experiment, graph, locks, orphans, place, server, turn
from iy import erased, faces
from iy.device import choose_device
from iy.errors import UserError
from iy.overrides import read
from iy.photos.own import own_photos, stated
from iy.synpairs import models

SECONDS_TO_END = 30.0  # a training may save its state (20 s), and Prefect may hear of it


def run(
    profile: str | None = None,
    photos: str | None = None,
    changes: list[str] | None = None,
    stage: str | None = None,
    force: bool = False,
) -> int:
    """The exit code of a run with `changes` of the form KEY=VALUE."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        code = checked(profile, overrides(photos, changes or []), stage, force)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        server.leave(130)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.leave(code))  # the work is done: nothing is interrupted any more
    return code


def interrupt(number: int, frame: FrameType | None) -> None:
    """A cancelled run ends as after Ctrl-C; also where what it waits for never answers."""
    last = threading.Timer(SECONDS_TO_END, server.leave, [130])
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def overrides(photos: str | None, changes: list[str]) -> dict[str, Any]:
    found = own_photos(photos) if photos else {}
    return stated(found | read(changes))


def checked(profile: str | None, changes: dict[str, Any], stage: str | None, force: bool) -> int:
    """Settings are checked before the seconds that Prefect takes to start."""
    home = Path.cwd()
    settings, in_place = place.chosen(profile, changes, home)
    if stage and stage not in graph.names(home):
        raise UserError(f"--stage {stage}: dvc.yaml states no such stage, only {', '.join(graph.names(home))}")
    if settings.select.review == "required":
        settings.select.decided()
    place.supported(home)
    if not in_place:
        experiment.possible(home)
    orphans.sweep(locks.to_terminal)
    erased.keep(locks.to_terminal)
    if in_place and not force and not stage and up_to_date(home):
        print("Everything is up to date.")
        report = home / settings.report_dir("evaluate") / "index.html"
        print(f"{'Report':<12} {report}\n{'Runs':<12} `make ui` shows those that made it, in Prefect and MLflow")
        return 0
    if settings.device == "cuda":  # told before photographs are taken in
        choose_device(settings.device)
    if not stage:
        faces.require(settings)
        models.require(settings)
    return through_prefect(profile, changes, stage, force)


def up_to_date(home: Path) -> bool:
    """Whether `dvc repro` would do nothing (2 s)."""
    command = [sys.executable, "-m", "dvc", "status", "--quiet"]
    return subprocess.run(command, cwd=home, capture_output=True).returncode == 0


def through_prefect(profile: str | None, changes: dict[str, Any], stage: str | None, force: bool) -> int:
    """In Prefect: on the server that was named or that `make ui` started, else on a temporary one."""
    try:
        if temporary := "PREFECT_API_URL" not in os.environ:
            print("Starting Prefect's temporary server ...", flush=True)
            server.temporary()
        elif environment.shared_server():
            limit_training()
        elif environment.services_file().exists():
            server.attached()
    except Exception as error:
        # A server that does not start must not keep anyone from running: the graph is DVC's.
        return without_prefect(profile, changes, stage, force, error)
    return followed(profile, changes, stage, force, temporary)


def limit_training() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        turn.limit_training(client)


def followed(profile: str | None, changes: dict[str, Any], stage: str | None, force: bool, temporary: bool) -> int:
    from prefect import tags

    from flows import pipeline, unfinished

    quiet(temporary)
    unfinished.tell()
    with tags(orphans.tag()):
        state = getattr(pipeline, stage or "pipeline")(
            profile=profile or place.DEFAULT, overrides=changes, force=force, return_state=True
        )
    if state.is_completed():
        for name, where in state.result().items():
            print(f"{name:<12} {where}")
        if temporary:
            print(f"{'':<12} (`make ui` opens the pages of MLflow and Prefect)")
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1


def without_prefect(
    profile: str | None, changes: dict[str, Any], stage: str | None, force: bool, error: Exception
) -> int:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if changes or profile:
        raise UserError(
            f"Prefect does not answer ({reason}); another profile or other settings need it: "
            "free memory or check PREFECT_API_URL, then run again"
        )
    print(f"Prefect does not answer ({reason}): running `dvc repro` without it", file=sys.stderr)
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *([stage] if stage else []), *["--force"] * force]
    ).returncode


def quiet(temporary: bool) -> None:
    """Prefect's own lines about starting and finishing say nothing that the stages do not. A temporary server has no
    pages that one could view."""
    for name in ("prefect.client", "prefect._internal", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if temporary:
        logging.getLogger("prefect.flow_runs").addFilter(lambda record: not record.getMessage().startswith("View at "))
