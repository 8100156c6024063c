"""The classical bounds on effective stiffness and conductivity."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lspipe.cell.arguments import Materials, check_phase, join_materials
from lspipe.cell.medium import is_isotropic, stiffnesses
from lspipe.cell.numbers import Array
from lspipe.cell.physics import Physics
from lspipe.cell.problem import volume_fractions

# The axes of an icosahedron. The mean of Γ⁰, a polynomial of degree 4, over them is that over the sphere.
DIRECTIONS = np.array([np.roll([0, 1, s * (1 + 5**0.5) / 2], k) for k in range(3) for s in (1, -1)])


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
