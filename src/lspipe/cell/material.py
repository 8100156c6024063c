"""Linear materials, each of a kind that has a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from lspipe.cell.numbers import DOUBLE, Array, check_number, check_numbers, shorten
from lspipe.cell.physics import CONDUCTION, ELASTICITY, Physics
from lspipe.cell.registry import register

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation


class Material:
    """A linear material. A subclass is a dataclass of its parameters, which files name by its ``kind``.

    ``stiffness`` is (strains, strains) in the components of ``physics``, acting on engineering strain: symmetric
    positive definite, or 0 in a void. ``expansion`` is the free strain per unit of temperature: a number, or (strains,)
    with tensor shear. The kind is the name of the class in lower case, or is given:
    ``class Mine(Material, kind="my-material")``.

    Raises:
        TypeError: Another class has the kind of a new subclass.
    """

    physics: ClassVar[Physics]
    kind: ClassVar[str]
    stiffness: Any
    expansion: Any = 0.0

    def __init_subclass__(cls, kind: str = "") -> None:
        register(cls, kind)

    @property
    def expansion_strain(self) -> Array:
        """Free strain per unit of temperature, (strains,) with tensor shear."""
        return np.multiply(self.expansion, 1.0 if np.ndim(self.expansion) else self.physics.volumetric)

    def rotated(self, rotation: Rotation) -> Material:
        """Return the material turned in space, as Anisotropic or Conductor.

        Args:
            rotation: Rotation from the axes of the crystal to those of the cell. Bunge's Euler angles φ₁, Φ, φ₂ are
                ``Rotation.from_euler("ZXZ", angles, degrees=True)``.

        Raises:
            ValueError: There are several rotations.
        """
        if not rotation.single:
            raise ValueError(f"rotation: holds {len(rotation)} rotations; must be one")
        M = self.physics.rotate(rotation.as_matrix())
        C = M @ self.stiffness @ M.T
        if not C.any():
            return self
        return Conductor(C) if self.physics is CONDUCTION else Anisotropic(C, M @ self.expansion_strain)


@dataclass(frozen=True)
class Isotropic(Material):
    """Isotropic elastic material.

    Args:
        young: Young's modulus, not negative, in the unit of stress. It is 0 for a void.
        poisson: Poisson's ratio, between −1 and 0.5.
        expansion: Thermal expansion, the free strain per unit of temperature: a number, or six components xx, yy, zz,
            yz, xz, xy with tensor shear.

    Raises:
        ValueError: A value is outside of these limits.
    """

    physics = ELASTICITY
    young: float
    poisson: float
    expansion: Any = 0.0

    def __post_init__(self) -> None:
        if (young := check_number("young", self.young, DOUBLE, "a number ≥ 0")) < 0:
            raise ValueError(f"young = {young}: must be a number ≥ 0")
        if not -1 < (poisson := check_number("poisson", self.poisson)) < 0.5:
            raise ValueError(f"poisson = {poisson}: must lie between -1 and 0.5, both excluded")
        set_attributes(self, young=young, poisson=poisson, expansion=check_expansion(self.expansion))

    @property
    def stiffness(self) -> Array:
        """Stiffness (6, 6) in Voigt order, which acts on engineering shear."""
        bulk = self.young / (3 * (1 - 2 * self.poisson))
        shear = self.young / (2 * (1 + self.poisson))
        return self.physics.isotropic_stiffness(np.array([bulk, shear]))


@dataclass(frozen=True, eq=False)
class Anisotropic(Material):
    """Elastic material of any symmetry.

    Args:
        stiffness: Symmetric positive definite matrix (6, 6) in Voigt order xx, yy, zz, yz, xz, xy, in the unit of
            stress. It acts on engineering shear: σ_xy = C₆₆ γ_xy.
        expansion: Thermal expansion, as for ``Isotropic``.

    Raises:
        ValueError: The matrix has another shape or is not symmetric positive definite.
    """

    physics = ELASTICITY
    stiffness: Array
    expansion: Any = 0.0

    def __post_init__(self) -> None:
        C = check_positive_definite("stiffness", self.stiffness, 6)
        set_attributes(self, stiffness=C, expansion=check_expansion(self.expansion))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Anisotropic):
            return NotImplemented
        return np.array_equal(self.stiffness, other.stiffness) and self.expansion == other.expansion

    def __hash__(self) -> int:
        return hash((self.stiffness.tobytes(), self.expansion))


@dataclass(frozen=True)
class Void(Material):
    """Void: an elastic phase that carries no stress. The strain in it is not unique."""

    physics = ELASTICITY

    @property
    def stiffness(self) -> Array:
        """Stiffness (6, 6), which is 0."""
        return np.zeros((6, 6))


@dataclass(frozen=True)
class Conductor(Material):
    """Material that conducts heat or electricity.

    Args:
        conductivity: A number that is not negative, 0 for an insulator, or a symmetric positive definite matrix (3, 3).

    Raises:
        ValueError: The conductivity is neither.
    """

    physics = CONDUCTION
    conductivity: Any

    def __post_init__(self) -> None:
        allowed = "a number ≥ 0, or (3, 3)"
        k = check_numbers("conductivity", self.conductivity, DOUBLE, allowed)
        if k.ndim:
            k = check_positive_definite("conductivity", k, 3)
        elif k < 0:
            raise ValueError(f"conductivity = {k}: must be {allowed}")
        object.__setattr__(self, "conductivity", tuple(map(tuple, k.tolist())) if k.ndim else float(k))  # hashable

    @property
    def stiffness(self) -> Array:
        return np.multiply(self.conductivity, 1.0 if np.ndim(self.conductivity) else np.eye(3))


def set_attributes(material: Material, **values: Any) -> None:
    """Set attributes of a frozen material to checked values."""
    for name, value in values.items():
        object.__setattr__(material, name, value)


def check_expansion(expansion: Any) -> Any:
    """Return a number, or six of them as a tuple; raise ValueError for anything else."""
    allowed = "a number or six components (xx, yy, zz, yz, xz, xy)"
    alpha = check_numbers("expansion", expansion, DOUBLE, allowed)
    if alpha.shape not in ((), (6,)):
        raise ValueError(f"expansion = {shorten(expansion)}: must be {allowed}")
    return tuple(alpha.tolist()) if alpha.ndim else float(alpha)


def check_positive_definite(name: str, matrix: ArrayLike, size: int) -> Array:
    """Return a read-only copy (size, size); raise ValueError unless it is symmetric positive definite."""
    C = check_numbers(name, matrix, DOUBLE)
    if C.shape != (size, size):
        raise ValueError(f"{name} of shape {C.shape}: must be ({size}, {size}) and finite")
    if not np.allclose(C, C.T, rtol=1e-6, atol=1e-9 * np.abs(C).max()):
        raise ValueError(f"{name}: must be symmetric")
    if np.linalg.eigvalsh(C)[0] <= 0:
        raise ValueError(f"{name}: must be positive definite")
    C = (C + C.T) / 2
    C.flags.writeable = False
    return C
