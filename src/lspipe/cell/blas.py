"""The limit of BLAS to one thread. The matrix products of the solver are small, and its threads run side by side."""

from __future__ import annotations

from functools import cache
from threading import Lock

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
