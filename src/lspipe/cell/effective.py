"""Effective stiffness or conductivity of a cell, and the classical bounds on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import Materials, check_phase, join_materials
from lspipe.cell.medium import is_isotropic, stiffnesses
from lspipe.cell.numbers import Array
from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import solve_problem

# The axes of an icosahedron. The mean of Γ⁰, a polynomial of degree 4, over them is that over the sphere.
DIRECTIONS = np.array([np.roll([0, 1, s * (1 + 5**0.5) / 2], k) for k in range(3) for s in (1, -1)])


def effective_stiffness(
    phase: ArrayLike,
    materials: Materials,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-6,
    **options: Any,
) -> Array:
    """Compute C_eff with ⟨σ⟩ = C_eff:⟨ε⟩ from the mean stress under each unit strain.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, or one such list for each microstructure.
        spacing: Edge lengths of a voxel.
        scheme: Element; see ``solve``.
        tol: Tolerance of each solution.
        **options: Further options of ``solve``: max_iterations, device, warn.

    Returns:
        The stiffness (N, 6, 6) in Voigt order, which acts on engineering shear, in the unit of the moduli; the
        conductivity (N, 3, 3) for conductors.

    Raises:
        ValueError: An argument is not allowed; see ``solve``.
    """
    phase, problem = _join(phase, materials, spacing, scheme)
    return compute_effective_stiffness(phase, problem, tol=tol, **options)


def compute_effective_stiffness(phase: ArrayLike, problem: Problem, *, tol: float = 1e-6, **options: Any) -> Array:
    """Compute the effective stiffness for the materials or grains of a problem; see ``effective_stiffness``."""
    columns = []
    for unit in np.diag(problem.physics.tensor_factors):  # engineering shear 1
        load = replace(problem, strain=unit, stress=None, temperature=0.0)
        solution = solve_problem(phase, load, tol=tol, **options)
        assert solution.stress is not None
        columns.append(solution.stress.mean(axis=(2, 3, 4)))
    C = np.stack(columns, axis=2)
    return (C + C.transpose(0, 2, 1)) / 2  # Its asymmetry is an error below the tolerance.


effective_conductivity = effective_stiffness  # the name for conductors


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
    phase, problem = _join(phase, materials, spacing, scheme)
    return compute_effective_expansion(phase, problem, tol=tol, **options)


def compute_effective_expansion(phase: ArrayLike, problem: Problem, *, tol: float = 1e-6, **options: Any) -> Array:
    """Compute the effective expansion for the materials or grains of a problem; see ``effective_expansion``."""
    count = len(problem.strain)
    load = replace(problem, strain=(None,) * count, stress=(0.0,) * count, temperature=1.0)
    solution = solve_problem(phase, load, tol=tol, **options)
    assert solution.mean_strain is not None
    return solution.mean_strain


def _join(
    phase: ArrayLike, materials: Materials, spacing: Sequence[float], scheme: str
) -> tuple[NDArray[np.integer], Problem]:
    phase, materials = join_materials(phase, materials)
    no_load = (0.0,) * len(materials[0].physics.components)
    return phase, Problem(materials, no_load, scheme=scheme, spacing=spacing)  # type: ignore[arg-type]


class Bounds(NamedTuple):
    """Bounds on the effective stiffness (N, 6, 6) or conductivity (N, 3, 3), in the sense of energies.

    Attributes:
        reuss: Lower bound for any cell (Wiener 1912 for conductors).
        voigt: Upper bound for any cell.
        lower: Lower bound where the phases and the composite are isotropic, which one random cell need not be
            (Hashin & Shtrikman 1962, 1963, Walpole 1966). None for anisotropic phases.
        upper: Upper bound where the phases and the composite are isotropic. None for anisotropic phases.
    """

    reuss: Array
    voigt: Array
    lower: Array | None
    upper: Array | None


def bounds(phase: ArrayLike, materials: Materials) -> Bounds:
    """Compute bounds on the effective stiffness or conductivity from the volume fractions of the phases.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, or one such list for each microstructure.

    Raises:
        ValueError: An argument is not allowed; see ``solve``.
    """
    phase, materials = join_materials(phase, materials)
    C, physics = stiffnesses(materials), materials[0].physics
    checked = check_phase(phase, len(materials))
    fractions = volume_fractions(checked, len(materials))
    voigt = np.tensordot(fractions, C, 1)
    void = np.trace(C, axis1=1, axis2=2) == 0
    compliance: Any = np.linalg.inv(np.where(void[:, None, None], np.eye(C.shape[-1]), C))
    hollow = (fractions[:, void] > 0).any(axis=1)
    reuss = np.linalg.inv(np.tensordot(fractions, compliance, 1))
    reuss[hollow] = 0.0
    if not is_isotropic(C, physics):
        return Bounds(reuss, voigt, None, None)
    moduli = physics.moduli(C)
    lower, upper = (
        np.stack([_hashin_shtrikman(f, C, extreme(moduli[:, f > 0], axis=1), physics) for f in fractions])
        for extreme in (np.min, np.max)
    )
    return Bounds(reuss, voigt, lower, upper)


def _hashin_shtrikman(fractions: Array, C: Array, moduli0: Array, physics: Physics) -> Array:
    """Return the isotropic composite (Σ f (C + C*)⁻¹)⁻¹ − C*, (strains, strains), for a matrix of moduli ``moduli0``.

    C* is P⁻¹ − C⁰, where P is the mean of Γ⁰ over all directions.
    """
    C0 = physics.isotropic_stiffness(moduli0)
    if not moduli0.all():
        return np.zeros_like(C0)
    B = np.tensordot(DIRECTIONS, physics.strain_operator, 1)  # Γ⁰ does not depend on their length
    gamma = B @ np.linalg.inv(B.mT @ C0 @ B) @ B.mT
    constraint = np.linalg.inv(gamma.mean(axis=0)) - C0
    return np.linalg.inv(np.tensordot(fractions, np.linalg.inv(C + constraint), 1)) - constraint
