"""`python -m flows.ui`: Prefect and MLflow in the browser, the flows ready to run, the reports served. Ctrl-C ends all of it.

Everything listens on 127.0.0.1 only and keeps its state under `.iy/`.
"""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flows import environment, process
from iy.errors import UserError
from iy.storage import write_json

HOST = "127.0.0.1"
START_SECONDS = 240.0     # a first start makes two databases; machines are busy


@dataclass
class Service:
    """A child process: its module and arguments, environment, and the address that answers once it is up (or None)."""
    name: str
    module: str
    arguments: list[str]
    health: str | None
    variables: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen | None = None

    def start(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{self.name}.log").open("ab") as log:
            self.child = process.start(sys.executable, self.module, *self.arguments, env={**os.environ, **self.variables},
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, logs: Path, seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not (self.health is None or answers(self.health)):
            self.check(logs)
            if time.monotonic() > end:
                raise UserError(f"{self.name} did not start within {seconds:.0f} s: see {logs / self.name}.log")
            time.sleep(0.3)

    def check(self, logs: Path) -> None:
        if self.child and self.child.poll() is not None:
            raise UserError(f"{self.name} ended with exit code {self.child.returncode}: see {logs / self.name}.log")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    signal.signal(signal.SIGINT, interrupt)      # a shell that starts us in the background has it ignored
    try:
        serve(options.prefect_port, options.mlflow_port, options.reports_port)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", flush=True)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__.splitlines()[0])
    for name, port in (("prefect", 4200), ("mlflow", 5000), ("reports", 4280)):
        variable = f"IY_{name.upper()}_PORT"
        parsed.add_argument(f"--{name}-port", type=int, default=int(os.environ.get(variable, port)), help=f"default: {port}, or {variable}")
    return parsed


def serve(prefect_port: int, mlflow_port: int, reports_port: int) -> None:
    """Start everything, say where it is, and stay until interrupted or until one of them ends."""
    root = environment.main_root()
    if other := environment.running(root):
        raise UserError(f"already running at {other['prefect']}: open it, or stop it first")
    ports = {"prefect": prefect_port, "mlflow": mlflow_port, "reports": reports_port}
    for name, port in ports.items():
        free(name, port)
    addresses = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    keep_up(services(root, ports, addresses), root / ".iy" / "logs", lambda: announce(root, addresses), environment.services_file(root))


def free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port} for {name} cannot be used ({error}): choose another, e.g. --{name}-port {port + 1}") from None


def services(root: Path, ports: dict[str, int], addresses: dict[str, str]) -> list[Service]:
    """In the order in which they start; they end in the opposite order, so that no flow loses its server."""
    (root / ".iy" / "reports").mkdir(parents=True, exist_ok=True)
    api = {"PREFECT_API_URL": addresses["prefect"] + "/api"}      # in the server's environment too: its pages read it there
    store = os.environ.get("MLFLOW_BACKEND_STORE_URI") or f"sqlite:///{root / '.iy' / 'mlflow.db'}"
    return [
        Service("prefect", "prefect", ["server", "start", "--host", HOST, "--port", str(ports["prefect"])], addresses["prefect"] + "/api/health", api),
        Service("mlflow", "mlflow", ["server", "--host", HOST, "--port", str(ports["mlflow"]), "--workers", "1", "--backend-store-uri", store,
                                     "--artifacts-destination", str(root / ".iy" / "mlartifacts")], addresses["mlflow"] + "/health",
                {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}),       # nothing here asks for MLflow's own job workers
        Service("reports", "http.server", [str(ports["reports"]), "--bind", HOST, "--directory", str(root / ".iy" / "reports")], addresses["reports"] + "/"),
        Service("flows", "flows.deploy", [], None, api),
    ]


def keep_up(children: list[Service], logs: Path, ready: Callable[[], None], mark: Path) -> None:
    *servers, flows = children
    try:
        for one in servers:
            one.start(logs)
        for one in servers:
            one.wait(logs)
        ready()
        flows.start(logs)
        deployed(flows, servers[0], logs)
        while True:
            for one in children:
                one.check(logs)
            time.sleep(1)
    finally:
        for one in reversed(children):
            if one.child:
                process.stop(one.child)
        mark.unlink(missing_ok=True)


def deployed(flows: Service, prefect: Service, logs: Path) -> None:
    """Wait until this start has registered each flow on the server (earlier starts left theirs), then say that all is ready."""
    from flows import graph

    expected = {"pipeline", *graph.names()}
    began, end = datetime.now(UTC), time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        flows.check(logs)
        if expected <= listed(prefect.variables["PREFECT_API_URL"], began):
            print("Ready: open Prefect, Deployments, pipeline, Run. Ctrl-C stops everything.", flush=True)
            return
        time.sleep(0.5)
    raise UserError(f"the flows did not register within {START_SECONDS:.0f} s: see {logs / 'flows'}.log")


def listed(api: str, since: datetime) -> set[str]:
    """The deployments that were registered since then."""
    request = urllib.request.Request(api + "/deployments/filter", data=b"{}", headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {one["name"] for one in json.load(answer) if datetime.fromisoformat(one["updated"]) >= since}
    except (OSError, ValueError):
        return set()


def announce(root: Path, addresses: dict[str, str]) -> None:
    write_json(environment.services_file(root), addresses)      # flows link to these; `make run` reports to this server
    print(f"Prefect  {addresses['prefect']}   run the flows, watch them\nMLflow   {addresses['mlflow']}   compare runs, models\n"
          f"Reports  {addresses['reports']}   what each run left to look at", flush=True)


if __name__ == "__main__":
    main()
