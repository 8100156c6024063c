"""The operators of one cell on one CPU thread. The kernels release the GIL: samples run side by side in threads.

A nodal part is one flat array: d extended fields (nx+1, ny+1, nz+1), then zeros. A cell is worked through in strips
of consecutive nodes, across the ends of rows and planes, so that every loop is long and the compiler vectorizes
it. What a strip computes for nodes that start no voxel gets the weight 0. The corner values of a strip become
amplitudes of the 8 modes of each voxel (element.MODES): a buffer of 8·d rows of STRIP, row c·8 + mode.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft
from scipy.sparse import csr_array

from lspipe.cell import element, transform
from lspipe.cell.compiled import kept
from lspipe.cell.operator import Array, Constants, Vector


def jit(function: Any) -> Any:
    """Compile a kernel when it is first called with arguments of some types."""
    return kept(njit(function, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"}))


STRIP = 1024  # nodes; the buffers of a strip fit the L2 cache
SLACK = 64  # strips are multiples of it, so that no loop has a remainder; the last may run past the end


@jit
def gather(u, at, plane, row, modes, width):
    """Mode amplitudes of the voxels that start at the nodes ``at`` and on, of one component."""
    u000, u001, u010, u011 = u[at:], u[at + 1 :], u[at + row :], u[at + row + 1 :]
    at += plane
    u100, u101, u110, u111 = u[at:], u[at + 1 :], u[at + row :], u[at + row + 1 :]
    for k in range(width):
        s00, s01, s10, s11 = u000[k] + u001[k], u010[k] + u011[k], u100[k] + u101[k], u110[k] + u111[k]
        d00, d01, d10, d11 = u001[k] - u000[k], u011[k] - u010[k], u101[k] - u100[k], u111[k] - u110[k]
        ss0, ss1, ds0, ds1 = s00 + s01, s10 + s11, d00 + d01, d10 + d11
        sd0, sd1, dd0, dd1 = s01 - s00, s11 - s10, d01 - d00, d11 - d10
        modes[k] = ss0 + ss1
        modes[STRIP + k] = ds0 + ds1
        modes[2 * STRIP + k] = sd0 + sd1
        modes[3 * STRIP + k] = dd0 + dd1
        modes[4 * STRIP + k] = ss1 - ss0
        modes[5 * STRIP + k] = ds1 - ds0
        modes[6 * STRIP + k] = sd1 - sd0
        modes[7 * STRIP + k] = dd1 - dd0


@jit
def scatter(modes, f, at, plane, row, width):
    """Adds the corner forces of modal forces to those nodes: the transpose of ``gather``. Destroys ``modes``."""
    for k in range(width):
        ss0, ss1 = modes[k] - modes[4 * STRIP + k], modes[k] + modes[4 * STRIP + k]
        ds0, ds1 = modes[STRIP + k] - modes[5 * STRIP + k], modes[STRIP + k] + modes[5 * STRIP + k]
        sd0, sd1 = modes[2 * STRIP + k] - modes[6 * STRIP + k], modes[2 * STRIP + k] + modes[6 * STRIP + k]
        dd0, dd1 = modes[3 * STRIP + k] - modes[7 * STRIP + k], modes[3 * STRIP + k] + modes[7 * STRIP + k]
        s00, s01, s10, s11 = ss0 - sd0, ss0 + sd0, ss1 - sd1, ss1 + sd1
        d00, d01, d10, d11 = ds0 - dd0, ds0 + dd0, ds1 - dd1, ds1 + dd1
        modes[k] = s00 - d00
        modes[STRIP + k] = s00 + d00
        modes[2 * STRIP + k] = s01 - d01
        modes[3 * STRIP + k] = s01 + d01
        modes[4 * STRIP + k] = s10 - d10
        modes[5 * STRIP + k] = s10 + d10
        modes[6 * STRIP + k] = s11 - d11
        modes[7 * STRIP + k] = s11 + d11
    for corner in range(8):
        to = at + (corner >> 2) * plane + (corner >> 1 & 1) * row + (corner & 1)
        add(modes[corner * STRIP :], f[to:], width)


@jit
def add(x, y, width):
    for k in range(width):
        y[k] += x[k]


@jit
def multiply_row(matrix, r, x, weight, y, width):
    """y += weight · (row r of a sparse matrix times the rows x)."""
    data, columns, pointers = matrix
    n, last = pointers[r], pointers[r + 1]
    # Unsigned, for an index that may be negative costs more than what it is for.
    size, strip = np.uint64(width), np.uint64(STRIP)
    while n < last:
        a, i = data[n], columns[n] * strip
        if last - n == 1:
            for k in range(size):
                y[k] += weight[k] * (a * x[i + k])
        elif last - n == 2:
            b, j = data[n + 1], columns[n + 1] * strip
            for k in range(size):
                y[k] += weight[k] * (a * x[i + k] + b * x[j + k])
        else:
            b, j = data[n + 1], columns[n + 1] * strip
            c, m = data[n + 2], columns[n + 2] * strip
            for k in range(size):
                y[k] += weight[k] * (a * x[i + k] + b * x[j + k] + c * x[m + k])
        n += 3


@jit
def multiply_weighted(matrix, weights, x, y, width):
    """y ← Σ_b weights_b · (M_b x), for the M_b one below the other in ``matrix``."""
    rows = len(y) // STRIP
    y[:] = 0
    for b in range((len(matrix[2]) - 1) // rows):
        weight = weights[b * STRIP :]
        for r in range(rows):
            multiply_row(matrix, b * rows + r, x, weight, y[r * STRIP :], width)


@jit
def load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes):
    """Fills the weights (table columns) and the mode amplitudes of the strip that begins at the node ``at``: of u, and
    of a uniform strain whose amplitudes are ``offset``. Returns its width."""
    width = min(STRIP, (len(voxels) - at) // SLACK * SLACK)
    phase = voxels[at:]
    for b in range(table.shape[1]):
        weight = weights[b * STRIP :]
        for k in range(width):
            weight[k] = table[phase[k], b]
    for c in range(len(offset) // 8):
        gather(u, c * size + at, plane, row, modes[8 * c * STRIP :], width)
    for r in range(len(offset)):
        if offset[r] != 0:
            mode, shift = modes[r * STRIP :], offset[r]
            for k in range(width):
                mode[k] += shift
    return width


@jit
def stiffness(voxels, grid, table, matrix, carriers, u, offset, f, moments, buffers):
    """f ← nodal forces of the voxels under u and a uniform strain; moments ← their sum in the modes ``carriers``,
    on which a uniform strain does work. ``table``: (phases, b), the coefficients of the matrices in ``matrix``."""
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    weights, modes, force = buffers
    f[:] = 0
    moments[:] = 0
    for at in range(0, nx * plane, STRIP):
        width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
        multiply_weighted(matrix, weights, modes, force, width)
        for r in carriers:
            mode, total = force[r * STRIP :], force[0] * 0
            for k in range(width):
                total += mode[k]
            moments[r] += total
        for c in range(len(offset) // 8):
            scatter(force[8 * c * STRIP :], f, c * size + at, plane, row, width)
    nodes = f[: len(offset) // 8 * size].reshape(len(offset) // 8, nx + 1, ny + 1, row)
    fold(nodes[..., 0], nodes[..., -1])
    fold(nodes[:, :, 0], nodes[:, :, -1])
    fold(nodes[:, 0], nodes[:, -1])


@jit
def fold(face, opposite):
    face += opposite
    opposite[:] = 0


@jit
def fields(voxels, grid, table, B, matrix, u, offset, strain, stress, buffers):
    """Voxel means of strain and stress (strains, nx, ny, nz)."""
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    rows = len(strain)
    weights, modes, _ = buffers
    local, force, ones = np.empty(rows * STRIP, u.dtype), np.empty(rows * STRIP, u.dtype), np.ones(STRIP, u.dtype)
    for at in range(0, nx * plane, STRIP):
        width = load_strip(voxels, at, plane, row, (nx + 1) * plane, table, u, offset, weights, modes)
        multiply_weighted(B, ones, modes, local, width)
        multiply_weighted(matrix, weights, local, force, width)
        for line in range(at // row, min((at + width) // row + 1, nx * (ny + 1))):
            i, j = line // (ny + 1), line % (ny + 1)
            first, last = max(at, line * row), min(at + width, line * row + nz)
            if j < ny and first < last:
                for s in range(rows):
                    k, n = first - line * row, s * STRIP + first - at
                    strain[s, i, j, k : k + last - first] = local[n : n + last - first]
                    stress[s, i, j, k : k + last - first] = force[n : n + last - first]


@jit
def multiply_symbol(symbol, z):
    """z (d, m) ← symbol z, for the upper triangle of a symmetric symbol, row by row (d (d + 1)/2, m)."""
    d, m = z.shape
    if d == 3:  # at once, for each pass over z takes its time
        x, y, w = z[0], z[1], z[2]
        xx, xy, xw, yy, yw, ww = symbol[0], symbol[1], symbol[2], symbol[3], symbol[4], symbol[5]
        for k in range(m):
            a, b, c = x[k], y[k], w[k]
            x[k] = xx[k] * a + xy[k] * b + xw[k] * c
            y[k] = xy[k] * a + yy[k] * b + yw[k] * c
            w[k] = xw[k] * a + yw[k] * b + ww[k] * c
        return
    if d == 1:
        z *= symbol
        return
    given = z.copy()
    z[:] = 0
    for a in range(d):
        for b in range(d):
            i, j = min(a, b), max(a, b)
            factor = symbol[i * d - i * (i + 1) // 2 + j]
            for k in range(m):
                z[a, k] += factor[k] * given[b, k]


@jit
def green_by_products(force, Gx, Gy, Gz, symbol, out, a, b):
    """out ← K⁰⁻¹ force (d, nx+1, ny+1, nz+1): transform.analyse, symbol, transform.synthesize, without the
    interpreter between the products, for which other threads would wait. ``a``, ``b``: buffers."""
    d, nx, ny, nz = len(force), len(Gx[0]), len(Gy[0]), len(Gz[0])
    n = nx * ny * nz
    a[: d * n].reshape(d, nx, ny, nz)[:] = force[:, :nx, :ny, :nz]
    for c in range(d):
        u, v = a[c * n : (c + 1) * n], b[c * n : (c + 1) * n]
        np.dot(u.reshape(nx, ny * nz).T, Gx[c], v.reshape(ny * nz, nx))
        np.dot(v.reshape(ny, nz * nx).T, Gy[c], u.reshape(nz * nx, ny))
        np.dot(u.reshape(nz, nx * ny).T, Gz[c], v.reshape(nx * ny, nz))
    multiply_symbol(symbol, b[: d * n].reshape(d, n))
    for c in range(d):
        u, v = a[c * n : (c + 1) * n], b[c * n : (c + 1) * n]
        np.dot(v.reshape(nx, ny * nz).T, Gx[c].T, u.reshape(ny * nz, nx))
        np.dot(u.reshape(ny, nz * nx).T, Gy[c].T, v.reshape(nz * nx, ny))
        np.dot(v.reshape(nz, nx * ny).T, Gz[c].T, u.reshape(nx * ny, nz))
    out[:, :nx, :ny, :nz] = a[: d * n].reshape(d, nx, ny, nz)
    out[:, :nx, :ny, nz] = out[:, :nx, :ny, 0]
    out[:, :nx, ny] = out[:, :nx, 0]
    out[:, nx] = out[:, 0]


@jit
def inner(x, y):
    """x·y, summed in the precision of x within a strip and in double precision over the strips."""
    total = 0.0
    for q in range(0, len(x), STRIP):
        a, b, part = x[q : q + STRIP], y[q : q + STRIP], x[0] * 0
        for k in range(len(a)):
            part += a[k] * b[k]
        total += part
    return total


@jit
def axpby(a, x, b, y):
    """y ← a x + b y."""
    for k in range(len(y)):
        y[k] = a * x[k] + b * y[k]


class Precision(NamedTuple):
    """The constants in the precision of one dtype, as the kernels take them."""

    table: NDArray[np.floating]  # (phases + 1, b): the last row is that of no voxel
    matrix: tuple[Any, ...]
    B: tuple[Any, ...]
    stiffness: tuple[Any, ...]
    symbol: NDArray[np.floating]  # (d (d + 1)/2, frequencies)
    bases: list[NDArray[np.floating]] | None


class Workspace(NamedTuple):
    """Buffers of one thread and dtype: those of a strip, and two fields for the stages of a transform."""

    strips: tuple[Any, ...]
    stages: tuple[Any, ...]


class NumbaOperator:
    """See operator.Operator."""

    batch = 1
    xp = np

    def __init__(self, constants: Constants) -> None:
        self.constants = c = constants
        self.offset = element.modal(c.uniform.T).T * 8  # (8·d, strains): mode amplitudes of a uniform strain
        self.carriers = np.flatnonzero(self.offset.any(axis=1))
        self.precisions = {np.dtype(t): self._precision(np.dtype(t)) for t in (np.float32, np.float64)}
        self.local = threading.local()
        self.shape = (c.d, *(n + 1 for n in c.grid))

    def _precision(self, dtype: Any) -> Precision:
        c = self.constants
        symbol = c.symbol.reshape(c.d, c.d, -1)[np.triu_indices(c.d)].astype(dtype)
        table = np.concatenate([c.coefficients, np.zeros_like(c.coefficients[:1])])
        return Precision(
            table=table.astype(dtype),
            matrix=_sparse(np.concatenate([element.modal(element.modal(m).T).T for m in c.matrices]), dtype),
            B=_sparse(element.modal(c.B), dtype),
            stiffness=_sparse(np.concatenate(c.stiffness_matrices), dtype),
            symbol=symbol if c.bases else symbol.repeat(2, axis=1),  # once for the real, once for the imaginary part
            bases=[basis.astype(dtype) for basis in c.bases] if c.bases else None,
        )

    @property
    def threads(self) -> int:
        return numba.get_num_threads()

    def array(self, a: Array) -> Array:
        return a

    numpy = array

    def _work(self, dtype: Any) -> Workspace:
        """The buffers of this thread: fresh memory at every call would cost more than the work in it."""
        if dtype not in (work := self.local.__dict__):
            rows, nodes = len(self.offset), np.prod(self.shape)
            sizes = (self.constants.coefficients.shape[1] * STRIP, rows * STRIP, rows * STRIP)
            strips, stages = (tuple(np.empty(n, dtype) for n in s) for s in (sizes, (nodes, nodes)))
            work[dtype] = Workspace(strips, stages)
        return work[dtype]

    def _field(self, nodal: NDArray[np.floating]) -> NDArray[np.floating]:
        """(d, nx+1, ny+1, nz+1)."""
        return nodal[: math.prod(self.shape)].reshape(self.shape)

    def voxels(self, phase: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The phase of the voxel that starts at each node of the planes 0 … nx − 1, flat; of no voxel: one more than
        there are."""
        nx, ny, nz = self.constants.grid
        planes = nx * (ny + 1) * (nz + 1)
        voxels = np.full(-(-planes // SLACK) * SLACK, len(self.constants.C), np.uint16)
        voxels[:planes].reshape(nx, ny + 1, nz + 1)[:, :-1, :-1] = phase[0]
        return voxels

    def vector(self, u: Array | None, mean: Array) -> Vector:
        new = Vector(self.empty(1, np.float64).nodal, mean.copy())
        if u is not None:
            transform.extend(u[0], self._field(new.nodal))
        return new

    def empty(self, count: int, dtype: Any) -> Vector:
        nodal = np.zeros(math.prod(self.shape) + self.shape[-1] + SLACK, dtype)
        return Vector(nodal, np.zeros((count, len(self.constants.C0))))

    def nodes(self, x: Vector) -> NDArray[np.floating]:
        return self._field(x.nodal)[None]

    def scale(self, a: Array | float, x: Vector, out: Vector) -> Vector:
        np.multiply(x.nodal, a, out=out.nodal, casting="same_kind")
        np.multiply(x.mean.T, a, out=out.mean.T)
        return out

    def axpby(self, a: Array | float, x: Vector, b: Array | float, y: Vector) -> Vector:
        number = y.nodal.dtype.type
        axpby(number(np.squeeze(a)), x.nodal, number(np.squeeze(b)), y.nodal)
        y.mean[:] = a * x.mean + b * y.mean
        return y

    def inner(self, x: Vector, y: Vector) -> Array:
        return inner(x.nodal, y.nodal) + (x.mean * y.mean).sum(axis=1)

    def stiffness(self, voxels: NDArray[np.uint16], x: Vector, out: Vector) -> Vector:
        own, work = self.precisions[x.nodal.dtype], self._work(x.nodal.dtype)
        moments, offset = np.empty(len(self.offset)), (self.offset @ x.mean[0]).astype(x.nodal.dtype)
        stiffness(
            voxels,
            self.constants.grid,
            own.table,
            own.matrix,
            self.carriers,
            x.nodal,
            offset,
            out.nodal,
            moments,
            work.strips,
        )
        out.mean[0] = moments @ self.offset
        return out

    def green(self, r: Vector, compliance: Array, out: Vector) -> Vector:
        own, force, u = self.precisions[r.nodal.dtype], self._field(r.nodal), self._field(out.nodal)
        if own.bases:
            green_by_products(force, *own.bases, own.symbol, u, *self._work(r.nodal.dtype).stages)
        else:
            z = fft.rfftn(force[:, :-1, :-1, :-1], axes=(1, 2, 3))
            multiply_symbol(own.symbol, z.view(r.nodal.dtype).reshape(len(z), -1))
            z = fft.irfftn(z, s=self.constants.grid, axes=(1, 2, 3), overwrite_x=True)
            transform.extend(z, u)
        out.mean[:] = r.mean @ compliance
        return out

    def fields(self, voxels: NDArray[np.uint16], x: Vector, displacement: Array, strain: Array, stress: Array) -> None:
        own, strips = self.precisions[x.nodal.dtype], self._work(x.nodal.dtype).strips
        offset = self.offset @ x.mean[0]
        fields(
            voxels, self.constants.grid, own.table, own.B, own.stiffness, x.nodal, offset, strain[0], stress[0], strips
        )
        displacement[0] = self._field(x.nodal)[:, :-1, :-1, :-1]


def _sparse(matrix: Array, dtype: Any) -> tuple[Any, ...]:
    """Entries, columns and row pointers of a matrix, rounding left out."""
    sparse = csr_array(np.where(np.abs(matrix) > 1e-12 * np.abs(matrix).max(), matrix, 0.0))
    return sparse.data.astype(dtype), sparse.indices.astype(np.uint64), sparse.indptr.astype(np.int64)
