"""The baseline to which every network is compared: the solver, stopped after a few iterations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from lspipe.cell.arguments import Materials, join_materials
from lspipe.cell.numbers import check_integer
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution, Start, iterates, solve_problem


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients:
    """Predicts by Green-preconditioned conjugate gradients from zero displacement. A pass is an iteration.

    Args:
        scheme: The element of ``predict`` where no other is given.
        device: 'cpu' or a CUDA device.
        training_seconds: The time of the training, 0 without one; NaN if it is not known.
    """

    scheme: str = "bbar"
    device: str = "cpu"
    training_seconds: float = 0.0
    passes: ClassVar[int] = 5
    counts: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30)

    @property
    def parameters(self) -> int:
        """The number of weights: none."""
        return 0

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Accept any labels of images: this predictor is told the material of each phase."""

    def predict(
        self,
        phase: ArrayLike,
        materials: Materials,
        strain: Sequence[float | None],
        stress: Sequence[float | None] | None = None,
        *,
        temperature: float = 0.0,
        spacing: Sequence[float] = (1, 1, 1),
        scheme: str | None = None,
        passes: int | None = None,
        tol: float | None = None,
    ) -> Solution:
        """Predict the fields of microstructures, with residual and bound.

        Args:
            scheme: The element; by default the one of this predictor.
            passes: The number of passes. Without it, 5, or with ``tol`` as many as it takes.
            tol: The relative residual at which passes end.

        The other arguments are those of ``solve``.
        """
        phase, materials = join_materials(phase, materials)
        problem = Problem(materials, strain, stress, temperature, scheme or self.scheme, spacing)  # type: ignore[arg-type]
        return self.predict_problem(phase, problem, passes=passes, tol=tol)

    def predict_problem(
        self, phase: ArrayLike, problem: Problem, *, passes: int | None = None, tol: float | None = None
    ) -> Solution:
        """Predict the fields of a problem; see ``predict``."""
        most = (self.passes if tol is None else 500) if passes is None else check_integer("passes", passes, 0)
        return solve_problem(phase, problem, device=self.device, warn=tol is not None, **self._until(most, tol))

    def iterates(
        self, phase: ArrayLike, problem: Problem, *, counts: Sequence[int] | None = None
    ) -> Iterator[tuple[int, float, Solution]]:
        """Yield each number of passes in ``counts``, the seconds that ``predict`` takes for it, and its prediction.

        All come from one run. The default of ``counts`` is that of the class.
        """
        stops = self.counts if counts is None else counts
        return iterates(phase, problem, counts=stops, start=self._start(stops), device=self.device)

    def _start(self, counts: Sequence[int]) -> Start | None:
        """Return the function that computes fields in place of the iterations, if there is one."""
        return None

    def _until(self, most: int, tol: float | None) -> dict[str, Any]:
        """Return the arguments of ``solve`` for the start and the end of the iteration."""
        return {"tol": tol or 0, "max_iterations": most}
