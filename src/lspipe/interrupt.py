"""Work that stops early: on SIGTERM, on Ctrl-C (SIGINT), or before its time in a queue is up."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Unfinished(Exception):  # noqa: N818, for nothing went wrong
    """The work was stopped; what is done is saved, and the same call goes on."""


def deadline(minutes: float) -> float:
    """When, by ``time.monotonic``, to stop in a job that ends in so many minutes: two minutes before, or a tenth of a
    short job's time; never for 0."""
    return time.monotonic() + 60 * max(minutes - 2, 0.9 * minutes) if minutes else math.inf


@contextmanager
def stopping(deadline: float) -> Iterator[Callable[[], bool]]:
    """Within, signals do not end the process: they are for the work to ask for, between two steps."""
    signals: list[int] = []
    before = {s: signal.signal(s, lambda number, _: signals.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(signals) or time.monotonic() > deadline
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
