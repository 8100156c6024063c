"""The residual and the guaranteed error of a strain field that comes without a displacement, as from a network.

A strain field is compatible if it is the mean strain of the voxels under a displacement u. The one nearest to any field
ε, in the energy norm of the reference medium C⁰, solves

    BᵀC⁰B u = BᵀC⁰ ε,

where B is the mean strain of a voxel. The matrix is K⁰ of the element with one integration point, whatever the element
of the problem is. The solver then states the residual and the bound of u. The triangle inequality gives the bound
of ε.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import check_phase
from lspipe.cell.element import CORNERS, hexahedron, inverse_symbol
from lspipe.cell.medium import reference
from lspipe.cell.numbers import Array
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem
from lspipe.cell.transform import angles


def find_displacement(strain: NDArray[np.floating], problem: Problem) -> Array:
    """Return the periodic displacement whose mean strains in the voxels are nearest to a strain field.

    Args:
        strain: Strain (N, strains, nx, ny, nz) with tensor shear, finite everywhere.
        problem: The problem, of which materials, spacing and physics count.

    Returns:
        The displacement (N, d, nx, ny, nz) float64 of mean 0 at the nodes, in the unit of the spacing. Displacements
        that alternate along two or three axes of an even number of voxels are absent, for they have no mean strain.
    """
    from scipy import fft  # takes half a second to import

    physics, grid, axes = problem.physics, strain.shape[2:], (2, 3, 4)
    element, C0 = hexahedron("reduced", problem.spacing, physics), reference(problem.stiffnesses, physics)
    stress = element.volume * np.einsum("st,nt...->ns...", C0 / physics.tensor_factors, strain, dtype=np.float64)
    B = element.mean.reshape(-1, 8, physics.d)
    force = sum(
        np.roll(np.einsum("sc,ns...->nc...", B[:, a], stress), corner, axes) for a, corner in enumerate(CORNERS)
    )
    symbol = inverse_symbol(element, C0, tuple(angles(grid, dense=False)))
    return fft.irfftn(np.einsum("ab...,nb...->na...", symbol, fft.rfftn(force, axes=axes)), s=grid, axes=axes)


def certify(
    strain: NDArray[np.floating], phase: ArrayLike, problem: Problem, device: str = "cpu"
) -> tuple[Array, Array]:
    """Compute the residual and a guaranteed bound on the error of strain fields.

    Args:
        strain: All components of the strain, (N, strains, nx, ny, nz), with tensor shear.
        phase: (N, nx, ny, nz).
        problem: The problem, which prescribes the macroscopic strain and has no voids.
        device: As for ``solve``.

    Returns:
        For the nearest compatible field, the energy norm of the residual relative to that of the load, (N,). For the
        field itself, an upper bound on the energy norm of the error of the voxel means, relative to that of the nearest
        compatible field over the integration points, (N,).
    """
    phase = check_phase(phase, problem.count)
    u = find_displacement(strain, problem)
    nearest = solve_problem(phase, problem, start=u, tol=0, max_iterations=0, device=device, warn=False)
    assert nearest.residual is not None
    assert nearest.bound is not None
    off, size = (problem.compute_energy(phase, field) for field in (strain - nearest.strain, nearest.strain))
    return nearest.residual, nearest.bound + np.sqrt(off / size)
