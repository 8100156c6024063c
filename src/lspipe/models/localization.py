"""The predictor that consists of a trained network and the problems that it was trained for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lspipe.cell.arguments import Materials, check_load, check_phase, join_materials
from lspipe.cell.certificate import certify
from lspipe.cell.numbers import check_integer
from lspipe.cell.operator_torch import VOXELS
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.models.domain import Domain, find_domain, get_path, load_scale
from lspipe.models.network import Network

CPU_VOXELS = 2**19  # The most voxels in a batch on a CPU: 17 microstructures of 31³ voxels.


def at_once(device: str, grid: Sequence[int]) -> int:
    """Return the number of microstructures of nx×ny×nz voxels in a batch. On a GPU it is that of the solver."""
    return max(1, (VOXELS if device.startswith("cuda") else CPU_VOXELS) // math.prod(grid))


class LocalizationModel:
    """Predicts ε_xx, or all components of ε, for the problems that the network was trained for.

    Args:
        network: The trained network.
        domains: The problems that it was trained for. They differ in their loads alone unless it sees the moduli.
        mase_90: The MASE that 90 % of microstructures stay below, for each domain, where it is known.
        valid_grids: The numbers of voxels along x, y and z for which ``mase_90`` holds. Without any, it holds for all.
        training_seconds: The time of the training; NaN if it is not known.
    """

    def __init__(
        self,
        network: Network,
        domains: Sequence[Domain],
        mase_90: Sequence[float | None] = (),
        valid_grids: Sequence[Sequence[int]] = (),
        training_seconds: float = math.nan,
    ) -> None:
        self.network, self.domains = network, domains
        self.mase_90, self.valid_grids = mase_90 or [None] * len(domains), [tuple(grid) for grid in valid_grids]
        self.training_seconds = training_seconds

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def device(self) -> str:
        """The device of the weights."""
        return str(next(self.network.parameters()).device)

    @property
    def scheme(self) -> str:
        """The element of the training."""
        return self.domains[0].scheme

    @property
    def passes(self) -> int:
        """The number of passes of a prediction by default."""
        return self.network.passes

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of passes after which evaluation measures errors."""
        return self.network.counts

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Raise ValueError where images have other labels than those that the network was trained on."""
        if not self.network.sees_moduli:
            self.domains[0].check_labels(labels)

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
    ) -> Solution:
        """Predict the strain of microstructures, in the components that the network has.

        A model of a load path predicts the strain at the end of the step with this macroscopic strain.

        Args:
            scheme: The element; by default the one of the training.
            passes: The number of passes; by default all.

        The other arguments are those of ``solve``.

        Raises:
            ValueError: The network was not trained for this problem.
        """
        scheme = scheme or self.scheme
        if self.domains[0].path:
            if temperature:
                raise ValueError(f"temperature = {temperature:g}: must be 0, as in the training on a load path")
            check_load(ELASTICITY, strain, stress)
            path = PathProblem(materials, ((strain, stress),), scheme, spacing)  # type: ignore[arg-type]  # It makes tuples.
            return self.predict_problem(phase, Domain.of_step(path, 0), passes=passes)
        phase, materials = join_materials(phase, materials)
        problem = Problem(materials, strain, stress, temperature, scheme, spacing)  # type: ignore[arg-type]
        return self.predict_problem(phase, problem, passes=passes)

    def predict_problem(self, phase: ArrayLike, problem: Problem, *, passes: int | None = None) -> Solution:
        """Predict the strain of a problem; see ``predict``."""
        if passes is not None and check_integer("passes", passes, 0) not in range(1, self.passes + 1):
            raise ValueError(f"passes = {passes}: must lie between 1 and {self.passes}, the passes of this network")
        phase, problem, batches = self._forward(phase, problem, (passes or self.passes,))
        solution = self._solution(phase, problem, [iterates[-1] for iterates in batches])
        return self._assess(solution, phase, problem, passes or self.passes)

    def iterates(self, phase: ArrayLike, problem: Problem) -> Iterator[tuple[int, float, Solution]]:
        """Yield each number of passes, the seconds that the strain takes for it, and its prediction.

        All come from one run. The time of the run is divided equally among its passes.
        """
        began = time.perf_counter()
        phase, problem, batches = self._forward(phase, problem, self.counts)
        fields = list(zip(*batches, strict=True))
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        each = (time.perf_counter() - began) / self.passes
        for k, parts in zip(self.counts, fields, strict=True):
            began = time.perf_counter()
            solution = self._solution(phase, problem, parts)
            seconds = k * each + time.perf_counter() - began
            yield k, seconds, self._assess(solution, phase, problem, k)

    def _forward(
        self, phase: ArrayLike, problem: Problem, counts: Sequence[int]
    ) -> tuple[NDArray[np.integer], Problem, Iterator[list[Tensor]]]:
        """Return the phases (N, nx, ny, nz), the problem as it was trained, and the iterates batch by batch.

        For a step of a load path, the problem as it was trained states the whole path.
        """
        checked = check_phase(phase, problem.count)
        self.network.check_grid(checked.shape[1:])
        found = find_domain(problem, self.domains, self.network.sees_moduli)
        if found is not None and self.domains[found].path:
            problem = self.domains[found]

        def run(p: NDArray[np.integer]) -> list[Tensor]:
            with torch.inference_mode():
                return self.network.iterates(torch.from_numpy(p.astype(np.int32)).to(self.device), problem, counts)

        count = -(-len(checked) // at_once(self.device, checked.shape[1:]))
        return checked, problem, map(run, np.array_split(checked, count))

    def _solution(self, phase: NDArray[np.integer], problem: Problem, fields: Sequence[Tensor]) -> Solution:
        strain = torch.cat(list(fields)).cpu().numpy() * load_scale(problem)
        void = problem.stiffnesses.any(axis=(1, 2)) == 0
        strain.swapaxes(0, 1)[:, void[phase]] = np.nan
        return Solution(strain, problem.physics.components[: self.network.channels])

    def _assess(self, solution: Solution, phase: NDArray[np.integer], problem: Problem, passes: int) -> Solution:
        """Return a prediction with its residual, bound and ``mase_90`` where these are known without ground truth."""
        known: dict[str, Any] = {}
        knows_all = solution.components == problem.physics.components
        if knows_all and problem.stiffnesses.any(axis=(1, 2)).all() and not get_path(problem):
            residual, bound = certify(solution.strain, phase, problem, self.device)
            known = {"residual": residual, "bound": bound}
        found = find_domain(problem, self.domains, self.network.sees_moduli)
        mase_90 = None if found is None else self.mase_90[found]
        is_like_validation = passes == self.passes and (not self.valid_grids or phase.shape[1:] in self.valid_grids)
        if is_like_validation and mase_90 is not None:
            known["mase_90"] = np.full(len(phase), mase_90)
        return replace(solution, **known)
