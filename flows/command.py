"""The command line of `python -m flows.pipeline`: checks first, one line when something is wrong, where to look."""

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flows import environment, experiment, graph
from iy import faces
from iy.errors import UserError
from iy.photos.own import own_photos, stated
from iy.process import starting_workers
from iy.synpairs import models


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    try:
        sys.exit(run(options.profile, overrides(options), options.force, options.stage))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        leave(130)


def leave(code: int) -> NoReturn:
    """End at once: Prefect's own way out waits, for minutes, to send what it noted of a run that was interrupted."""
    if server := sys.modules.get("prefect.server.api.server"):
        server.SubprocessASGIServer().stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(
        prog="python -m flows.pipeline", description="Photos to registered model, every stage that is not up to date."
    )
    parsed.add_argument("--profile", help="settings to run with (default: the one that params.yaml names)")
    parsed.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting for this run, e.g. finetune.stages.4.steps=40",
    )
    parsed.add_argument(
        "--photos",
        metavar="PLACE",
        help="your own photographs: a folder, s3://bucket/folder, tars or a table; sets photos.source, .path and .snapshot",
    )
    parsed.add_argument("--force", action="store_true", help="run also what has not changed")
    parsed.add_argument("--stage", help="this stage and what it needs only")
    return parsed


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    found = own_photos(options.photos) if options.photos else {}
    for one in options.set:
        key, sign, value = one.partition("=")
        if not sign:
            raise UserError(f"--set {one}: write KEY=VALUE, for example --set finetune.stages.4.steps=40")
        found[key.strip()] = yaml.safe_load(value)
    return stated(found)


def run(profile: str | None, changes: dict[str, Any], force: bool, stage: str | None) -> int:
    """The exit code. Settings are checked before the seconds that Prefect takes to start."""
    root = environment.main_root()
    params = experiment.chosen(profile, changes, root)
    if stage and stage not in graph.names(root):
        raise UserError(f"--stage {stage}: dvc.yaml states no such stage, only {', '.join(graph.names(root))}")
    in_place = not changes and params.profile == experiment.chosen(None, {}, root).profile
    if in_place and not force and not stage and up_to_date(root):
        print("Everything is up to date.")
        report = root / params.report_dir("evaluate") / "index.html"
        print(f"{'Report':<12} {report}\n{'Runs':<12} `make ui` shows those that made it, in Prefect and MLflow")
        return 0
    if not stage:
        faces.require(params)
        models.require(params)
    return through_prefect(profile, changes, force, stage)


def up_to_date(root: Path) -> bool:
    """Whether `dvc repro` would do nothing (2 s)."""
    return (
        subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet"], cwd=root, capture_output=True).returncode
        == 0
    )


def through_prefect(profile: str | None, changes: dict[str, Any], force: bool, stage: str | None) -> int:
    if temporary := "PREFECT_API_URL" not in os.environ:
        print("Starting Prefect's temporary server ...", flush=True)
    from prefect.client.orchestration import get_client

    from flows import pipeline

    quiet()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled run stops its server, as after Ctrl-C
    try:
        # A terminal's Ctrl-C reaches the temporary server too, which must hear how the run ended.
        with starting_workers(), get_client(sync_client=True) as client:
            limit_training(client)
    except Exception as error:
        # A server that does not start must not keep anyone from running: the graph is DVC's.
        return without_prefect(profile, changes, force, stage, error)
    state = getattr(pipeline, stage or "pipeline")(
        profile=profile or pipeline.DEFAULT, overrides=changes, force=force, return_state=True
    )
    if state.is_completed():
        for name, place in state.result().items():
            print(f"{name:<12} {place}")
        if temporary:
            print(f"{'':<12} (`make ui` opens the pages of MLflow and Prefect)")
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1


def limit_training(client) -> None:
    """The global concurrency limit `training`: one at a time on this server, unless someone has set another number."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    names = [limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)]
    if "training" not in names:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="training", limit=1))


def without_prefect(
    profile: str | None, changes: dict[str, Any], force: bool, stage: str | None, error: Exception
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


def quiet() -> None:
    """Prefect's own lines about starting and finishing say nothing that the stages do not."""
    for name in ("prefect.client", "prefect._internal", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
