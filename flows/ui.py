"""Prefect and MLflow in the browser, the flows ready to run, the reports served. Ctrl-C ends all.

Everything listens on 127.0.0.1 only and keeps its state under `.iy/`. Ready in about 15 s, 30 s the first time.
"""

import argparse
import json
import os
import signal
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from flows import environment, graph, locks, orphans, process, server, services
from flows.services import HOST, Service
from iy import params, project, tracking
from iy.errors import UserError
from iy.storage import write_json
from iy.tracking import local

FAREWELL = 30.0  # seconds: a training of another terminal may save its state
FLOWS = "flows"  # the process whose children are the runs that the pages start
PORTS = {"prefect": 4200, "mlflow": 5000, "reports": 4280}


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, at_once)
    try:
        serve({name: getattr(options, f"{name}_port") for name in PORTS})
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", flush=True)


class AtOnce(KeyboardInterrupt):
    """Asked to end whatever else needs the servers."""


def at_once(number: int, frame: FrameType | None) -> None:
    raise AtOnce


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(prog="iy ui", description=(__doc__ or "").splitlines()[0])
    for name, port in PORTS.items():
        variable = f"IY_{name.upper()}_PORT"
        parsed.add_argument(
            f"--{name}-port", type=int, default=os.environ.get(variable, port), help=f"default: {port}, or {variable}"
        )
    return parsed


def serve(ports: dict[str, int]) -> None:
    """Start everything, say where it is, and stay until interrupted or until one of them ends."""
    state = project.state()
    graph.names()  # a clear error outside a project
    orphans.sweep(locks.to_terminal)
    if other := environment.running():
        raise UserError(f"already running at {other['prefect']}: open it, or stop it first")
    for name, port in ports.items():
        services.free(name, port)
    addresses = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    logs, children = state / "logs", servers(state, ports)
    try:
        with server.database():
            with tracking.alone():
                local.make(state / "mlflow.db")
            for one in children:
                one.start(logs)
            runs = runs_page()
            for one in children:
                one.wait(logs)
        announce(addresses, runs)
        offer(children, logs, addresses["prefect"] + "/api")
        stay(children, logs, addresses["prefect"] + "/api")
    finally:
        try:
            dismiss(addresses["prefect"] + "/api", children)
        finally:  # interrupted again
            services.stop_all(children)


def stay(children: list[Service], logs: Path, api: str) -> None:
    """Until Ctrl-C; then until the runs that use these servers have ended, or Ctrl-C again."""
    try:
        services.watch(children, logs)
    except AtOnce:
        raise
    except KeyboardInterrupt:
        if not (found := guests(api)):
            raise
        print(
            f"{', '.join(name for name, _ in found)}: still runs and needs this server. Everything stops when "
            "it has ended. Ctrl-C again: at once, that run too (the same again continues it)",
            flush=True,
        )
        services.watch(children, logs, lambda: guests(api) != [])


def guests(api: str) -> list[tuple[str, str]] | None:
    """Names and processes of the runs that work and report here; None: the server does not answer."""
    runs = asked(api + "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}})
    if runs is None:
        return None
    tags = [(one["name"], tag) for one in runs for tag in one["tags"] if tag.startswith("process ")]
    return [(name, tag) for name, tag in tags if not orphans.ended(tag)]


def dismiss(api: str, children: list[Service]) -> None:
    """Tell the runs that the server goes, and leave them the time to end."""
    found = guests(api) if environment.services_file().exists() else []
    environment.services_file().unlink(missing_ok=True)
    services.stop_all([one for one in children if one.name == FLOWS])
    end = time.monotonic() + FAREWELL
    while time.monotonic() < end and not all(orphans.ended(tag) for _, tag in found or []):
        time.sleep(0.2)


def servers(state: Path, ports: dict[str, int]) -> list[Service]:
    page = process.python("flows.reports", str(ports["reports"]))
    return [
        services.prefect(ports["prefect"], {}),
        services.mlflow(ports["mlflow"], local.address(state / "mlflow.db"), str(state / "mlartifacts"), {}),
        Service("reports", page, services.answers(f"http://{HOST}:{ports['reports']}/")),
    ]


def runs_page() -> str:
    """The page of MLflow that shows this profile's runs: its first page is about other things."""
    if os.environ.get("MLFLOW_TRACKING_URI"):  # runs go elsewhere
        return ""
    experiment = tracking.experiment_id(tracking.connect(), params.load().profile)
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def announce(addresses: dict[str, str], runs: str) -> None:
    # flows link to these; `make run` reports to this server
    write_json(environment.services_file(), addresses | {"process": orphans.tag()})
    print(
        f"Prefect  {addresses['prefect']}   run the flows, watch them\n"
        f"MLflow   {addresses['mlflow']}{runs}   compare runs, models\n"
        f"Reports  {addresses['reports']}   what each run left to look at",
        flush=True,
    )


def offer(children: list[Service], logs: Path, api: str) -> None:
    """Start the process that runs flows; wait until it has registered each (earlier starts left theirs)."""
    began, expected = datetime.now(UTC), {"pipeline", *graph.names()}
    flows = Service(
        FLOWS, process.python("flows.deploy"), lambda: expected <= registered(api, began), environment.own_server(api)
    )
    children.append(flows)
    flows.start(logs)
    flows.wait(logs)
    time.sleep(1)  # it registers first and listens right after
    print("Ready: open Prefect, Deployments, pipeline, Run. Ctrl-C stops everything.", flush=True)


def registered(api: str, since: datetime) -> set[str]:
    """The deployments that were registered since then."""
    found = asked(api + "/deployments/filter", {}) or []
    return {one["name"] for one in found if datetime.fromisoformat(one["updated"]) >= since}


def asked(url: str, what: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What Prefect's API answers; None where it does not."""
    request = urllib.request.Request(url, data=json.dumps(what).encode(), headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
