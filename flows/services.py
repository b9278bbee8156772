"""Servers as child processes: started in order, watched, and ended in the opposite order."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flows import process
from iy.errors import UserError

HOST = "127.0.0.1"
LEASES = "prefect.server.concurrency.lease_storage.filesystem"  # a server that starts again still knows who had a turn
START_SECONDS = 240.0  # a first start makes databases, and machines are busy


@dataclass
class Service:
    """`command` with `variables` added to the environment, run as `user` (uid, gid); `ready` tells when it answers."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    variables: dict[str, str] = field(default_factory=dict)
    user: tuple[int, int] = (0, 0)
    child: subprocess.Popen | None = None
    stopping: bool = False

    def start(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{self.name}.log").open("ab") as log:
            self.child = process.start(
                self.command,
                self.user,
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, logs: Path, seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not self.ready():
            self.check(logs)
            if time.monotonic() > end:
                raise UserError(f"{self.name} did not start within {seconds:.0f} s: see {logs / self.name}.log")
            time.sleep(0.3)

    def check(self, logs: Path) -> None:
        if self.child and self.child.poll() is not None:
            log = logs / f"{self.name}.log"
            raise UserError(
                f"{self.name} ended with exit code {self.child.returncode} ({process.last_line(log)}): see {log}"
            )


def answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    return ask


def listens(port: int) -> Callable[[], bool]:
    def ask() -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex((HOST, port)) == 0

    return ask


def free(name: str, port: int) -> None:
    """A clear error when nothing can listen on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} for {name} cannot be used ({error}): choose another, e.g. --{name}-port {port + 1}"
            ) from None


def some_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def stop_all(services: list[Service]) -> None:
    """The last started first, so that nothing loses what it talks to."""
    for one in reversed(services):
        one.stopping = True
        if one.child:
            process.stop(one.child)


def watch(services: list[Service], logs: Path, needed: Callable[[], bool] = lambda: True) -> None:
    """Stay while they are needed; an error as soon as one of them ends."""
    while needed():
        for one in services:
            one.check(logs)
        time.sleep(1)


def prefect(port: int, variables: dict[str, str], pages: bool = True) -> Service:
    """A Prefect server; its pages read the address of its API from its environment."""
    address = f"http://{HOST}:{port}"
    command = process.python("prefect", "server", "start", "--host", HOST, "--port", str(port))
    own = {"PREFECT_API_URL": f"{address}/api", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES}
    return Service(
        "prefect", [*command, "--ui" if pages else "--no-ui"], answers(f"{address}/api/health"), own | variables
    )


def mlflow(port: int, store: str | None, artifacts: str, variables: dict[str, str]) -> Service:
    """An MLflow server; `store` None: MLFLOW_BACKEND_STORE_URI in `variables`, so that no argument shows a password."""
    command = process.python(
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        *(["--backend-store-uri", store] if store else []),
        "--artifacts-destination",
        artifacts,
    )
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nothing here asks for MLflow's own job workers
    return Service("mlflow", command, answers(f"http://{HOST}:{port}/health"), {**own, **variables})
