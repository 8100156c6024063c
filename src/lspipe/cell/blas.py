"""Threads that solve side by side, and the limit of BLAS to one thread, because the matrix products are small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


class OneBlasThread:
    """A context in which BLAS uses one thread.

    The setting belongs to the process, which may solve in several threads. The first thread that enters makes it, and
    the last one that leaves takes it back.
    """

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.limit = blas().limit(limits=1)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.limit.restore_original_limits()


@cache
def blas() -> ThreadpoolController:
    return ThreadpoolController()  # Finding the libraries takes milliseconds.


one_blas_thread = OneBlasThread()


@contextmanager
def side_by_side(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield ``map`` for a number of threads. One thread is that of the caller, which has buffers and warm memory."""
    if threads == 1:
        yield map
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
