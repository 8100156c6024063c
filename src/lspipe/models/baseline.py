"""The predictor that every network is measured beside: the solver itself, stopped early."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from lspipe.cell.material import Material
from lspipe.cell.solver import NotConverged, Solution, solve


@dataclass(frozen=True)
class ConjugateGradients:
    """``passes`` iterations of Green-preconditioned CG from zero displacement; 0: the macroscopic strain."""

    scheme: str = "bbar"
    device: str = "cpu"
    parameters: ClassVar[int] = 0
    passes: ClassVar[int] = 5
    counts: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30)

    def under(self, scheme: str) -> ConjugateGradients:
        """This predictor on another element."""
        return replace(self, scheme=scheme)

    def predict(
        self,
        phase: ArrayLike,
        materials: Sequence[Material],
        strain: Sequence[float | None],
        stress: Sequence[float | None] | None = None,
        *,
        passes: int | None = None,
        tol: float | None = None,
    ) -> Solution:
        """All six components, with residual and bound. Arguments as for ``solve``. ``passes``: 5, or with ``tol`` as
        many as it takes, and at most so many where given."""
        most = (self.passes if tol is None else 500) if passes is None else passes
        until: Any = {"tol": tol or 0, "max_iterations": most}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConverged)
            return solve(phase, materials, strain, stress, scheme=self.scheme, device=self.device, **until)
