"""Trivial predictors, to be measured beside the networks: the mean strain, and CG stopped early."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.typing import ArrayLike

from lspipe.cell.material import Isotropic
from lspipe.cell.solver import NotConverged, Solution, solve


@dataclass(frozen=True)
class Baseline:
    """``iterations`` of Green-preconditioned CG from zero displacement; 0: the macroscopic strain."""

    iterations: int
    scheme: str = "bbar"
    parameters: int = 0

    def under(self, scheme: str) -> Baseline:
        """This predictor on another element."""
        return replace(self, scheme=scheme)

    def predict(self, phase: ArrayLike, materials: Sequence[Isotropic], strain: Sequence[float | None]) -> Solution:
        """All six components, with residual and bound. Arguments as for ``solve``."""
        return self.iterates(phase, materials, strain)[-1]

    def iterates(
        self, phase: ArrayLike, materials: Sequence[Isotropic], strain: Sequence[float | None]
    ) -> list[Solution]:
        """The one field there is, in a list, as a network gives one for each pass."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConverged)
            return [solve(phase, materials, strain, scheme=self.scheme, tol=0, max_iterations=self.iterations)]


def baseline(name: str) -> Baseline | None:
    """The predictor called 'constant' or 'cg' and its number of iterations; None for other names."""
    if name == "constant":
        return Baseline(0)
    return Baseline(int(name[2:])) if re.fullmatch(r"cg[1-9]\d*", name) else None
