"""The baseline to which networks on load paths are compared: the solver with few increments and loose tolerances."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.path import Path, solve_path_problem
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution, solve_problem
from lspipe.cell.walk import find_ratio

ELASTIC = 1e-2  # relative residual of the elastic field, which is the first stage
STAGES = ((1, 0.1), (1, 0.03), (1, 0.01), (2, 0.01), (3, 3e-3), (5, 1e-3), (None, 1e-3))


@dataclass(frozen=True)
class PathBaseline:
    """Predicts the fields at the end of a step of a load path in stages, each more accurate than the one before.

    Stage 0 is the elastic field under the load of the step. Each of STAGES then follows the path from its beginning, in
    the given number of increments (None: one for each step) and to the given relative residual. All increments join the
    same number of steps. Where the load turns, an increment ends earlier.

    Args:
        path: The load path.
        step: The number of the step.
    """

    path: PathProblem
    step: int
    device: ClassVar[str] = "cpu"
    passes: ClassVar[int] = 3  # the stage that figures of fields show, one increment to 0.01
    parameters: ClassVar[int] = 0
    training_seconds: ClassVar[float] = 0.0

    @cached_property
    def stages(self) -> list[tuple[int, float]]:
        """The number of increments and the tolerance of each stage after the first."""
        stages = [(min(count or self.step + 1, self.step + 1), tol) for count, tol in STAGES]
        return [*{(*self.choose_steps(count), tol): (count, tol) for count, tol in stages}.values()]

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of the stages."""
        return tuple(range(len(self.stages) + 1))

    @property
    def names(self) -> list[str]:
        """The description of each stage in words."""
        numbers = [(len(self.choose_steps(count)), tol) for count, tol in self.stages]
        return ["elastic", *(f"{count} increment{'s' * (count > 1)}, tol {tol:g}" for count, tol in numbers)]

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Accept any labels of images: this predictor is told the material of each phase."""

    def iterates(self, phase: ArrayLike, problem: Problem) -> Iterator[tuple[int, float, Solution]]:
        """Yield the number of each stage, the seconds that it takes, and its field.

        Where a stage fails, its field is that of the stage before. ``green`` counts the iterations of conjugate
        gradients and the residuals, without those of line searches and of the parts of a cut step.
        """
        strain: NDArray[np.floating] = np.empty(0)
        for k in self.counts:
            began = time.perf_counter()
            if k:
                result = self._follow(phase, *self.stages[k - 1])
                has_failed = ~result.converged.all(axis=1)
                result.strain[has_failed, 0] = strain[has_failed]
                strain = result.strain[:, 0]
                green = (result.iterations + result.newton + result.cuts + result.converged).sum(axis=1)
            else:
                elastic = solve_problem(phase, problem, tol=ELASTIC, warn=False)
                strain, green = elastic.strain, elastic.green
            yield k, time.perf_counter() - began, Solution(strain, ELASTICITY.components, green=green)

    def choose_steps(self, count: int) -> list[int]:
        """Return steps that divide the path into ``count`` equal parts, and those between where the load turns."""
        loads = [[*strain, *(stress or [None] * 6)] for strain, stress in self.path.steps]
        numbers = np.array([[0.0] * 12, *loads], float)
        changes = np.nan_to_num(np.diff(numbers, axis=0))  # NaN where a component is not prescribed
        parts = -(-np.arange(1, count + 1) * (self.step + 1) // count) - 1
        turns, direction = [], changes[0]
        for t in range(self.step):
            if not find_ratio(changes[t + 1], direction):
                turns.append(t)
                direction = changes[t + 1]
        return sorted({*parts.tolist(), *turns})

    def _follow(self, phase: ArrayLike, count: int, tol: float) -> Path:
        """Follow the path in the steps that ``choose_steps`` names."""
        path = replace(self.path, steps=tuple(self.path.steps[t] for t in self.choose_steps(count)))
        return solve_path_problem(phase, path, tol=tol, warn=False)
