"""Elastic crystals that are given by the constants of their symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lspipe.cell.material import Material, check_expansion, set_attributes
from lspipe.cell.numbers import DOUBLE, Array, check_number
from lspipe.cell.physics import ELASTICITY


@dataclass(frozen=True)
class Cubic(Material):
    """Elastic crystal of cubic symmetry, with the edges of its unit cell along x, y, z; see ``rotated``.

    Args:
        c11: Elastic constant C₁₁ in the unit of stress.
        c12: Elastic constant C₁₂.
        c44: Elastic constant C₄₄, the shear modulus on the cube faces.
        expansion: Thermal expansion, as for ``Isotropic``.

    Raises:
        ValueError: The crystal is not stable.
    """

    physics = ELASTICITY
    c11: float
    c12: float
    c44: float
    expansion: Any = 0.0

    def __post_init__(self) -> None:
        c11, c12, c44 = _check_constants(self, "c11", "c12", "c44")
        if not (c11 > abs(c12) and c11 + 2 * c12 > 0 and c44 > 0):
            raise ValueError(
                f"c11 = {c11:g}, c12 = {c12:g}, c44 = {c44:g}: must have c11 > |c12|, c11 + 2 c12 > 0 and c44 > 0; "
                "such a crystal is not stable"
            )

    @property
    def stiffness(self) -> Array:
        """Stiffness (6, 6) in Voigt order, which acts on engineering shear."""
        C = np.diag([self.c11 - self.c12] * 3 + [self.c44] * 3)
        C[:3, :3] += self.c12
        return C


@dataclass(frozen=True)
class Hexagonal(Material):
    """Elastic crystal of hexagonal symmetry, or a transversely isotropic material, with its axis along z.

    Args:
        c11: Elastic constant C₁₁ in the unit of stress.
        c12: Elastic constant C₁₂. C₆₆ is (C₁₁ − C₁₂)/2.
        c13: Elastic constant C₁₃.
        c33: Elastic constant C₃₃, along the axis.
        c44: Elastic constant C₄₄.
        expansion: Thermal expansion, as for ``Isotropic``.

    Raises:
        ValueError: The crystal is not stable.
    """

    physics = ELASTICITY
    c11: float
    c12: float
    c13: float
    c33: float
    c44: float
    expansion: Any = 0.0

    def __post_init__(self) -> None:
        c11, c12, c13, c33, c44 = _check_constants(self, "c11", "c12", "c13", "c33", "c44")
        if not (c11 > abs(c12) and c33 * (c11 + c12) > 2 * c13**2 and c44 > 0):
            raise ValueError(
                f"c11 = {c11:g}, c12 = {c12:g}, c13 = {c13:g}, c33 = {c33:g}, c44 = {c44:g}: must have c11 > |c12|, "
                "c33 (c11 + c12) > 2 c13² and c44 > 0; such a crystal is not stable"
            )

    @property
    def stiffness(self) -> Array:
        """Stiffness (6, 6) in Voigt order, which acts on engineering shear."""
        C = np.diag([self.c11, self.c11, self.c33, self.c44, self.c44, (self.c11 - self.c12) / 2])
        for i, j, c in ((0, 1, self.c12), (0, 2, self.c13), (1, 2, self.c13)):
            C[i, j] = C[j, i] = c
        return C


def _check_constants(material: Material, *names: str) -> list[float]:
    """Return the constants of a crystal as floats; replace them, and its expansion, by checked values."""
    constants = {name: check_number(name, getattr(material, name), DOUBLE) for name in names}
    set_attributes(material, **constants, expansion=check_expansion(material.expansion))
    return [*constants.values()]
