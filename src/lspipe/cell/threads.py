"""Threads that solve side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def side_by_side(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield ``map`` for a number of threads. One thread is that of the caller, which has buffers and warm memory."""
    if threads == 1:
        yield map
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
