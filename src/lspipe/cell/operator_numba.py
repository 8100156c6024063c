"""The CPU engine: the operators of one cell on one thread."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from lspipe.cell import green, kernels, transform
from lspipe.cell.kernels import SLACK, STRIP
from lspipe.cell.medium import TRIANGLE
from lspipe.cell.operator import Array, Constants, Operator, Vector


class NumbaOperator(Operator):
    """The CPU engine. Its values (N,) are numbers: Python calculates faster with them than with arrays of one entry."""

    batch = 1
    xp: Any = SimpleNamespace(where=lambda is_a, a, b: a if is_a else b, maximum=max, zeros_like=lambda a: 0.0)

    def __init__(self, constants: Constants) -> None:
        self.constants, self.shape = constants, (constants.d, *(n + 1 for n in constants.grid))
        self.precisions = {np.dtype(t): self._precision(np.dtype(t)) for t in (np.float32, np.float64)}
        self.transforms: dict[Any, SimpleNamespace] = {}
        self.thread = threading.local()

    def _precision(self, dtype: Any) -> SimpleNamespace:
        """Return the constants in one precision, as the kernels take them: sparse matrices, one below the other."""
        c = self.constants
        strains = np.concatenate(c.modal_strains)
        # The kernel takes either the matrices or the strains.
        matrices = np.zeros((1, 1)) if c.has_full_stiffness else np.concatenate(c.modal_matrices)
        return SimpleNamespace(
            # The last row is for nodes that start no voxel.
            table=np.pad(c.coefficients, ((0, 1), (0, 0))).astype(dtype),
            matrices=sparse(matrices, dtype),
            groups=_group(c.modal_matrices if len(c.stiffness_matrices) <= 2 else np.zeros((1, 1, 1)), dtype),
            strains=(sparse(strains, dtype), sparse(c.volume * strains.T, dtype)),
            B=sparse(c.modal_B, dtype),
            stiffness_matrices=sparse(np.concatenate(c.stiffness_matrices), dtype),
        )

    def _transform(self, dtype: Any) -> SimpleNamespace:
        """Return the constants of K⁰⁻¹ in one precision. Few problems need them in double precision."""
        if dtype not in self.transforms:
            c, (planes, y, z) = self.constants, self.constants.places
            symbol = c.symbol[np.triu_indices(c.d)].astype(dtype)
            # green.py has y last, and an FFT has real and imaginary parts.
            symbol = symbol[..., y[0], z[0]].mT if c.bases else symbol.repeat(2, axis=-1)
            self.transforms[dtype] = SimpleNamespace(
                symbol=np.ascontiguousarray(symbol).reshape(*symbol.shape[:2], -1),
                planes=planes.ravel(),
                axes=tuple(self._axis(axis, dtype) for axis in range(3)) if c.bases else (),
            )
        return self.transforms[dtype]

    def _axis(self, axis: int, dtype: Any) -> tuple[Any, ...]:
        """Return the data that green.py needs for the transform along an axis."""
        n = self.constants.grid[axis]
        tiles = (_tiles(n, component == axis, dtype) for component in range(self.constants.d))
        return *transform.pairs(n), *map(np.stack, zip(*tiles, strict=True))

    @property
    def threads(self) -> int:
        return numba.get_num_threads()

    def array(self, a: Any) -> Any:
        a = np.asarray(a, np.float64)
        return a[0] if a.shape == (1,) else a

    def numpy(self, a: Any) -> Array:
        return np.atleast_1d(np.asarray(a, np.float64))

    def _buffers(self, dtype: Any) -> tuple[Any, Any]:
        """Return buffers of this thread, for a strip and for a transform. To allocate them takes longer than a call."""
        if dtype not in (buffers := self.thread.__dict__):
            rows = len(self.constants.uniform)
            columns = max(TRIANGLE, self.constants.coefficients.shape[1])
            sizes = columns, rows, rows, max(4, self.constants.modal_strains[..., 0].size)
            strip = *(np.zeros(n * STRIP, dtype) for n in sizes), np.ones(STRIP, dtype)
            _, ny, nz = self.constants.grid
            chunk = max(green.CHUNK, ny * (nz + 1)) + green.GAP * (max(self.constants.grid) + 1)
            buffers[dtype] = strip, np.empty((self.constants.d + 1, chunk), dtype)
        return buffers[dtype]

    def offset(self, x: Vector) -> NDArray[np.floating]:
        """Return the amplitudes (8·d,) of the modes in the mean part of x."""
        return (self.constants.modal_uniform @ x.mean[0]).astype(x.nodal.dtype)

    def _field(self, nodal: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return a view (d, nx+1, ny+1, nz+1)."""
        return nodal[: math.prod(self.shape)].reshape(self.shape)

    def voxels(self, phase: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the phase of the voxel that starts at each node of the planes 0 … nx − 1, in one flat array.

        Nodes that start no voxel have the number of phases, for which the kernels have zeros.
        """
        nx, ny, nz = self.constants.grid
        planes = nx * (ny + 1) * (nz + 1)
        voxels = np.full(-(-planes // SLACK) * SLACK, len(self.constants.C), np.uint32)
        voxels[:planes].reshape(nx, ny + 1, nz + 1)[:, :-1, :-1] = phase[0]
        return voxels

    def empty(self, count: int, dtype: Any) -> Vector:
        # The mean part follows the nodes, so that the updates and inner products of vectors include it.
        numbers = np.empty(math.prod(self.shape) + self.shape[-1] + SLACK + len(self.constants.C0), dtype)
        numbers.fill(0)  # NumPy gets large pages of memory for empty, not for zeros.
        return Vector(numbers, numbers[-len(self.constants.C0) :].reshape(count, -1))

    def nodes(self, x: Vector) -> NDArray[np.floating]:
        return self._field(x.nodal)[None]

    def scale(self, a: Array | float, x: Vector, out: Vector) -> Vector:
        np.multiply(x.nodal, a, out=out.nodal, casting="same_kind")
        return out

    def axpby(self, a: Array | float, x: Vector, b: Array | float, y: Vector) -> Vector:
        number = y.nodal.dtype.type
        kernels.axpby(number(a), x.nodal, number(b), y.nodal)
        return y

    def inner(self, x: Vector, y: Vector) -> Any:
        return np.float64(kernels.inner(x.nodal, y.nodal))

    def apply_stiffness(self, voxels: NDArray[np.uint32], x: Vector, out: Vector) -> Vector:
        c = self.precisions[x.nodal.dtype]
        law = c.table, c.matrices, c.groups, c.strains
        return self._apply(voxels, law, x.nodal, self.offset(x), out)

    def integrate_stress(self, voxels: NDArray[np.uint32], stress: Array, out: Vector) -> Vector:
        # These matrices turn the amplitude 1 of the first mode into the forces of each component of the stress.
        c, rows = self.constants, len(self.constants.uniform)
        matrices = np.zeros((len(c.C0), rows, rows))
        matrices[:, :, 0] = c.volume * c.modal_B
        table, none = np.pad(stress, ((0, 1), (0, 0))), self.empty(1, np.float64).nodal
        no_groups = _group(np.zeros((1, 1, 1)), np.float64)
        law = table, sparse(np.concatenate(matrices), np.float64), no_groups, self.precisions[none.dtype].strains
        return self._apply(voxels, law, none, np.eye(rows)[0], out)

    def _apply(self, voxels: Any, law: Any, u: Any, offset: Any, out: Vector) -> Vector:
        (strip, _), moments = self._buffers(u.dtype), np.empty(len(offset))
        kernels.apply_stiffness(voxels, self.constants.grid, *law, u, offset, out.nodal, moments, strip)
        out.mean[0] = moments @ self.constants.modal_uniform
        return out

    def apply_green(self, r: Vector, compliance: Array, out: Vector) -> Any:
        dtype, grid = out.nodal.dtype, self.constants.grid
        c, buffers = self._transform(dtype), self._buffers(dtype)[1]
        out.mean[:] = r.mean @ compliance
        if c.axes:
            work = green.apply_green(r.nodal, grid, c.axes, c.symbol, c.planes, out.nodal, buffers)
            return work + np.vdot(out.mean, r.mean)
        from scipy import fft  # scipy.fft takes half a second to import, and few grids need it

        force = self._field(r.nodal)[:, :-1, :-1, :-1].astype(dtype, copy=False)
        z = fft.rfftn(force, axes=(1, 2, 3))
        lines = z.view(dtype).reshape(*z.shape[:2], -1)
        green.multiply_symbol(c.symbol, c.planes, 0, lines.shape[2], lines, buffers[0])
        z = fft.irfftn(z, s=grid, axes=(1, 2, 3), overwrite_x=True)
        transform.extend(z, self._field(out.nodal))
        return self.inner(out, r)

    def write_fields(
        self, voxels: NDArray[np.uint32], x: Vector, displacement: Array, strain: Array, stress: Array
    ) -> None:
        c, (strip, _) = self.precisions[x.nodal.dtype], self._buffers(x.nodal.dtype)
        cell = (voxels, self.constants.grid, c.table)
        kernels.compute_fields(*cell, c.B, c.stiffness_matrices, x.nodal, self.offset(x), strain[0], stress[0], strip)
        displacement[0] = self._field(x.nodal)[:, :-1, :-1, :-1]


@lru_cache
def _tiles(n: int, derived: bool, dtype: Any) -> tuple[Any, ...]:
    """Return the data that green.py needs for a basis of an axis: the tiles of its transpose and of itself."""
    basis, blocks = transform.folded(transform.functions(n, derived)), transform.blocks(n, derived)
    rows_there, there = transform.tiles(basis.T, blocks[:, [1, 0, 2]])
    rows_back, back = transform.tiles(basis, blocks)
    return rows_there, there.astype(dtype), rows_back, back.astype(dtype)


def _group(matrices: Array, dtype: Any) -> tuple[Any, ...]:
    """Return the groups of rows that symmetric matrices couple, as ``kernels.multiply_groups`` takes them.

    There are none where more than three rows are coupled.
    """
    couples = (np.abs(matrices) > 1e-12 * np.abs(matrices).max()).any(axis=0)
    np.fill_diagonal(couples, True)
    labels = np.linalg.matrix_power(couples, len(couples)).argmax(axis=0)  # the first row that a row is coupled with
    moving = np.arange(len(labels)) % 8 > 0  # Mode 0 has no force.
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[moving])]
    if max(map(len, groups), default=0) > 3:
        groups = []
    rows = np.array([np.r_[group, group[-1], group[-1]][:3] for group in groups], int).reshape(-1, 3)
    i, j = np.triu_indices(3)
    triangles = np.ascontiguousarray(matrices[:, rows[:, i], rows[:, j]].swapaxes(0, 1), dtype)
    return (rows * STRIP).astype(np.uint64), triangles


def sparse(matrix: Array, dtype: Any) -> tuple[Any, ...]:
    """Return entries, columns and row pointers of a matrix, without the entries that are rounding."""
    rows, columns = np.nonzero(np.abs(matrix) > 1e-12 * np.abs(matrix).max())
    pointers = np.searchsorted(rows, np.arange(len(matrix) + 1))
    return matrix[rows, columns].astype(dtype), columns.astype(np.uint64), pointers
