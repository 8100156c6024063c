"""Linear materials, the reference medium and the constant α of the error certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from lspipe.cell.numbers import DOUBLE, Array, number, numbers
from lspipe.cell.physics import CONDUCTION, ELASTICITY, Physics


class Material:
    """A linear material: ``stiffness`` (strains, strains), symmetric positive definite or 0, of one ``physics``."""

    physics: ClassVar[Physics]
    stiffness: Any


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


def parameters(material: Material) -> dict[str, Any]:
    """What JSON has of a material."""
    return {name: np.asarray(value).tolist() for name, value in vars(material).items()}


def material(**parameters: Any) -> Material:
    """The material that has these parameters. Raises ValueError where none has."""
    for kind in reversed(Material.__subclasses__()):  # a class that was defined anew comes last
        if signature(kind).parameters.keys() == parameters.keys():
            return kind(**parameters)
    raise ValueError(f"material = {parameters}: no material has these parameters")


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
