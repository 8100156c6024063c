"""Linear materials, the reference medium and the constant α of the error certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from lspipe.cell.numbers import DOUBLE, Array, number, numbers
from lspipe.cell.physics import CONDUCTION, ELASTICITY, Physics

KINDS: dict[str, type[Material]] = {}  # the classes of materials by the name that files have for them
# Parameters of the kinds that earlier versions wrote without their names.
UNNAMED = {"isotropic": {"young", "poisson"}, "anisotropic": {"stiffness"}, "conductor": {"conductivity"}}


class Material:
    """A linear material. A subclass is a dataclass of its parameters, which files name by its ``kind``.

    ``stiffness`` is (strains, strains) in the components of ``physics``, acting on engineering strain: symmetric
    positive definite, or 0 in a void. The kind is the name of the class in lower case, or is given:
    ``class Mine(Material, kind="my-material")``.

    Raises:
        TypeError: Another class has the kind of a new subclass.
    """

    physics: ClassVar[Physics]
    kind: ClassVar[str]
    stiffness: Any

    def __init_subclass__(cls, kind: str = "") -> None:
        cls.kind = kind or cls.__name__.lower()
        other = KINDS.setdefault(cls.kind, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls}: {other} has the kind {cls.kind!r} already; give another")
        KINDS[cls.kind] = cls  # a class that is defined anew, in a notebook, replaces the earlier one


@dataclass(frozen=True)
class Isotropic(Material):
    """Isotropic elastic material. ``young``: Young's modulus ≥ 0 (its unit is the stress unit), 0 being a
    void; ``poisson``: Poisson's ratio in (−1, 0.5). Raises ValueError outside."""

    physics = ELASTICITY
    young: float
    poisson: float

    def __post_init__(self) -> None:
        if (young := number("young", self.young, DOUBLE, "a number, not negative")) < 0:
            raise ValueError(f"young = {young}: must be a number, not negative")
        if not -1 < (poisson := number("poisson", self.poisson)) < 0.5:
            raise ValueError(f"poisson = {poisson}: must lie between -1 and 0.5, both excluded")
        object.__setattr__(self, "young", young)
        object.__setattr__(self, "poisson", poisson)

    @property
    def stiffness(self) -> Array:
        """(6, 6) stiffness in Voigt order, acting on engineering shear."""
        bulk = self.young / (3 * (1 - 2 * self.poisson))
        shear = self.young / (2 * (1 + self.poisson))
        return self.physics.stiffness(np.array([bulk, shear]))


@dataclass(frozen=True, eq=False)
class Anisotropic(Material):
    """Elastic material of any symmetry. ``stiffness``: (6, 6) in Voigt order xx, yy, zz, yz, xz, xy, acting
    on engineering shear (σ_xy = C₆₆ γ_xy), symmetric positive definite. Raises ValueError otherwise."""

    physics = ELASTICITY
    stiffness: Array

    def __post_init__(self) -> None:
        C = positive_definite("stiffness", self.stiffness, 6)
        object.__setattr__(self, "stiffness", C)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Anisotropic) and np.array_equal(self.stiffness, other.stiffness)

    def __hash__(self) -> int:
        return hash(self.stiffness.tobytes())


@dataclass(frozen=True)
class Conductor(Material):
    """Material that conducts heat, or electricity. ``conductivity``: a number ≥ 0, 0 being an insulator, or (3, 3),
    symmetric positive definite. Raises ValueError otherwise."""

    physics = CONDUCTION
    conductivity: Any

    def __post_init__(self) -> None:
        allowed = "a number, not negative, or (3, 3)"
        k = numbers("conductivity", self.conductivity, DOUBLE, allowed)
        if k.ndim:
            k = positive_definite("conductivity", k, 3)
        elif k < 0:
            raise ValueError(f"conductivity = {k}: must be {allowed}")
        object.__setattr__(self, "conductivity", tuple(map(tuple, k.tolist())) if k.ndim else float(k))  # to be hashed

    @property
    def stiffness(self) -> Array:
        return np.multiply(self.conductivity, 1.0 if np.ndim(self.conductivity) else np.eye(3))


