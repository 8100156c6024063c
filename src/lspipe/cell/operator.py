"""The maps of the periodic cell problem: K, K⁰⁻¹, gradient and divergence of one microstructure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lspipe.cell import element
from lspipe.cell import operator_numba as kernels
from lspipe.cell.material import Isotropic, coercivity, reference, stiffnesses

Array = NDArray[np.float64]


class Operator:
    """The discrete operators of a set of materials on one grid, shared by all its microstructures.

    Nodal fields are (3, nx, ny, nz); voxel fields (6, nx, ny, nz) in Voigt order, strain with
    engineering shear; float64. ``C``: (phases, 6, 6); ``C0``: the reference medium; ``alpha``:
    C ≥ α C⁰; ``volume``: of a voxel.
    """

    def __init__(
        self,
        materials: tuple[Isotropic, ...],
        grid: tuple[int, int, int],
        spacing: tuple[float, float, float],
        scheme: str,
    ) -> None:
        hexahedron = element.hexahedron(scheme, spacing)
        self.grid = grid
        self.C = stiffnesses(materials)
        self.C0 = reference(self.C)
        self.alpha = coercivity(self.C, self.C0)
        self.volume = hexahedron.volume
        self.B = hexahedron.mean
        self.element_matrices = hexahedron.stiffness(self.C)
        self.green_symbol = element.green(hexahedron.stiffness(self.C0), grid)

    def stiffness(self, phase: NDArray[np.uint16], u: Array) -> Array:
        """K u: nodal forces of the displacement u."""
        return kernels.stiffness(phase, self.element_matrices, u)

    def green(self, r: Array) -> Array:
        """K⁰⁻¹ r: the displacement of zero mean that r causes in the reference medium."""
        transformed = fft.rfftn(r, axes=(1, 2, 3))
        kernels.multiply_symbol(self.green_symbol, transformed)
        return fft.irfftn(transformed, s=self.grid, axes=(1, 2, 3), overwrite_x=True)

    def gradient(self, u: Array) -> Array:
        """Strain of u, averaged over each voxel (= at its centre)."""
        return kernels.gradient(self.B, u)

    def divergence(self, stress: Array) -> Array:
        """Nodal forces of a voxel stress: u·divergence(σ) = −∫ gradient(u):σ."""
        return -self.volume * kernels.gradient_transposed(self.B, stress)


@lru_cache(maxsize=4)
def operator(
    materials: tuple[Isotropic, ...],
    grid: tuple[int, int, int],
    spacing: tuple[float, float, float],
    scheme: str,
) -> Operator:
    """The operator of these arguments; the last few are kept, for they serve many batches."""
    return Operator(materials, grid, spacing, scheme)
