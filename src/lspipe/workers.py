"""Workers that do tasks: this process, Dask workers on this machine, or a Dask cluster of the user."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, resource_tracker
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tqdm import tqdm

from lspipe.interrupt import SIGNALS, explain

if TYPE_CHECKING:
    from distributed import Client, Future

# Dask is imported in functions: the fork server must start first.

PATIENCE = 300  # seconds without any worker; those of a cluster may wait in a queue
LOOK = 30  # seconds without a finished task, after which the cluster is asked for its workers
# Processes keep the memory of large buffers: fresh pages for each buffer would cost more than the work in it.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_MMAP_MAX_": 0,
    "MALLOC_ARENA_MAX": 1,
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), 1),
}
DASK = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # Profiling a hundred times a second takes 3 % of a core in each process.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    # Each process of Dask has an HTTP server without credentials. Without routes it answers nothing.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# A task reports the number of samples that it has done since its last report.
Report = Callable[[int], object]
Task = Callable[[int, Report], Any]


def run(task: Task, shards: Sequence[int], bar: tqdm, *, workers: int, scheduler: str | None) -> list[Any]:
    """Call ``task(shard, report)`` for each shard and return the results in order.

    One worker is this process. More are processes of one thread each. With ``scheduler``, the workers of the Dask
    cluster at that address do the tasks. Another worker repeats the task of a worker that dies.

    Raises:
        ValueError: The cluster cannot be reached, or had no worker for PATIENCE seconds.
        ConnectionError: The scheduler of the cluster has ended.
        ChildProcessError: Several workers died at the same shard.
        Exception: A task raised it.
    """
    if workers == 1 and scheduler is None:
        return [task(shard, bar.update) for shard in shards]
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    topic = f"lspipe-{uuid4()}"
    place = f"scheduler = {scheduler}" if scheduler else "Dask"
    with connect(workers, scheduler) as client:
        client.subscribe_topic(topic, lambda event: bar.update(event[1]))
        futures = client.map(partial(attempt, task), shards, topic=topic, pure=False)
        results = {}
        try:
            for future in completed(client, futures, place):
                results[future.key] = result = future.result()
                if isinstance(result, Exception):
                    raise result
        except KilledWorker:
            raise ChildProcessError(
                "four workers died at the same shard, probably out of memory; use fewer --workers or smaller shards"
            ) from None
        except (CommClosedError, CancelledError):
            raise ConnectionError(
                f"{place}: the Dask scheduler has ended; start one and run the command again"
            ) from None
    bar.update(bar.total - bar.n)  # Some samples are reported after the last result.
    return [results[future.key] for future in futures]


def attempt(task: Task, shard: int, topic: str) -> Any:
    """Do a task on a Dask worker. An error that is no bug is returned: raised, it would make Dask print pages."""
    from distributed import get_worker

    try:
        return task(shard, partial(get_worker().log_event, topic))
    except Exception as error:
        if explain(error) is None:
            raise
        return error


def completed(client: Client, futures: Sequence[Future], place: str) -> Iterator[Future]:
    """Yield futures as they end. Raises ValueError where ``place`` has no worker for PATIENCE seconds."""
    ended: Queue[Future] = Queue()
    for future in futures:
        future.add_done_callback(ended.put)
    left, idle = len(futures), 0
    while left:
        try:
            future = ended.get(timeout=LOOK)
        except Empty:
            idle = 0 if client.nthreads() else idle + LOOK
            if idle >= PATIENCE:
                raise ValueError(f"{place}: had no worker for {idle} s; start workers and call again") from None
            if idle:
                tqdm.write(f"{place}: has had no worker for {idle} s of {PATIENCE} s", file=sys.stderr)
        else:
            left, idle = left - 1, 0
            yield future


@contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """Give a client of the cluster at ``scheduler``, or of ``workers`` processes that live as long as it does.

    Each process that can connect to a Dask scheduler runs code as its user. The scheduler of these processes accepts
    only those that have its TLS key, which never leaves memory.
    """
    import dask
    from distributed import Client, LocalCluster, Security
    from distributed.utils import silence_logging_cmgr

    if scheduler is not None:
        with silence_logging_cmgr(logging.CRITICAL):
            try:
                client = Client(scheduler)
            except (ValueError, OSError, TypeError) as error:  # TypeError: TLS without a key
                raise ValueError(f"scheduler = {scheduler}: {error}") from None
            with client:
                yield client
        return
    start_fork_server()
    with (
        hidden_main(),
        dask.config.set(DASK),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,  # What a task holds is bounded: Dask need not watch it.
            security=Security.temporary(),
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,  # The error of a task is raised.
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def hidden_main() -> Iterator[None]:
    """Keep new processes from importing the running script: without a main guard, it would start workers again."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def start_fork_server() -> None:
    """Start the process from which workers are forked, unless it runs. It imports once what all workers need.

    Workers ignore Ctrl-C and SIGTERM, which may reach all processes of a terminal or job: the process that started them
    ends them.
    """
    environment = dict(os.environ)
    resource_tracker.ensure_running()  # Started later, the tracker would unblock the signals.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ.update({name: str(value) for name, value in ENVIRONMENT.items()})
    try:
        multiprocessing.set_forkserver_preload(["distributed", "lspipe.dataset", "lspipe.cell.operator_numba"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
