"""The predictor that every network is measured beside: the solver itself, stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike

from lspipe.cell.material import Material
from lspipe.cell.solver import Solution, solve


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients:
    """``passes`` iterations of Green-preconditioned CG from zero displacement; 0: the macroscopic strain."""

    scheme: str = "bbar"
    device: str = "cpu"
    passes: ClassVar[int] = 5
    counts: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30)

    @property
    def parameters(self) -> int:
        return 0

    def under(self, scheme: str) -> Self:
        """This predictor on another element."""
        return replace(self, scheme=scheme)

    def predict(
        self,
        phase: ArrayLike,
        materials: Sequence[Material],
        strain: Sequence[float | None],
        stress: Sequence[float | None] | None = None,
        *,
        spacing: Sequence[float] = (1, 1, 1),
        passes: int | None = None,
        tol: float | None = None,
    ) -> Solution:
        """All components, with stress, displacement, residual and bound. Arguments as for ``solve``. ``passes``: 5,
        or with ``tol`` as many as it takes, and at most so many where given."""
        most = (self.passes if tol is None else 500) if passes is None else passes
        where: Any = {"spacing": spacing, "scheme": self.scheme, "device": self.device}
        return solve(phase, materials, strain, stress, **where, **self._until(most, tol), warn=tol is not None)

    def _until(self, most: int, tol: float | None) -> dict[str, Any]:
        """What ``solve`` is told of the start and the end of the iteration."""
        return {"tol": tol or 0, "max_iterations": most}
