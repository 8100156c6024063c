"""The Green operator of the CPU engine by the folded dense products of transform.py, compiled by Numba.

Along an axis, the rows of a chunk are first added and subtracted in pairs. In the new rows the basis consists of square
blocks, (row, column, size), and only these are multiplied. The way back does the transpose in the opposite order. An
axis is a tuple: bases (d, n, n), their transposes, two tables of pairs, blocks (d, …, 3), and the factors 1 and 0, of
which BLAS takes the address.

A chunk is a part of a component that the L2 cache holds. Few whole planes are transformed along y and z. Then columns
across all planes are transformed along x, multiplied by the symbol, and transformed back along x.
"""

from typing import Any

import numpy as np
from numba import types

from lspipe.cell.compiled import jit

# Numbers in a chunk, which has at least one plane. OpenBLAS is fastest up to 10⁶ multiplications, as 30 000·n/4 are.
CHUNK = 30_000
GAP = 16  # numbers between rows: rows at a distance of 4096 bytes would evict one another from the cache
# Numba's entry to the matrix product of BLAS. Blocks are parts of rows, and np.dot would copy them.
c, i, p = types.char, types.intp, types.voidptr
gemm: Any = types.ExternalFunction("numba_xxgemm", types.intc(c, c, c, i, i, i, p, p, i, p, i, p, p, i))


@jit
def multiply(x, y, is_transposed, out, factors):
    """out ← xᵀ y, or xᵀ yᵀ. Each row of the matrices is contiguous. ``factors`` are 1 and 0."""
    one, zero, size = factors[:1], factors[1:], x.itemsize
    (m, n), k = out.shape, len(x)
    kind, order = ord("s") if size == 4 else ord("d"), ord("t") if is_transposed else ord("n")
    # BLAS has columns where NumPy has rows.
    a, b, c = y.strides[0] // size, x.strides[0] // size, out.strides[0] // size
    gemm(kind, order, ord("t"), n, m, k, one.ctypes, y.ctypes, a, x.ctypes, b, zero.ctypes, out.ctypes, c)


@jit
def combine(x, x_row, x_part, pairs, y, y_row, y_part, parts, size):
    """Write the sum of the rows i and j of x to row i of y, and their difference to row j; where i = j, copy the row.

    A row has several parts of consecutive values.
    """
    # Indices are unsigned, as in kernels.multiply_row.
    parts, size, x_part, y_part = np.uint64(parts), np.uint64(size), np.uint64(x_part), np.uint64(y_part)
    for p in range(len(pairs)):
        i, j = pairs[p]
        a, b, c, d = x[i * x_row :], x[j * x_row :], y[i * y_row :], y[j * y_row :]
        for part in range(parts):
            m, n = part * x_part, part * y_part
            if i == j:
                for k in range(size):
                    c[n + k] = a[m + k]
            else:
                for k in range(size):
                    s, t = a[m + k], b[m + k]
                    c[n + k], d[n + k] = s + t, s - t


@jit
def combine_in_place(x, pairs):
    """Replace the rows i and j of x by their sum and their difference, for one pair after the other."""
    for p in range(len(pairs)):
        a, b = x[pairs[p, 0]], x[pairs[p, 1]]
        for k in range(len(a)):
            a[k], b[k] = a[k] + b[k], a[k] - b[k]


@jit
def analyse(x, row, part, shape, axis, c, out, buffer):
    """out (parts·size, n) ← amplitudes of component c of x, which has n rows of several parts. See ``combine``."""
    n, parts, size = shape
    basis, _, outer, inner, blocks, factors = axis
    m, width = parts * size, parts * size + GAP
    chunk, z = buffer[: n * width].reshape(n, width), out[: m * n].reshape(m, n)
    combine(x, row, part, outer, buffer, width, size, parts, size)
    combine_in_place(chunk, inner)
    for r, s, k in blocks[c]:
        multiply(chunk[r : r + k, :m], basis[c, r : r + k, s : s + k], False, z[:, s : s + k], factors)


@jit
def synthesize(amplitudes, shape, axis, c, out, row, part, buffer):
    """The transpose and inverse of ``analyse``: out ← values of component c of the amplitudes (parts·size, n)."""
    n, parts, size = shape
    _, transpose, outer, inner, blocks, factors = axis
    m, width = parts * size, parts * size + GAP
    chunk, z = buffer[: n * width].reshape(n, width), amplitudes[: m * n].reshape(m, n)
    for r, s, k in blocks[c]:
        multiply(transpose[c, s : s + k, r : r + k], z[:, s : s + k], True, chunk[r : r + k, :m], factors)
    combine_in_place(chunk, inner[::-1])
    combine(buffer, width, size, outer, out, row, part, parts, size)


