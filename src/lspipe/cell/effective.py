"""Effective properties with guaranteed bounds, and the engineering constants that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array
from lspipe.cell.physics import Physics


@dataclass(frozen=True)
class Effective:
    """Effective stiffness, or conductivity, of N cells.

    The bounds hold in the sense of energies: e·lower·e ≤ e·C_eff·e ≤ e·upper·e for every strain e. C_eff is the exact
    effective stiffness of the voxel grid with its elements.

    Attributes:
        stiffness: Stiffness (N, 6, 6) in Voigt order, which acts on engineering shear, in the unit of the moduli; the
            conductivity (N, 3, 3) of conductors. It is the energy of the computed fields.
        lower: Guaranteed lower bound, of the same shape. It is 0 for a cell with voids, where none is known.
        upper: Guaranteed upper bound, of the same shape.
        gap: Largest e·(upper − lower)·e / e·upper·e over all strains e, (N,). It is 1 for a cell with voids.
        iterations: Number of iterations for each unit strain, (N,).
        converged: Whether the gap reached the tolerance, (N,). For a cell with voids, this is an estimate.
        physics: Elasticity or conduction.
    """

    stiffness: Array
    lower: Array
    upper: Array
    gap: Array
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    physics: Physics