def write_material(material: Material) -> dict[str, Any]:
    """Return the kind and the parameters of a material as values for JSON."""
    return {"kind": material.kind} | {name: np.asarray(value).tolist() for name, value in vars(material).items()}


def read_material(values: Mapping[str, Any]) -> Material:
    """Return the material that ``write_material`` wrote, or an earlier version, which wrote no kind.

    Raises:
        ValueError: The kind is unknown or missing, or the parameters are not those of the kind.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", next((k for k, names in UNNAMED.items() if parameters.keys() == names), None))
    if kind not in KINDS:
        raise ValueError(
            f"material = {dict(values)}: kind = {kind!r}: must be one of {', '.join(KINDS)}; import the module that "
            "defines a kind of your own first"
        )
    try:
        return KINDS[kind](**parameters)
    except TypeError as error:
        raise ValueError(f"material = {dict(values)}: {error}") from None


def without_old_kind(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a material as the version wrote them that did not write these kinds."""
    return {k: v for k, v in values.items() if k != "kind" or v not in UNNAMED}


def positive_definite(name: str, matrix: ArrayLike, size: int) -> Array:
    """A copy (size, size) that cannot be written to. Raises ValueError unless it is symmetric positive definite."""
    C = numbers(name, matrix, DOUBLE)
    if C.shape != (size, size):
        raise ValueError(f"{name} of shape {C.shape}: must be ({size}, {size}) and finite")
    if not np.allclose(C, C.T, rtol=1e-6, atol=1e-9 * np.abs(C).max()):
        raise ValueError(f"{name}: must be symmetric")
    if np.linalg.eigvalsh(C)[0] <= 0:
        raise ValueError(f"{name}: must be positive definite")
    C = (C + C.T) / 2
    C.flags.writeable = False
    return C


def stiffnesses(materials: Sequence[Material]) -> Array:
    """(phases, strains, strains)."""
    return np.stack([m.stiffness for m in materials])


def decompose(C: Array, physics: Physics) -> tuple[Array, Array]:
    """Coefficients (phases, b) and matrices (b, strains, strains) with C_p = Σ_b coefficients[p, b] matrices[b]: few
    ones where every phase is isotropic, the entries of a symmetric matrix otherwise."""
    if is_isotropic(C, physics):
        return physics.moduli(C).T @ np.linalg.inv(physics.sparse), physics.stiffness(physics.sparse.T)
    i, j = np.triu_indices(C.shape[-1])
    matrices = np.zeros((len(i), *C.shape[1:]))
    matrices[range(len(i)), i, j] = matrices[range(len(i)), j, i] = 1.0
    return C[:, i, j], matrices


def is_isotropic(C: Array, physics: Physics) -> bool:
    """Whether every phase of C (phases, strains, strains) is."""
    nearest = physics.stiffness(physics.moduli(C))
    return np.allclose(C, nearest, rtol=0, atol=1e-12 * np.abs(C).max(axis=(1, 2), keepdims=True))


def reference(C: Array, physics: Physics) -> Array:
    """The homogeneous isotropic medium C⁰ that preconditions phases C (phases, strains, strains): each modulus halfway
    between its extremes (Moulinec & Suquet 1998). ValueError for voids only."""
    if not C.any():
        raise ValueError("materials: all are voids")
    moduli = physics.moduli(C)
    return physics.stiffness((moduli.min(axis=1) + moduli.max(axis=1)) / 2)


def coercivity(C: Array, C0: Array) -> Array:
    """α (phases,): the smallest eigenvalue of each C (phases, strains, strains) relative to C⁰, so that C ≥ α C⁰."""
    return np.array([eigh(Cp, C0, eigvals_only=True)[0] if Cp.any() else 0.0 for Cp in C])
