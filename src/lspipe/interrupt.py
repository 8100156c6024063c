"""Work that ends early: on SIGTERM, on Ctrl-C (SIGINT), before the time limit of its job, or on an error."""

from __future__ import annotations

import logging
import math
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Unfinished(BaseException):
    """The work was stopped. What is done is saved, and the same command continues.

    It is no Exception, like KeyboardInterrupt: code that catches any error of a damaged file must not catch it.
    """


def explain(error: Exception) -> str | None:
    """Return the line that tells the user of an error, or None for a bug, which needs its traceback."""
    line = " ".join(str(error).split())
    exhausted = isinstance(error, RuntimeError) and re.search("out of memory|allocate memory|start new thread", line)
    if exhausted or isinstance(error, MemoryError):
        remedy = "use fewer --workers, smaller batches or shards, or more memory"
        return f"out of memory: {line[:200] or 'an allocation failed'}; {remedy}"
    if isinstance(error, OSError) and error.strerror:
        reason = " ".join(error.strerror.split())
        reason = reason[0].lower() + reason[1:]
        if error.filename is None:
            return reason
        return f"{error.filename}: {'no such file or folder' if isinstance(error, FileNotFoundError) else reason}"
    return line if isinstance(error, (ValueError, OSError, FloatingPointError)) else None


def deadline(minutes: float) -> float:
    """Return when, by ``time.monotonic``, to stop in a job of so many minutes; never for 0.

    That is two minutes before the end, or a tenth of the time of a short job.
    """
    return time.monotonic() + 60 * max(minutes - 2, 0.9 * minutes) if minutes else math.inf


@contextmanager
def handling(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Call ``handler`` on SIGTERM and on Ctrl-C."""
    before = {s: signal.signal(s, handler) for s in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def stopping(deadline: float) -> Iterator[Callable[[], bool]]:
    """Keep signals from ending the process. The work asks for them between two steps, with the function given."""
    signals: list[int] = []
    with handling(lambda number, _: signals.append(number)):
        yield lambda: bool(signals) or time.monotonic() > deadline


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stopping_at_once(message: str) -> Iterator[None]:
    """Raise Unfinished at the first signal. Later ones are ignored while the work ends."""

    def stop(*_: Any) -> None:
        ignore_signals()
        logging.disable()  # Threads and coroutines would warn of unfinished work.
        warnings.simplefilter("ignore")
        raise Unfinished(message)

    with handling(stop):
        yield
