"""Effective properties with guaranteed bounds, and the engineering constants that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array
from lspipe.cell.physics import ELASTICITY, Physics


class Interval(NamedTuple):
    """A property of N cells with its guaranteed bounds.

    Attributes:
        value: The property that follows from ``Effective.stiffness``.
        lower: Lower bound, of the same shape.
        upper: Upper bound, of the same shape.
    """

    value: Array
    lower: Array
    upper: Array


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
        iterations: Number of iterations, (N,), the mean over the unit strains.
        converged: Whether the gap reached the tolerance, (N,). For a cell with voids, this is an estimate.
        physics: Elasticity or conduction.
    """

    stiffness: Array
    lower: Array
    upper: Array
    gap: Array
    iterations: Array
    converged: NDArray[np.bool_]
    physics: Physics

    @property
    def entries(self) -> Interval:
        """Entries of the stiffness, (N, 6, 6)."""
        return Interval(self.stiffness, *_entry_bounds(self.lower, self.upper))

    @property
    def isotropic(self) -> Interval:
        """Bulk and shear modulus of the nearest isotropic stiffness, (N, 2); the mean conductivity (N, 1)."""
        return Interval(*(self.physics.moduli(C).T for C in (self.stiffness, self.lower, self.upper)))

    @property
    def cubic(self) -> Interval:
        """Moduli K, (C₁₁ − C₁₂)/2 and C₄₄ of the nearest stiffness with cubic symmetry about x, y, z, (N, 3)."""
        self._check_elastic("cubic")
        return Interval(*map(_cubic_moduli, (self.stiffness, self.lower, self.upper)))

    @property
    def young(self) -> Interval:
        """Young's moduli along x, y, z, (N, 3)."""
        return self._directional_moduli("young", slice(3))

    @property
    def shear(self) -> Interval:
        """Shear moduli in the planes yz, xz, xy, (N, 3)."""
        return self._directional_moduli("shear", slice(3, 6))

    @property
    def poisson(self) -> Interval:
        """Poisson's ratios (N, 3, 3): [n, i, j] is the contraction along j over the strain along i, for stress along i.

        The diagonal is NaN.
        """
        self._check_elastic("poisson")
        S, low, high = self._compliances[:, :, :3, :3]
        axial, axial_low, axial_high = (x.diagonal(axis1=1, axis2=2)[:, :, None] for x in (S, low, high))
        ratios = np.stack([-x / y for x in _entry_bounds(low, high) for y in (axial_low, axial_high)])
        lower, upper = np.nan_to_num(ratios.min(axis=0), nan=-np.inf), np.nan_to_num(ratios.max(axis=0), nan=np.inf)
        return Interval(*(np.where(np.eye(3), np.nan, x) for x in (-S / axial, lower, upper)))

    @property
    def anisotropy(self) -> Interval:
        """Universal anisotropy index 5 G_V/G_R + K_V/K_R − 6 (Ranganathan & Ostoja-Starzewski 2008), (N,).

        K_V and G_V are the moduli of the mean stiffness over all orientations, K_R and G_R those of the mean
        compliance. The index is 0 for an isotropic cell. For conductors, it is 3 k_V/k_R − 3.
        """
        stiffnesses, dimensions = (self.stiffness, self.lower, self.upper), self.physics.dimensions
        V, V_low, V_high = map(self.physics.moduli, stiffnesses)
        R, R_high, R_low = map(self.physics.compliance_moduli, self._compliances)
        value, lower, upper = (dimensions @ (v / r - 1) for v, r in ((V, R), (V_low, R_high), (V_high, R_low)))
        return Interval(value, np.maximum(np.nan_to_num(lower, nan=0.0), 0.0), np.nan_to_num(upper, nan=np.inf))

    @property
    def _compliances(self) -> Array:
        """Compliance, its lower and its upper bound, (3, N, strains, strains); NaN where there is none."""
        return np.stack([_invert(C) for C in (self.stiffness, self.upper, self.lower)])

    def _directional_moduli(self, name: str, components: slice) -> Interval:
        """Return the inverses (N, 3) of diagonal entries of the compliance."""
        self._check_elastic(name)
        value, upper, lower = 1 / self._compliances.diagonal(axis1=2, axis2=3)[..., components]
        return Interval(value, np.nan_to_num(lower, nan=0.0), upper)

    def _check_elastic(self, name: str) -> None:
        if self.physics is not ELASTICITY:
            raise ValueError(f"{name}: belongs to elasticity; these are cells of {self.physics.name}")


def _entry_bounds(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Return bounds on the entries of any matrix between two matrices (N, n, n) in the sense of energies.

    A matrix D between 0 and G has |D_ij − G_ij/2| ≤ ½ √(G_ii G_jj).
    """
    middle, gap = (lower + upper) / 2, np.maximum((upper - lower).diagonal(axis1=1, axis2=2), 0)
    radius = np.sqrt(gap[:, :, None] * gap[:, None, :]) / 2
    return middle - radius, middle + radius


def _cubic_moduli(C: Array) -> Array:
    """Return K, (C₁₁ − C₁₂)/2 and C₄₄ (N, 3), averaged over the axes: means over subspaces, which keep the order."""
    normal = C[:, :3, :3]
    trace, total = normal.trace(axis1=1, axis2=2), normal.sum(axis=(1, 2))
    return np.stack([total / 9, (trace - total / 3) / 4, C[:, 3:, 3:].trace(axis1=1, axis2=2) / 3], axis=1)


def _invert(C: Array) -> Array:
    """Return the inverses of matrices (N, n, n), NaN for those that are not positive definite."""
    is_positive = (np.linalg.eigvalsh(C)[:, 0] > 0)[:, None, None]
    return np.where(is_positive, np.linalg.inv(np.where(is_positive, C, np.eye(C.shape[-1]))), np.nan)
