"""Prefect's server for one run: started where no other answers, and ended with the run however that ends."""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from typing import NoReturn

from flows import environment, locks, orphans, process, services
from flows.services import HOST
from iy import project
from iy.errors import UserError

LEAVING = threading.Event()
CLOSED = "error: `make ui`, whose Prefect server this run used, was ended: run the same command again and it continues"
LOST = "error: Prefect's temporary server was ended from outside: run the same command again and it continues"


def temporary() -> None:
    """A server on a free port until this process ends, named in PREFECT_API_URL. Its log is under `.iy/logs`."""
    logs = project.state() / "logs"
    [port] = services.some_ports(1)
    server = services.prefect(port, {}, pages=False)
    # After Prefect has sent what it still holds, which it does when the interpreter ends: without a server it would
    # try for minutes.
    atexit.register(services.stop_all, [server])
    try:
        with database():
            server.start(logs)
            server.wait(logs)
    except UserError:
        services.stop_all([server])  # nobody waits for it any more
        raise
    watch(server)
    os.environ.update(environment.own_server(f"http://{HOST}:{port}/api"))


def database() -> contextlib.AbstractContextManager[None]:
    """While a server starts: two that make or change the same database at once would break it."""
    return locks.held(project.state() / "locks" / "prefect.lock", "Prefect's server to start", locks.to_terminal)


def watch(server: services.Service) -> None:
    """End this run when its server has gone: Prefect would try to reach it for minutes, and end in tracebacks."""
    child = server.child
    assert child is not None

    def until_it_ends() -> None:
        child.wait()
        if not (server.stopping or LEAVING.is_set()):
            print(LOST, file=sys.stderr)
            leave(1)

    threading.Thread(target=until_it_ends, daemon=True).start()


def attached() -> None:
    """End this run when `make ui`, whose server it uses, ends: as `watch` does."""
    known = environment.services_file().read_bytes()

    def until_it_ends() -> None:
        while unchanged(known):
            time.sleep(0.5)
        if not LEAVING.is_set():
            print(CLOSED, file=sys.stderr)
            leave(1)

    threading.Thread(target=until_it_ends, daemon=True).start()


def unchanged(known: bytes) -> bool:
    """Is the `make ui` that left this note still there? It takes the note away before it ends its servers."""
    try:
        return environment.services_file().read_bytes() == known and not orphans.ended(json.loads(known)["process"])
    except OSError:
        return False


def leave(code: int) -> NoReturn:
    """End at once, children first: Prefect's own way out waits, for minutes, to send what it noted of such a run."""
    LEAVING.set()
    process.stop_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
