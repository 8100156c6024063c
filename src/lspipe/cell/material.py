"""Linear materials and their form in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from lspipe.cell.grains import check_quaternions
from lspipe.cell.numbers import DOUBLE, Array, check_number, check_numbers, shorten
from lspipe.cell.physics import CONDUCTION, ELASTICITY, Physics

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

ORIENTATION = ("euler", "quaternion")
KINDS: dict[str, type[Material]] = {}  # classes of materials by their names in files
UNNAMED = {"young": "isotropic", "stiffness": "anisotropic", "conductivity": "conductor"}  # kinds that need no name


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
        cls.kind = kind or cls.__name__.lower()
        other = KINDS.setdefault(cls.kind, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls}: {other} has the kind {cls.kind!r} already; give another")
        KINDS[cls.kind] = cls  # a class that is defined anew, in a notebook, replaces the earlier one

    @property
    def expansion_strain(self) -> Array:
        """Free strain per unit of temperature, (strains,) with tensor shear."""
        return np.multiply(self.expansion, 1.0 if np.ndim(self.expansion) else self.physics.volumetric)

    def rotated(self, rotation: Rotation) -> Material:
        """Return the material turned in space, as Anisotropic or Conductor.

        Args:
            rotation: Rotation from the axes of the crystal to those of the cell. Bunge's Euler angles φ₁, Φ, φ₂ are
                ``Rotation.from_euler("ZXZ", angles, degrees=True)``.
        """
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
        if (young := check_number("young", self.young, DOUBLE, "a number, not negative")) < 0:
            raise ValueError(f"young = {young}: must be a number, not negative")
        if not -1 < (poisson := check_number("poisson", self.poisson)) < 0.5:
            raise ValueError(f"poisson = {poisson}: must lie between -1 and 0.5, both excluded")
        _set(self, young=young, poisson=poisson, expansion=check_expansion(self.expansion))

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
        _set(self, stiffness=C, expansion=check_expansion(self.expansion))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Anisotropic):
            return NotImplemented
        return np.array_equal(self.stiffness, other.stiffness) and self.expansion == other.expansion

    def __hash__(self) -> int:
        return hash((self.stiffness.tobytes(), self.expansion))


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


@dataclass(frozen=True)
class Void(Material):
    """Nothing: an elastic phase that carries no stress. The strain in it is not unique."""

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
        allowed = "a number, not negative, or (3, 3)"
        k = check_numbers("conductivity", self.conductivity, DOUBLE, allowed)
        if k.ndim:
            k = check_positive_definite("conductivity", k, 3)
        elif k < 0:
            raise ValueError(f"conductivity = {k}: must be {allowed}")
        object.__setattr__(self, "conductivity", tuple(map(tuple, k.tolist())) if k.ndim else float(k))  # hashable

    @property
    def stiffness(self) -> Array:
        return np.multiply(self.conductivity, 1.0 if np.ndim(self.conductivity) else np.eye(3))


def write_material(material: Material) -> dict[str, Any]:
    """Return the kind and the parameters of a material as values for JSON. An expansion of 0 is left out."""
    parameters: Any = {field.name: getattr(material, field.name) for field in fields(material)}  # type: ignore[arg-type]
    if parameters.get("expansion") == 0:
        del parameters["expansion"]
    return {"kind": material.kind} | {name: np.asarray(value).tolist() for name, value in parameters.items()}


def read_material(values: Mapping[str, Any]) -> Material:
    """Return the material that ``write_material`` wrote, or that a user describes.

    Args:
        values: ``kind`` with the parameters of this kind. The kind may be left out where ``young``, ``stiffness`` or
            ``conductivity`` tells it. ``euler`` (Bunge's angles φ₁, Φ, φ₂ in degrees) or ``quaternion`` (w, x, y, z)
            turns the material from the axes of the crystal to those of the cell.

    Raises:
        ValueError: The kind is unknown or missing, or the parameters are not those of the kind.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", next((k for name, k in UNNAMED.items() if name in parameters), None))
    if kind not in KINDS:
        raise ValueError(
            f"kind = {shorten(kind)}: must be one of {', '.join(KINDS)}; import the module that defines a kind of your "
            "own first"
        )
    orientation = {key: parameters.pop(key) for key in ORIENTATION if key in parameters}
    allowed = {field.name: field.default is MISSING for field in fields(KINDS[kind])}  # type: ignore[arg-type]
    if unknown := [name for name in parameters if name not in allowed]:
        raise ValueError(f"{unknown[0]} is no key of {kind}; allowed here: {', '.join([*allowed, *ORIENTATION])}")
    if missing := [name for name, is_required in allowed.items() if is_required and name not in parameters]:
        raise ValueError(f"{missing[0]} is missing; {kind} needs {', '.join(n for n in allowed if allowed[n])}")
    material = KINDS[kind](**parameters)
    return material.rotated(read_orientation(**orientation)) if orientation else material


def read_orientation(euler: Any = None, quaternion: Any = None) -> Rotation:
    """Return the rotation from the axes of a crystal to those of the cell.

    Args:
        euler: Bunge's angles φ₁, Φ, φ₂ in degrees.
        quaternion: Unit quaternion w, x, y, z, in place of the angles.
    """
    from scipy.spatial.transform import Rotation  # takes long to import, and few materials need it

    if (euler is None) == (quaternion is None):
        raise ValueError("euler and quaternion: must give one of the two")
    if quaternion is not None:
        return Rotation.from_quat(check_quaternions("quaternion", quaternion), scalar_first=True)
    angles = check_numbers("euler", euler)
    if angles.shape != (3,):
        raise ValueError(f"euler = {shorten(euler)}: must be three angles in degrees")
    return Rotation.from_euler("ZXZ", angles, degrees=True)


def without_old_kind(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a material as the version wrote them that did not write these kinds."""
    return {k: v for k, v in values.items() if k != "kind" or v not in UNNAMED.values()}


def _set(material: Material, **values: Any) -> None:
    """Set attributes of a frozen material to checked values."""
    for name, value in values.items():
        object.__setattr__(material, name, value)


def _check_constants(material: Material, *names: str) -> list[float]:
    """Return the constants of a crystal as floats; replace them, and its expansion, by checked values."""
    constants = {name: check_number(name, getattr(material, name), DOUBLE) for name in names}
    _set(material, **constants, expansion=check_expansion(material.expansion))
    return [*constants.values()]


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
