"""Dask workers: processes of this machine, or a cluster that the user already has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed, get_worker
from tqdm import tqdm

PATIENCE = 300  # seconds; a queue may take its time with the workers of a cluster
# A task names the event topic that it reports its samples to.
Task = Callable[[int, str], Any]


def run(task: Task, shards: Sequence[int], bar: tqdm, *, workers: int, scheduler: str | None) -> list[Any]:
    """``task(shard, topic)`` for each shard, and what they return, in order.

    ``workers`` processes of one thread each do them, or the cluster at the address ``scheduler``. A task whose
    worker dies is done again by another; what a task raises is raised here, when those at work have ended.
    """
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
    if scheduler is not None:
        with Client(scheduler) as client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise ValueError(f"scheduler = {scheduler}: had no worker for {PATIENCE} s") from None
            yield client
        return
    # A single worker is a thread of this process. What a task holds is bounded: Dask need not watch it.
    # Dask sets the first so that freed memory is handed back at once, which takes the solver twice the time.
    malloc = {"MALLOC_TRIM_THRESHOLD_": 2**29, "MALLOC_MMAP_THRESHOLD_": 2**25}
    # Numba is told by the task: Dask leaves these in the environment of this process, where Numba takes it amiss.
    environment = malloc | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), 1)
    kind = {"processes": workers > 1, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(n_workers=workers, **kind) as cluster,
        Client(cluster) as client,
    ):
        yield client


def report(topic: str, count: int) -> None:
    """Says from inside a task that ``count`` samples are done."""
    get_worker().log_event(topic, count)
