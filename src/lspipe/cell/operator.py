"""The discrete operators of the periodic cell, and the extended vectors on which they act.

A cell of nx×ny×nz voxels has as many nodes, for opposite faces share theirs. The operators keep nodes 0 … n along
each axis, so that no stencil needs to wrap around. A displacement has equal values on opposite faces (it is
*extended*); a force has its value on the face of nodes 0, and 0 on that of nodes n. So inner products may
run over all of the nodes.

Beside its nodal part a Vector has a mean part: of a displacement, the uniform strain e on top of it; of a
force, the volume integral of the stress. So K (u, e) is all there is to know of a state: forces out of
balance, and mean stress.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lspipe.cell import element, transform
from lspipe.cell.material import Material, coercivity, decompose, reference, stiffnesses
from lspipe.cell.numbers import Array


class Vector(NamedTuple):
    """``nodal``: an engine's array over the nodes 0 … n; ``mean``: (N, strains) float64."""

    nodal: Any
    mean: Any


class Constants:
    """What the operators of a set of materials on one grid are made of, in float64; shared by all cells.

    ``C``: (phases, strains, strains), in units of ``modulus``; ``C0``: the reference medium; ``alpha``: (phases,),
    C ≥ α C⁰; ``volume``: of a voxel. The element matrix of phase p is Σ_b coefficients[p, b] matrices[b] with
    matrices (b, 8·d, 8·d), its stiffness the same sum over stiffness_matrices (b, strains, strains).
    ``B``: (strains, 8·d), the mean strain of a voxel. ``uniform``: (8·d, strains), corner displacements of a
    unit strain. ``bases``, ``symbol``: of K⁰⁻¹, see transform.py and element.green. ``working_precision``: single
    where the reference medium and the voxel's shape leave it digits enough to iterate in.
    """

    def __init__(
        self,
        materials: tuple[Material, ...],
        grid: tuple[int, int, int],
        spacing: tuple[float, float, float],
        scheme: str,
        modulus: float = 1.0,
    ) -> None:
        self.physics = materials[0].physics
        hexahedron = element.hexahedron(scheme, spacing, self.physics)
        self.grid = grid
        self.modulus = modulus
        self.C = stiffnesses(materials) / modulus
        self.C0 = reference(self.C, self.physics)
        self.alpha = coercivity(self.C, self.C0)
        self.volume = hexahedron.volume
        self.coefficients, self.stiffness_matrices = decompose(self.C, self.physics)
        self.matrices = hexahedron.stiffness(self.stiffness_matrices)
        self.B = hexahedron.mean
        self.uniform = element.uniform(spacing, self.physics.L)
        self.d = self.physics.d
        self.bases = transform.bases(grid, self.d) if transform.is_dense(grid) else None
        self.symbol = element.green(hexahedron, self.C0, transform.angles(grid))
        condition = np.linalg.cond(self.C0) * (max(spacing) / min(spacing)) ** 2
        self.working_precision = np.float32 if condition < 1e6 else np.float64


class Operator(Protocol):
    """What an engine does, for N cells at a time. A nodal part
    has float32 or float64, and the result the same."""

    constants: Constants
    batch: int  # cells at a time

    @property
    def xp(self) -> Any:
        """numpy or torch."""

    @property
    def threads(self) -> int:
        """Batches side by side."""

    def voxels(self, phase: NDArray[np.uint16]) -> Any:
        """``phase`` (N, nx, ny, nz) in the engine's form."""

    def vector(self, u: Array | None, mean: Array) -> Vector:
        """The extended displacement (N, d, nx, ny, nz), None being 0, with the uniform strain ``mean``."""

    def array(self, a: Array) -> Any:
        """An array of numpy's as one of ``xp``."""

    def numpy(self, a: Any) -> Array:
        """The other way."""

    def empty(self, count: int, dtype: Any) -> Vector:
        """A vector 0 to write to, in numpy's float32 or float64."""

    def nodes(self, x: Vector) -> Any:
        """Its nodal part as (N, d, nx+1, ny+1, nz+1), to read and write."""

    def scale(self, a: Any, x: Vector, out: Vector) -> Vector:
        """out ← a x, a (N,) or a number, in the precision of ``out``."""

    def axpby(self, a: Any, x: Vector, b: Any, y: Vector) -> Vector:
        """y ← a x + b y, a and b (N,) or numbers."""

    def inner(self, x: Vector, y: Vector) -> Any:
        """x·y (N,), of a displacement and a force."""

    def stiffness(self, voxels: Any, x: Vector, out: Vector) -> Vector:
        """out ← K x: nodal forces, and the volume integral of the stress."""

    def green(self, r: Vector, compliance: Array, out: Vector) -> Vector:
        """out ← K⁰⁻¹ r: the displacement of zero mean that r causes in the reference medium, and the mean strain
        ``compliance`` (strains, strains) times the mean part of r."""

    def fields(self, voxels: Any, x: Vector, displacement: Array, strain: Array, stress: Array) -> None:
        """Writes the displacement (N, d, nx, ny, nz) and the voxel means (N, strains, nx, ny, nz) of x and K x."""


@lru_cache(maxsize=2)
def operator(
    materials: tuple[Material, ...],
    grid: tuple[int, int, int],
    spacing: tuple[float, float, float],
    scheme: str,
    device: str = "cpu",
    modulus: float = 1.0,
) -> Operator:
    """The operator of these arguments; the last two are kept, for they serve many batches."""
    constants = Constants(materials, grid, spacing, scheme, modulus)
    if device == "cpu":
        from lspipe.cell.operator_numba import NumbaOperator

        return NumbaOperator(constants)
    from lspipe.cell.operator_torch import TorchOperator

    return TorchOperator(constants, device)