@jit
def multiply_symbol(symbol, planes, first, m, z, given):
    """z (d, nx, m or more) ← symbol z in m columns, from column ``first`` of the symbol on; return z·symbol z.

    Plane i of z takes plane ``planes[i]`` of the symbol. The symbol is symmetric: its upper triangle, row by row, has
    shape (d (d + 1)/2, …, columns). ``given`` is a buffer of d numbers.
    """
    d, total = len(z), 0.0
    for i in range(z.shape[1]):
        p, part = planes[i], z[0, 0, 0] * 0
        if d == 3:  # One pass over z, because memory limits the speed.
            x, y, w = z[0, i], z[1, i], z[2, i]
            xx, xy, xw = symbol[0, p, first:], symbol[1, p, first:], symbol[2, p, first:]
            yy, yw, ww = symbol[3, p, first:], symbol[4, p, first:], symbol[5, p, first:]
            for k in range(m):
                a, b, c = x[k], y[k], w[k]
                s = xx[k] * a + xy[k] * b + xw[k] * c
                t = xy[k] * a + yy[k] * b + yw[k] * c
                u = xw[k] * a + yw[k] * b + ww[k] * c
                x[k], y[k], w[k] = s, t, u
                part += s * a + t * b + u * c
        else:
            for k in range(m):
                for a in range(d):
                    given[a], z[a, i, k] = z[a, i, k], 0
                for a in range(d):
                    for b in range(d):
                        q, r = min(a, b), max(a, b)
                        z[a, i, k] += symbol[q * d - q * (q + 1) // 2 + r, p, first + k] * given[b]
                    part += z[a, i, k] * given[a]
        total += part
    return total


@jit
def apply_green(force, grid, axes, symbol, planes, out, buffers):
    """out ← K⁰⁻¹ force: transform.analyse, the symbol, transform.synthesize. Return out·force, which the orthonormal
    basis conserves. Both are extended nodal fields.

    No step returns to the interpreter, for which other threads would have to wait. Until the last transforms, ``out``
    has the planes one after the other without the nodes n.
    """
    nx, ny, nz = grid
    row, m = nz + 1, ny * nz
    plane = (ny + 1) * row
    size, d = (nx + 1) * plane, len(buffers) - 1
    some = max(1, CHUNK // m)
    for i in range(0, nx, some):
        count = min(some, nx - i)
        for c in range(d):
            x, y = force[c * size + i * plane :], buffers[1]
            analyse(x, row, plane, (ny, count, nz), axes[1], c, y, buffers[0])
            analyse(y, ny, m, (nz, count, ny), axes[2], c, out[c * size + i * m :], buffers[0])
    basis, transpose, outer, inner, blocks, factors = axes[0]
    work = 0.0
    for first in range(0, m, CHUNK // nx):
        count = min(CHUNK // nx, m - first)
        width = count + GAP
        z = buffers.reshape(-1)[: d * nx * width].reshape(d, nx, width)
        chunk = buffers[d, : nx * width].reshape(nx, width)
        values, amplitudes = chunk[:, :count], z[:, :, :count]
        for c in range(d):
            combine(out[c * size + first :], m, 0, outer, buffers[d], width, 0, 1, count)
            combine_in_place(chunk, inner)
            for r, s, k in blocks[c]:
                multiply(basis[c, r : r + k, s : s + k], values[r : r + k], False, amplitudes[c, s : s + k], factors)
        work += multiply_symbol(symbol, planes, first, count, z, buffers[d])
        for c in range(d):
            for r, s, k in blocks[c]:
                multiply(
                    transpose[c, s : s + k, r : r + k], amplitudes[c, s : s + k], False, values[r : r + k], factors
                )
            combine_in_place(chunk, inner[::-1])
            combine(buffers[d], width, 0, outer, out[c * size + first :], m, 0, 1, count)
    for c in range(d):
        for i in range((nx - 1) // some * some, -1, -some):  # backwards, because planes move towards the end
            count = min(some, nx - i)
            y, u = buffers[1], out[c * size + i * plane :]
            synthesize(out[c * size + i * m :], (nz, count, ny), axes[2], c, y, ny, m, buffers[0])
            synthesize(y, (ny, count, nz), axes[1], c, u, row, plane, buffers[0])
        nodes = out[c * size : (c + 1) * size].reshape(nx + 1, ny + 1, row)
        for i in range(nx):
            for j in range(ny):
                nodes[i, j, nz] = nodes[i, j, 0]
            for k in range(row):
                nodes[i, ny, k] = nodes[i, 0, k]
        for j in range(ny + 1):
            for k in range(row):
                nodes[nx, j, k] = nodes[0, j, k]
    return work
