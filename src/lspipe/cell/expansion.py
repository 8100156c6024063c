"""Effective thermal expansion of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from lspipe.cell.arguments import Materials
from lspipe.cell.homogenize import join_problem
from lspipe.cell.numbers import Array
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem


def effective_expansion(
    phase: ArrayLike,
    materials: Materials,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-6,
    **options: Any,
) -> Array:
    """Compute the macroscopic strain of cells that expand without macroscopic stress, per unit of temperature.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, or one such list for each microstructure.
        spacing: Edge lengths of a voxel.
        scheme: Element; see ``solve``.
        tol: Tolerance of the solution.
        **options: Further options of ``solve``: max_iterations, device, warn.

    Returns:
        The thermal expansion (N, 6) in Voigt order with tensor shear.

    Raises:
        ValueError: An argument is not allowed; see ``solve``.
    """
    phase, problem = join_problem(phase, materials, spacing, scheme)
    return compute_effective_expansion(phase, problem, tol=tol, **options)


def compute_effective_expansion(phase: ArrayLike, problem: Problem, *, tol: float = 1e-6, **options: Any) -> Array:
    """Compute the effective expansion for the materials or grains of a problem; see ``effective_expansion``."""
    count = len(problem.strain)
    load = replace(problem, strain=(None,) * count, stress=(0.0,) * count, temperature=1.0)
    solution = solve_problem(phase, load, tol=tol, **options)
    assert solution.mean_strain is not None
    return solution.mean_strain
