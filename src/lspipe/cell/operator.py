"""The maps of the periodic cell problem: K, K⁰⁻¹, gradient and divergence of one microstructure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lspipe.cell import element
from lspipe.cell import operator_numba as kernels
from lspipe.cell.material import Material, coercivity, decompose, reference, stiffnesses
from lspipe.cell.transform import transform

Array = NDArray[np.float64]


class Operator:
    """The discrete operators of a set of materials on one grid, shared by all its microstructures.

    Nodal fields are (3, nx, ny, nz); voxel fields (6, nx, ny, nz) in Voigt order, strain with
    engineering shear; float64. ``C``: (phases, 6, 6); ``C0``: the reference medium; ``alpha``:
    (phases,), C ≥ α C⁰; ``volume``: of a voxel.
    """

    def __init__(
        self,
        materials: tuple[Material, ...],
        grid: tuple[int, int, int],
        spacing: tuple[float, float, float],
        scheme: str,
    ) -> None:
        hexahedron = element.hexahedron(scheme, spacing)
        self.C = stiffnesses(materials)
        self.C0 = reference(self.C)
        self.alpha = coercivity(self.C, self.C0)
        self.volume = hexahedron.volume
        self.B = _sparse(element.modal(hexahedron.mean, 3))
        self.coefficients, matrices = decompose(self.C)
        self.matrices = _sparse(np.concatenate([_congruent(hexahedron.stiffness(C)) for C in matrices]))
        self.transform = transform(element.green(hexahedron.stiffness(self.C0), grid), grid)

    def stiffness(self, phase: NDArray[np.uint16], u: Array, out: Array | None = None) -> Array:
        """K u: nodal forces of the displacement u."""
        out = np.empty_like(u) if out is None else out
        kernels.stiffness(phase, self.coefficients, *self.matrices, u, out)
        return out

    def green(self, r: NDArray[np.floating]) -> NDArray[np.floating]:
        """K⁰⁻¹ r: the displacement of zero mean that r causes in the reference medium, in the precision of r."""
        return self.transform(r)

    def gradient(self, u: Array) -> Array:
        """Strain of u, averaged over each voxel (= at its centre)."""
        return kernels.gradient(*self.B, u)

    def divergence(self, stress: Array) -> Array:
        """Nodal forces of a voxel stress: u·divergence(σ) = −∫ gradient(u):σ."""
        f = np.empty((3, *stress.shape[1:]))
        kernels.gradient_transposed(*self.B, stress, f)
        return -self.volume * f

    def stress(self, phase: NDArray[np.uint16], strain: Array) -> Array:
        """C(x):ε of a voxel strain."""
        return kernels.constitutive(self.C, phase, strain)


def _congruent(matrix: Array) -> Array:
    """An element matrix (24, 24) in the basis of the modes."""
    return element.modal(element.modal(matrix, 3).T, 3).T


def _sparse(matrix: Array) -> tuple[Array, NDArray[np.int32], NDArray[np.int32]]:
    """Entries, columns and row pointers of a matrix, rounding left out."""
    sparse = csr_array(np.where(np.abs(matrix) > 1e-12 * np.abs(matrix).max(), matrix, 0.0))
    return sparse.data, sparse.indices, sparse.indptr


@lru_cache(maxsize=4)
def operator(
    materials: tuple[Material, ...],
    grid: tuple[int, int, int],
    spacing: tuple[float, float, float],
    scheme: str,
) -> Operator:
    """The operator of these arguments; the last few are kept, for they serve many batches."""
    return Operator(materials, grid, spacing, scheme)
