"""The discrete operators of the periodic cell, and the extended vectors on which they act.

A cell of nx×ny×nz voxels has as many nodes, because opposite faces share theirs. The operators store nodes 0 … n along
each axis, so that no stencil has to wrap around. A displacement has equal values on opposite faces (it is *extended*).
A force has its value on the face of nodes 0, and 0 on the face of nodes n. An inner product of the two may therefore
run over all stored nodes.

Beside its nodal part a Vector has a mean part. That of a displacement is the macroscopic strain e; that of a force is
the volume integral of the stress. K (u, e) consists of the nodal forces and the integral of the stress.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lspipe.cell import element, transform
from lspipe.cell.medium import TRIANGLE, coercivity, decompose, reference
from lspipe.cell.numbers import Array, find_scale
from lspipe.cell.problem import Problem
from lspipe.cell.transform import Grid

Rows = tuple[tuple[float, ...], ...]


class Vector(NamedTuple):
    """A displacement or a force of N cells.

    Attributes:
        nodal: Values at the nodes 0 … n, in the form of the engine.
        mean: Macroscopic strain, or volume integral of the stress, (N, strains).
    """

    nodal: Any
    mean: Any


class Constants:
    """The numbers in the operators of a problem on one grid, in float64; all cells share them.

    The element matrix of phase p is Σ_b coefficients[p, b] matrices[b]; its stiffness is the same sum of
    ``stiffness_matrices``. Attributes with ``modal`` in their name refer to the modes of a voxel,
    element.MODES, not to its corners.

    Attributes:
        length: Unit of length.
        modulus: Unit of the stiffness.
        C: Stiffness of each phase, (phases, strains, strains).
        C0: Stiffness of the reference medium.
        alpha: Largest numbers, (phases,), such that C ≥ α C⁰.
        volume: Volume of a voxel.
        coefficients: (phases, b).
        stiffness_matrices: (b, strains, strains).
        matrices: (b, 8·d, 8·d) for d unknowns at a node.
        modal_strains: Strain amplitudes of a voxel, (m, strains, 8·d). See element.Element.amplitudes.
        B: Mean strain of a voxel under displacements of its corners, (strains, 8·d).
        uniform: Displacements of the corners under each unit strain, (8·d, strains).
        bases: Basis functions of the transform along each axis; None for Fourier transforms. See transform.py.
        symbol: Inverse symbol of K⁰, (d, d, …). See element.inverse_symbol.
        places: Indices, along each axis of ``symbol``, of the value for each amplitude of the transform.
        working_precision: Precision of the iteration. It is single unless the reference medium is nearly incompressible
            or the voxels are slender.
    """

    def __init__(self, problem: Problem, grid: Grid, dense: bool = True) -> None:
        self.physics, self.grid, self.d = problem.physics, grid, problem.physics.d
        self.length, self.modulus = find_scale(problem.spacing), find_scale(problem.stiffnesses)
        spacing = np.array(problem.spacing) / self.length
        self.element = element.hexahedron(problem.scheme, tuple(spacing), self.physics)
        self.C = problem.stiffnesses / self.modulus
        self.C0 = reference(self.C, self.physics)
        self.alpha = coercivity(self.C, self.C0)
        self.volume = self.element.volume
        self.coefficients, self.stiffness_matrices = decompose(self.C, self.physics)
        self.modal_strains = element.to_modes(self.element.amplitudes)
        self.B = self.element.mean
        self.modal_B = self.modal_strains[0]
        self.uniform = element.uniform_displacements(spacing, self.physics.strain_operator)
        self.modal_uniform = 8 * element.to_modes(self.uniform.T).T
        self.bases = transform.bases(grid, self.d) if dense else None
        self.symbol = _inverse_symbol(self.element, _freeze(self.C0), _freeze(transform.angles(grid, dense)))
        self.places = transform.places(grid, dense)
        condition = np.linalg.cond(self.C0) * (spacing.max() / spacing.min()) ** 2
        self.working_precision = np.float32 if condition < 1e6 else np.float64

    @property
    def has_full_stiffness(self) -> bool:
        """Whether the coefficients are the upper triangles of stiffnesses (6, 6)."""
        return self.coefficients.shape[1] == TRIANGLE

    @cached_property
    def matrices(self) -> Array:
        return self.element.element_matrices(self.stiffness_matrices)

    @cached_property
    def modal_matrices(self) -> Array:
        return element.to_modes(element.to_modes(self.matrices).mT).mT


@lru_cache(maxsize=2)
def _inverse_symbol(hexahedron: element.Element, C0: Rows, angles: Rows) -> Array:
    """Return the inverse symbol of K⁰. It is kept, for polycrystals of the same crystals share it."""
    x, y, z = map(np.array, angles)
    return element.inverse_symbol(hexahedron, np.array(C0), (x, y, z))


def _freeze(rows: Iterable[Array]) -> Rows:
    return tuple(tuple(row.tolist()) for row in rows)


class Operator(Protocol):
    """The operations of an engine on N cells. Nodal parts are float32 or float64, and results have the same precision,
    except those of K⁰⁻¹.

    Attributes:
        constants: Constants of the problem.
        batch: Number of cells that one call works on.
        xp: Module of the engine's arrays, numpy or torch.
        threads: Number of batches that may run side by side.
    """

    constants: Constants
    batch: int
    xp: Any

    @property
    def threads(self) -> int: ...

    def voxels(self, phase: NDArray[np.integer]) -> Any:
        """Return ``phase`` (N, nx, ny, nz) in the form of the engine."""

    def vector(self, u: Array | None, mean: Array) -> Vector:
        """Return the displacement (N, d, nx, ny, nz), None meaning 0, with the macroscopic strain ``mean``."""
        x = self.empty(len(mean), np.float64)
        if u is not None:
            transform.extend(self.array(u), self.nodes(x))
        x.mean[:] = self.array(mean)
        return x

    def array(self, a: Any) -> Any:
        """Return a NumPy array, or a number, as a float64 array of the engine."""

    def numpy(self, a: Any) -> Array:
        """Return an array of the engine as a NumPy array."""

    def empty(self, count: int, dtype: Any) -> Vector:
        """Return a zero vector of ``count`` cells, in np.float32 or np.float64."""

    def nodes(self, x: Vector) -> Any:
        """Return a view of the nodal part, (N, d, nx+1, ny+1, nz+1)."""

    def scale(self, a: Any, x: Vector, out: Vector) -> Vector:
        """out ← a x, with a number or (N,) for a, in the precision of ``out``."""

    def axpby(self, a: Any, x: Vector, b: Any, y: Vector) -> Vector:
        """y ← a x + b y, with numbers or (N,) for a and b."""

    def inner(self, x: Vector, y: Vector) -> Any:
        """Return the inner product x·y, (N,), of a displacement and a force."""

    def apply_stiffness(self, voxels: Any, x: Vector, out: Vector) -> Vector:
        """out ← K x: nodal forces and the volume integral of the stress."""

    def integrate_stress(self, voxels: Any, stress: Array, out: Vector) -> Vector:
        """out ← nodal forces and volume integral of a stress (phases, strains) that is uniform in each phase."""

    def apply_green(self, r: Vector, compliance: Array, out: Vector) -> Any:
        """out ← K⁰⁻¹ r: the displacement of zero mean that the forces r cause in the reference medium, and the
        macroscopic strain ``compliance`` (strains, strains) times the mean part of r. ``out`` has the precision that
        the calculation has, and r may have another. Return out·r, (N,)."""

    def write_fields(self, voxels: Any, x: Vector, displacement: Array, strain: Array, stress: Array) -> None:
        """Write the displacement (N, d, nx, ny, nz) and the voxel means of strain and stress (N, strains, nx, ny, nz)
        at the state x."""
