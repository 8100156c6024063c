"""The classical bounds on effective stiffness and conductivity."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lspipe.cell.arguments import Materials, check_phase, join_materials
from lspipe.cell.medium import is_isotropic, stiffnesses
from lspipe.cell.numbers import Array
from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem, volume_fractions

# The axes of an icosahedron. Γ⁰ is a polynomial of degree 4, so its mean over them is its mean over the sphere.
DIRECTIONS = np.array([np.roll([0, 1, s * (1 + 5**0.5) / 2], k) for k in range(3) for s in (1, -1)])


class Bounds(NamedTuple):
    """Bounds on the effective stiffness (N, 6, 6) or conductivity (N, 3, 3), in the sense of energies.

    Attributes:
        reuss: Lower bound for any cell (Wiener 1912 for conductors).
        voigt: Upper bound for any cell.
        lower: Lower bound where the composite is isotropic, which one random cell need not be (Hashin & Shtrikman 1962,
            1963, Walpole 1966). None where a phase is neither isotropic nor, with random orientations, cubic.
        upper: Upper bound where the composite is isotropic, or None.
    """

    reuss: Array
    voigt: Array
    lower: Array | None
    upper: Array | None


def bounds(phase: ArrayLike, materials: Materials, *, random_orientations: bool = False) -> Bounds:
    """Compute bounds on the effective stiffness or conductivity from the volume fractions of the phases.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, or one such list for each microstructure.
        random_orientations: Whether each phase is a polycrystal without texture, whose crystals of this material have
            all orientations equally often. Its bounds are isotropic. For one cubic crystal, ``lower`` and ``upper`` are
            those of Hashin & Shtrikman (1962).

    Raises:
        ValueError: An argument is not allowed; see ``solve``.
    """
    phase, materials = join_materials(phase, materials)
    return _bounds(phase, stiffnesses(materials), materials[0].physics, random_orientations)


def bounds_problem(phase: ArrayLike, problem: Problem, *, random_orientations: bool = False) -> Bounds:
    """Compute bounds for the materials or grains of a problem; see ``bounds``."""
    return _bounds(phase, problem.stiffnesses, problem.physics, random_orientations)


def _bounds(phase: ArrayLike, C: Array, physics: Physics, random_orientations: bool) -> Bounds:
    fractions, void = volume_fractions(check_phase(phase, len(C)), len(C)), ~C.any(axis=(1, 2), keepdims=True)

    def average(stiffness: Array) -> Array:
        return physics.isotropic_stiffness(physics.moduli(stiffness)) if random_orientations else stiffness

    def invert(stiffness: Any) -> Any:
        """Return the mean compliance of each phase over its orientations."""
        S: Any = np.linalg.inv(stiffness)
        return np.linalg.inv(physics.isotropic_stiffness(physics.compliance_moduli(S))) if random_orientations else S

    voigt = np.tensordot(fractions, average(C), 1)
    reuss: Any = np.linalg.inv(np.tensordot(fractions, invert(np.where(void, np.eye(C.shape[-1]), C)), 1))
    reuss[(fractions[:, void.ravel()] > 0).any(axis=1)] = 0.0
    moduli = _extreme_moduli(C, physics) if random_orientations or is_isotropic(C, physics) else None
    if moduli is None:
        return Bounds(reuss, voigt, None, None)

    def bound(f: Array, moduli0: Array) -> Any:
        """Return the composite (Σ f (C + C*)⁻¹)⁻¹ − C* (strains, strains) for a matrix of moduli ``moduli0``."""
        if not moduli0.all():
            return np.zeros_like(voigt[0])
        constraint = _constraint(moduli0, physics)
        return np.linalg.inv(np.tensordot(f, invert(C + constraint), 1)) - constraint

    least, most = moduli
    lower = np.stack([bound(f, least[:, f > 0].min(axis=1)) for f in fractions])
    upper = np.stack([bound(f, most[:, f > 0].max(axis=1)) for f in fractions])
    return Bounds(reuss, voigt, lower, upper)


def _extreme_moduli(C: Array, physics: Physics) -> Array | None:
    """Return the least and the largest modulus of each kind of each phase, (2, moduli, phases).

    Those of a cubic crystal are K, (C₁₁ − C₁₂)/2 and C₄₄. The result is None where a phase couples the strains on which
    different moduli act, such as volume and shear.
    """
    L = np.linalg.inv(np.linalg.cholesky(physics.isotropic.sum(axis=0)))
    C, projectors = L @ C @ L.T, L @ physics.isotropic @ L.T
    if any(np.abs(C @ Q - Q @ C).max() > 1e-9 * np.abs(C).max() for Q in projectors):
        return None
    spaces = [np.linalg.eigh(Q)[1][:, -round(Q.trace()) :] for Q in projectors]
    return np.stack([np.linalg.eigvalsh(V.T @ C @ V)[:, [0, -1]].T for V in spaces], axis=1)


def _constraint(moduli0: Array, physics: Physics) -> Array:
    """Return C* = P⁻¹ − C⁰ (strains, strains), where P is the mean of Γ⁰ over all directions."""
    C0 = physics.isotropic_stiffness(moduli0)
    B = np.tensordot(DIRECTIONS, physics.strain_operator, 1)  # Γ⁰ does not depend on their length
    gamma = B @ np.linalg.inv(B.mT @ C0 @ B) @ B.mT
    return np.linalg.inv(gamma.mean(axis=0)) - C0
