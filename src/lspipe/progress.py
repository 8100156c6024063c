"""Progress of long work: a bar on a terminal, or a line every 10 s in a log."""

from __future__ import annotations

import sys
from typing import TextIO, cast

from tqdm import tqdm


class _Lines:
    """Standard error, where each update of a bar is a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(label: str, total: int, unit: str, initial: int = 0, is_shown: bool = True) -> tqdm:
    """Return a tqdm bar with rate and remaining time; advance it with ``update(n)``."""
    if not is_shown:
        return tqdm(disable=True)
    if sys.stderr.isatty():
        return tqdm(desc=label, total=total, unit=unit, initial=initial)
    lines = cast(TextIO, _Lines())
    return tqdm(desc=label, total=total, unit=unit, initial=initial, ascii=True, ncols=120, mininterval=10, file=lines)
