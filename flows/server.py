"""Prefect's server for one run: started where no other answers, and ended with the run however that ends."""

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from flows import environment, locks, process, services
from flows.services import HOST
from iy import project

START_SECONDS = 180.0  # a first start takes 20 s, busy machines longer
LOST = "error: Prefect's temporary server was ended from outside: run the same command again and it continues"


def temporary() -> None:
    """A server on a free port until this process ends, named in PREFECT_API_URL. Its log is under `.iy/logs`."""
    logs = project.state() / "logs"
    [port] = services.some_ports(1)
    server = services.prefect(port, {}, pages=False)
    # After Prefect has sent what it still holds, which it does when the interpreter ends: without a server it would
    # try for minutes.
    atexit.register(services.stop_all, [server])
    with database():
        server.start(logs)
        server.wait(logs, START_SECONDS)
    watch(server)
    os.environ.update(environment.own_server(f"http://{HOST}:{port}/api"))


@contextlib.contextmanager
def database() -> Iterator[None]:
    """While a server starts: one at a time, and no half of a database from one that was killed while it made it."""
    home = Path(os.environ["PREFECT_HOME"])
    begun = home / "making-database"
    with locks.held(project.state() / "locks" / "prefect.lock", "Prefect's server to start", locks.to_terminal):
        if begun.exists():
            for half in home.glob("prefect.db*"):
                half.unlink()  # it held nothing yet, and no server starts with it
        if not (home / "prefect.db").exists():
            begun.touch()
        yield
        begun.unlink(missing_ok=True)


def watch(server: services.Service) -> None:
    """End this run when its server has gone: Prefect would try to reach it for minutes, and end in tracebacks."""
    child = server.child
    assert child is not None

    def until_it_ends() -> None:
        child.wait()
        if not server.stopping:
            print(LOST, file=sys.stderr)
            leave(1)

    threading.Thread(target=until_it_ends, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End at once, children first: Prefect's own way out waits, for minutes, to send what it noted of such a run."""
    process.stop_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
