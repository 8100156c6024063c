"""Dask workers: processes of this machine, or a cluster that the user already has."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tqdm import tqdm

if TYPE_CHECKING:
    from distributed import Client

# Dask is imported where it is needed: the fork server is to start before that.

PATIENCE = 300  # seconds; a queue may take its time with the workers of a cluster
# Large buffers come from memory that is kept, since fresh pages at each of them would cost more than the work in it.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_MMAP_MAX_": 0,
    "MALLOC_ARENA_MAX": 1,
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), 1),
}
# A task names the event topic that it reports its samples to.
Task = Callable[[int, str], Any]


def run(task: Task, shards: Sequence[int], bar: tqdm, *, workers: int, scheduler: str | None) -> list[Any]:
    """``task(shard, topic)`` for each shard, and what they return, in order.

    ``workers`` processes of one thread each do them, or the cluster at the address ``scheduler``. A task whose
    worker dies is done again by another; what a task raises is raised here, when those at work have ended.
    """
    from distributed import KilledWorker, as_completed

    topic = f"lspipe-{uuid4()}"
    with connect(workers, scheduler) as client:
        client.subscribe_topic(topic, lambda event: bar.update(event[1]))
        futures = client.map(partial(attempt, task), shards, topic=topic, pure=False)
        try:
            for future in as_completed(futures):
                if isinstance(error := future.result(), Exception):
                    raise error
        except KilledWorker:
            raise ChildProcessError("four workers died at the same shard: out of memory?") from None
        done = client.gather(futures)
    bar.update(bar.total - bar.n)  # events that came after the end
    return done


def attempt(task: Task, shard: int, topic: str) -> Any:
    """What the task returns, or the error that is no fault of the program: Dask would print pages about it."""
    try:
        return task(shard, topic)
    except (ValueError, OSError) as error:
        return error


@contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the cluster at ``scheduler``, or of ``workers`` workers that live as long as it does."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise ValueError(f"scheduler = {scheduler}: had no worker for {PATIENCE} s") from None
            yield client
        return
    # A single worker is a thread of this process. What a task holds is bounded: Dask need not watch it.
    kind = {"processes": workers > 1, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    if workers > 1:
        start_fork_server()
    # Dask looks at its loops and tasks a hundred times a second, which takes 3 % of a core in each process.
    quiet = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
    with (
        dask.config.set({**quiet, "distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(n_workers=workers, **kind) as cluster,
        Client(cluster) as client,
    ):
        yield client


def start_fork_server() -> None:
    """Starts the process that workers are forked off, if it does not run: it imports what they need, once for all of
    them and while this process goes on."""
    own = dict(os.environ)
    os.environ.update({name: str(value) for name, value in ENVIRONMENT.items()})
    try:
        multiprocessing.set_forkserver_preload(["distributed", "lspipe.dataset", "lspipe.cell.operator_numba"])
        forkserver.ensure_running()
    finally:  # which is for the workers alone
        os.environ.clear()
        os.environ.update(own)


def report(topic: str, count: int) -> None:
    """Says from inside a task that ``count`` samples are done."""
    from distributed import get_worker

    get_worker().log_event(topic, count)
