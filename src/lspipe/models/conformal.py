"""Split-conformal statements on the error of predictions (Vovk et al. 2005; Lei et al. 2018).

Errors of n microstructures that a network was not trained on, in ascending order, bound the error of another one that
is drawn like them: it is at most the one of rank ⌈(n + 1)·c⌉ with a probability of at least c.

Training also uses its validation set to choose the best epoch. The statement is exact for one epoch that was fixed
beforehand; the choice among a few epochs makes it slightly optimistic, and evaluation reports the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

COVERAGE = 0.9


def conformal_quantile(errors: Sequence[float], coverage: float = COVERAGE) -> float | None:
    """Return the error that another microstructure stays below with the probability ``coverage``.

    Args:
        errors: Errors of n microstructures from the same distribution.
        coverage: The probability, 0 to 1. It includes the random choice of the n microstructures.

    Returns:
        The error of rank ⌈(n + 1)·coverage⌉, or None where n is too small for one: for 90 %, below 9.
    """
    rank = math.ceil(round((len(errors) + 1) * coverage, 9))  # Rounding errors must not make 10 · 0.9 more than 9.
    return sorted(errors)[rank - 1] if 0 < rank <= len(errors) else None
