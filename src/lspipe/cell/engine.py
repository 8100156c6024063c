"""The choice of the engine that applies the operators of the cell problem."""

from __future__ import annotations

import warnings
from functools import lru_cache

from lspipe.cell.operator import Constants, Operator
from lspipe.cell.problem import Problem
from lspipe.cell.transform import Grid, is_dense

VOIDS = "scheme: 'reduced' with voids takes hundreds of iterations or does not converge; use 'bbar' or 'full'"


@lru_cache(maxsize=2)
def build_operator(problem: Problem, grid: Grid, device: str) -> Operator:
    """Return the operators of a problem on a grid of nx×ny×nz voxels.

    The last two results are cached, because they serve many cells. They do not depend on the load: pass
    ``problem.without_load``, so that other loads find them too.
    """
    if problem.scheme == "reduced" and not problem.stiffnesses.any(axis=(1, 2)).all():
        warnings.warn(VOIDS, stacklevel=2)
    if device == "cpu":
        from lspipe.cell.operator_numba import NumbaOperator

        return NumbaOperator(Constants(problem, grid, is_dense(grid)))
    from lspipe.cell.operator_torch import DENSE, TorchOperator  # PyTorch takes seconds to import.

    return TorchOperator(Constants(problem, grid, max(grid) <= DENSE), device)
