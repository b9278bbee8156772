"""One training at a time: on this machine by a file lock, on a server that others use too by its limit `training`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows import environment, locks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

LIMIT = "training"
LEASE = 60.0  # seconds after which the server takes a dead run's turn back, as far as it keeps leases


def turn(stage: str, state: Path, say: locks.Say) -> contextlib.AbstractContextManager[None]:
    """Waits until `stage` may run. The project's own servers come and go, and a turn that they count would stay taken
    when a run is killed: there the kernel counts."""
    if not stage.startswith("finetune"):
        return contextlib.nullcontext()
    if environment.shared_server():
        return on_server(say)
    return locks.held(state / "locks" / "training.lock", "a turn to train", say)


@contextlib.contextmanager
def on_server(say: locks.Say) -> Iterator[None]:
    from prefect.concurrency.sync import concurrency

    with contextlib.ExitStack() as stack:
        patience = locks.PATIENCE
        while True:
            try:
                stack.enter_context(concurrency(LIMIT, 1, timeout_seconds=patience, lease_duration=LEASE))
                break
            except TimeoutError:
                if patience == locks.PATIENCE:
                    say(taken())
                patience = 30.0
        yield


def taken() -> str:
    return (
        f"waiting for a turn to train: the limit {LIMIT!r} of this Prefect server is taken; this goes on when a run "
        f"that has it ends, {LEASE:.0f} s after one that was killed. See `prefect gcl inspect {LIMIT}`; if nothing "
        f"trains, `prefect gcl update {LIMIT} --active-slots 0`"
    )


def limit_training(client: "SyncPrefectClient") -> None:
    """The limit on a server that others use too: one training at a time, unless someone has set another number."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    names = [limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)]
    if LIMIT not in names:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
