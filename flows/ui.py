"""`python -m flows.ui`: Prefect and MLflow in the browser, the flows ready to run, the reports served. Ctrl-C ends all.

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

from flows import environment, graph, locks, orphans, process, server, services
from flows.services import HOST, Service
from iy import project, tracking
from iy.errors import UserError
from iy.storage import write_json
from iy.tracking import local

PORTS = {"prefect": 4200, "mlflow": 5000, "reports": 4280}


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    for number in (
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGINT,
    ):  # SIGINT too: a shell's background jobs have it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        serve({name: getattr(options, f"{name}_port") for name in PORTS})
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", flush=True)


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(prog="python -m flows.ui", description=(__doc__ or "").splitlines()[0])
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
            for one in children:
                one.wait(logs)
        announce(addresses)
        offer(children, logs, addresses["prefect"] + "/api")
        services.watch(children, logs)
    finally:
        services.stop_all(children)
        environment.services_file().unlink(missing_ok=True)


def servers(state: Path, ports: dict[str, int]) -> list[Service]:
    reports = state / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    page = process.python("http.server", str(ports["reports"]), "--bind", HOST, "--directory", str(reports))
    return [
        services.prefect(ports["prefect"], {}),
        services.mlflow(ports["mlflow"], local.address(state / "mlflow.db"), str(state / "mlartifacts"), {}),
        Service("reports", page, services.answers(f"http://{HOST}:{ports['reports']}/")),
    ]


def announce(addresses: dict[str, str]) -> None:
    write_json(environment.services_file(), addresses)  # flows link to these; `make run` reports to this server
    print(
        f"Prefect  {addresses['prefect']}   run the flows, watch them\n"
        f"MLflow   {addresses['mlflow']}   compare runs, models\n"
        f"Reports  {addresses['reports']}   what each run left to look at",
        flush=True,
    )


def offer(children: list[Service], logs: Path, api: str) -> None:
    """Start the process that runs flows; wait until it has registered each (earlier starts left theirs)."""
    began, expected = datetime.now(UTC), {"pipeline", *graph.names()}
    flows = Service(
        "flows", process.python("flows.deploy"), lambda: expected <= registered(api, began), environment.own_server(api)
    )
    children.append(flows)
    flows.start(logs)
    flows.wait(logs)
    time.sleep(1)  # it registers first and listens right after
    print("Ready: open Prefect, Deployments, pipeline, Run. Ctrl-C stops everything.", flush=True)


def registered(api: str, since: datetime) -> set[str]:
    """The deployments that were registered since then."""
    request = urllib.request.Request(
        api + "/deployments/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {one["name"] for one in json.load(answer) if datetime.fromisoformat(one["updated"]) >= since}
    except (OSError, ValueError):
        return set()


if __name__ == "__main__":
    main()
