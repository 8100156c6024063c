"""Linear elastic materials, the reference medium and the constant α of the error certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Array = NDArray[np.float64]

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
TENSOR_SHEAR = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])  # tensor strain = TENSOR_SHEAR · engineering strain


@dataclass(frozen=True)
class Isotropic:
    """Isotropic elastic material. ``young``: Young's modulus ≥ 0 (its unit is the stress unit), 0 being a
    void; ``poisson``: Poisson's ratio in (−1, 0.5). Raises ValueError outside."""

    young: float
    poisson: float

    def __post_init__(self) -> None:
        if not 0 <= self.young < np.inf:
            raise ValueError(f"young = {self.young}: must be a number, not negative")
        if not -1 < self.poisson < 0.5:
            raise ValueError(f"poisson = {self.poisson}: must lie between -1 and 0.5, both excluded")

    @property
    def stiffness(self) -> Array:
        """(6, 6) stiffness in Voigt order, acting on engineering shear."""
        bulk = self.young / (3 * (1 - 2 * self.poisson))
        shear = self.young / (2 * (1 + self.poisson))
        return isotropic_stiffness(bulk, shear)


@dataclass(frozen=True, eq=False)
class Anisotropic:
    """Elastic material of any symmetry. ``stiffness``: (6, 6) in Voigt order xx, yy, zz, yz, xz, xy, acting
    on engineering shear (σ_xy = C₆₆ γ_xy), symmetric positive definite. Raises ValueError otherwise."""

    stiffness: Array

    def __post_init__(self) -> None:
        C = np.array(self.stiffness, dtype=np.float64)
        if C.shape != (6, 6) or not np.isfinite(C).all():
            raise ValueError(f"stiffness of shape {C.shape}: must be (6, 6) and finite")
        if not np.allclose(C, C.T, rtol=1e-6, atol=1e-9 * np.abs(C).max()):
            raise ValueError("stiffness: must be symmetric")
        if np.linalg.eigvalsh(C)[0] <= 0:
            raise ValueError("stiffness: must be positive definite")
        C = (C + C.T) / 2
        C.flags.writeable = False
        object.__setattr__(self, "stiffness", C)


Material = Isotropic | Anisotropic


def isotropic_stiffness(bulk: float, shear: float) -> Array:
    """(6, 6) Voigt stiffness of bulk and shear modulus."""
    C = np.diag([2.0 * shear] * 3 + [1.0 * shear] * 3)
    C[:3, :3] += bulk - 2 * shear / 3
    return C


def stiffnesses(materials: Sequence[Material]) -> Array:
    """(phases, 6, 6)."""
    return np.stack([m.stiffness for m in materials])


def decompose(C: Array) -> tuple[Array, Array]:
    """Coefficients (phases, b) and constant matrices (b, 6, 6) with C_p = Σ_b coefficients[p, b] matrices[b]:
    λ and μ where every phase is isotropic, the 21 entries of a symmetric matrix otherwise."""
    if is_isotropic(C):
        return C[:, [0, 3], [1, 3]], np.stack([isotropic_stiffness(1, 0), isotropic_stiffness(2 / 3, 1)])
    i, j = np.triu_indices(6)
    matrices = np.zeros((len(i), 6, 6))
    matrices[range(len(i)), i, j] = matrices[range(len(i)), j, i] = 1.0
    return C[:, i, j], matrices


def moduli(C: Array) -> tuple[Array, Array]:
    """Bulk and shear modulus (phases,) of the isotropic stiffness nearest to each C (phases, 6, 6)."""
    bulk = C[:, :3, :3].mean(axis=(1, 2))
    deviatoric = np.trace(C[:, :3, :3], axis1=1, axis2=2) - 3 * bulk
    return bulk, (deviatoric + 2 * np.trace(C[:, 3:, 3:], axis1=1, axis2=2)) / 10


def is_isotropic(C: Array) -> bool:
    """Whether every phase of C (phases, 6, 6) is."""
    nearest = [isotropic_stiffness(bulk, shear) for bulk, shear in zip(*moduli(C), strict=True)]
    return np.allclose(C, nearest, rtol=0, atol=1e-12 * np.abs(C).max(axis=(1, 2), keepdims=True))


def reference(C: Array) -> Array:
    """The homogeneous isotropic medium C⁰ (6, 6) that preconditions phases C (phases, 6, 6):
    bulk and shear modulus halfway between their extremes (Moulinec & Suquet 1998). ValueError for voids only."""
    if not C.any():
        raise ValueError("materials: all are voids")
    return isotropic_stiffness(*((x.min() + x.max()) / 2 for x in moduli(C)))


def coercivity(C: Array, C0: Array) -> Array:
    """α (phases,): the smallest eigenvalue of each C (phases, 6, 6) relative to C⁰, so that C ≥ α C⁰."""
    return np.array([eigh(Cp, C0, eigvals_only=True)[0] if Cp.any() else 0.0 for Cp in C])
