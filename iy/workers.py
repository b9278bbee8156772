"""One function over many jobs, in their order: here, in processes, or on a Ray cluster. The answers are the same."""

import multiprocessing
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

from iy import params
from iy.errors import UserError, one_line
from iy.process import die_with_parent, starting_workers

ALONE = 24  # jobs that are not worth starting processes for
QUIETLY = {"log_to_driver": False, "logging_level": "error"}
AHEAD = 2  # chunks that wait for each worker on Ray: enough to keep it busy, few enough to hold their answers
ENDED = (
    "a worker process was ended from outside, most often for want of memory: lower workers.count (now {}) and run again"
)


def each(
    function: Callable[[Any], Any],
    jobs: Iterable,
    workers: params.Workers,
    *,
    chunk: int = 8,
    alone: int = ALONE,
    count: int | None = None,
) -> Iterator:
    """`function` of each job, in their order. Function, jobs and answers must pickle.

    `chunk` jobs travel together, so many jobs as `alone` or fewer are not worth starting processes for. count: of the
    jobs, where they come one after the other; no more of them are held than are on their way.
    """
    if count is None:
        assert isinstance(jobs, Sequence), "nobody knows how many there are"
        count = len(jobs)
    if workers.map == "ray" and count:
        return on_ray(function, jobs, workers, chunk)
    if workers.map != "processes" or workers.count == 1 or count <= alone:
        return map(function, jobs)
    return in_processes(function, jobs, workers.count, chunk)


def chunks(jobs: Iterable, size: int) -> Iterator[list]:
    """The jobs, `size` at a time."""
    waiting = iter(jobs)
    while found := list(islice(waiting, size)):
        yield found


def in_processes(function: Callable, jobs: Iterable, count: int, chunk: int) -> Iterator:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), die_with_parent)
    try:
        waiting: deque = deque()
        for several in chunks(jobs, chunk):
            if len(waiting) == (1 + AHEAD) * count:
                yield from waiting.popleft().result()
            with starting_workers():
                waiting.append(pool.submit(all_of, function, several))
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(ENDED.format(count)) from None
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # nobody waits for what they were doing: it is done again, or never
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(
    function: Callable, jobs: Iterable, workers: params.Workers, chunk: int, cpus: int = 1, gpu: bool = False
) -> Iterator:
    """On the cluster at `workers.address`, or on one that is started here and ends with this process.

    Each task takes `cpus` cores of one machine, and a GPU where it is said to need one and the cluster has any.
    The cluster's machines need iy installed, and this folder, shared, at the same path.
    """
    ray = connected(workers)
    try:
        most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())
        gpus = 1 if gpu and ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=min(cpus, most), num_gpus=gpus)(several)
        waiting: deque = deque()
        for some in chunks(jobs, chunk):
            if len(waiting) == (1 + AHEAD) * workers.count:
                yield from ray.get(waiting.popleft())
            waiting.append(remote.remote(os.getcwd(), function, some))
        while waiting:
            yield from ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
        raise UserError(ENDED.format(workers.count)) from None
    finally:
        ray.shutdown()


def connected(workers: params.Workers) -> Any:
    """The module ray, with a cluster."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    try:
        import ray
    except ImportError:
        raise UserError(
            "workers.map: ray needs the extra: pip install 'iy[ray]', or set workers.map to processes"
        ) from None
    here = {"num_cpus": workers.count, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    on_signal = signal.getsignal(signal.SIGTERM)
    if workers.address is not None:
        must_answer(workers.address)
    try:
        ray.init(workers.address or "local", **QUIETLY, **({} if workers.address else here))
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"workers.address {workers.address}: {one_line(error)}: Ray and Python must be of "
            "one version on all machines"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_signal)  # Ray's own would end a stage without a word
    return ray


def must_answer(address: str) -> None:
    """Asked before Ray does: where nobody answers, it tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"workers.address {address}: no Ray cluster answers ({error}): give host:port of one that "
            "`ray start --head` began, or null to start one here"
        ) from None


def must_be_here(paths: Sequence[Path]) -> None:
    """What the workers wrote."""
    if gone := [path for path in paths if not path.exists()]:
        raise UserError(
            f"workers.map ray: {gone[0]} was written on another machine and is not here: the cluster's machines "
            "must share this folder, not have copies of it"
        )


def several(folder: str, function: Callable, jobs: Sequence) -> list:
    """What one task does: Ray's workers do not start in the folder that paths are relative to."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"workers.map ray: {folder} is not on {socket.gethostname()} ({error.strerror}): the cluster's "
            "machines must share this folder at the same path"
        ) from None
    return all_of(function, jobs)


def all_of(function: Callable, jobs: Sequence) -> list:
    return [function(job) for job in jobs]
