"""The Green operator of the CPU engine by the folded dense products of transform.py, compiled by Numba.

Along an axis, the rows of a chunk are first added and subtracted in pairs. In the new rows the basis consists of square
blocks, and only these are multiplied, in tiles of 4×4 numbers. The way back does the transpose in the opposite order.
An axis is a tuple: two tables of pairs, and transform.tiles of all components for the way there and for the way back.

A chunk is a part of a component that the L2 cache holds, in rows of consecutive values. Few whole planes are
transformed along y and z. Then columns across all planes are transformed along x, multiplied by the symbol, and
transformed back along x.
"""

import numpy as np

from lspipe.cell.compiled import jit

CHUNK = 33_100  # numbers in a chunk, which has at least one plane
GAP = 16  # numbers between rows: rows at a distance of 4096 bytes would evict one another from the cache
SPAN = 512  # numbers of a row that are multiplied at a time; with fewer, tiles take long to start


@jit
def multiply(rows, matrices, x, y, width, size):
    """y ← M x for the tiles of M and ``size`` numbers in each row. Rows are ``width`` numbers apart."""
    span = -(-size // -(-size // SPAN))  # equal parts
    for at in range(0, size, span):
        # Indices are unsigned, as in kernels.multiply_row.
        count = np.uint64(min(span, size - at))
        for t in range(len(rows)):
            r, m = rows[t], matrices[t]
            a, b, c, d = y[r[0] * width + at :], y[r[1] * width + at :], y[r[2] * width + at :], y[r[3] * width + at :]
            p, q, u, v = x[r[4] * width + at :], x[r[5] * width + at :], x[r[6] * width + at :], x[r[7] * width + at :]
            m00, m01, m02, m03, m10, m11, m12, m13 = m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]
            m20, m21, m22, m23, m30, m31, m32, m33 = m[8], m[9], m[10], m[11], m[12], m[13], m[14], m[15]
            if r[8]:
                for k in range(count):
                    e, f, g, h = p[k], q[k], u[k], v[k]
                    a[k] = m00 * e + m01 * f + m02 * g + m03 * h
                    b[k] = m10 * e + m11 * f + m12 * g + m13 * h
                    c[k] = m20 * e + m21 * f + m22 * g + m23 * h
                    d[k] = m30 * e + m31 * f + m32 * g + m33 * h
            else:
                for k in range(count):
                    e, f, g, h = p[k], q[k], u[k], v[k]
                    a[k] += m00 * e + m01 * f + m02 * g + m03 * h
                    b[k] += m10 * e + m11 * f + m12 * g + m13 * h
                    c[k] += m20 * e + m21 * f + m22 * g + m23 * h
                    d[k] += m30 * e + m31 * f + m32 * g + m33 * h


@jit
def combine(x, x_strides, pairs, y, y_strides, parts, size):
    """Write the sum of the rows i and j of x to row i of y, and their difference to row j; where i = j, copy the row.

    A row has several parts of several values. Strides are the distances of rows, parts and values.
    """
    x_row, x_part, y_row, y_part = x_strides[0], x_strides[1], y_strides[0], y_strides[1]
    x_step, y_step, size = np.uint64(x_strides[2]), np.uint64(y_strides[2]), np.uint64(size)
    for part in range(parts):
        for n in range(len(pairs)):
            i, j = pairs[n]
            a, b = x[i * x_row + part * x_part :], x[j * x_row + part * x_part :]
            c, d = y[i * y_row + part * y_part :], y[j * y_row + part * y_part :]
            if i == j:
                for k in range(size):
                    c[k * y_step] = a[k * x_step]
            else:
                for k in range(size):
                    s, t = a[k * x_step], b[k * x_step]
                    c[k * y_step], d[k * y_step] = s + t, s - t


@jit
def combine_in_place(x, width, pairs, size):
    """Replace the rows i and j of x by their sum and their difference, for one pair after the other."""
    size = np.uint64(size)
    for n in range(len(pairs)):
        a, b = x[pairs[n, 0] * width :], x[pairs[n, 1] * width :]
        for k in range(size):
            a[k], b[k] = a[k] + b[k], a[k] - b[k]


@jit
def analyse(x, strides, parts, size, axis, c, out, width, buffer):
    """out ← amplitudes of component c of x, in rows of parts·size values. See ``combine``."""
    outer, inner, rows, matrices = axis[:4]
    combine(x, strides, outer, buffer, (width, size, 1), parts, size)
    combine_in_place(buffer, width, inner, parts * size)
    multiply(rows[c], matrices[c], buffer, out, width, parts * size)


@jit
def synthesize(amplitudes, width, axis, c, out, strides, parts, size, buffer):
    """The transpose and inverse of ``analyse``: out ← values of component c of the amplitudes."""
    outer, inner, rows, matrices = axis[0], axis[1], axis[4], axis[5]
    multiply(rows[c], matrices[c], amplitudes, buffer, width, parts * size)
    combine_in_place(buffer, width, inner[::-1], parts * size)
    combine(buffer, (width, size, 1), outer, out, strides, parts, size)


@jit
def copy(x, x_row, x_part, y, y_row, y_part, rows, parts, size):
    """Copy rows of several parts of consecutive values.

    It copies multiples of 8, because a loop over the rest would not be vectorized. The surplus lies in the gap
    between rows, or where this order of the loops or the transform along x overwrites it.
    """
    size = np.uint64(-(-size // 8) * 8)
    for part in range(parts):
        for row in range(rows):
            a, b = x[row * x_row + part * x_part :], y[row * y_row + part * y_part :]
            for k in range(size):
                b[k] = a[k]


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
    has the planes one after the other without the nodes n. A row of a plane then has the amplitudes along y.
    """
    nx, ny, nz = grid
    row, m = nz + 1, ny * nz
    plane = (ny + 1) * row
    size, d = (nx + 1) * plane, len(buffers) - 1
    x, y = buffers[0], buffers[1]
    depth = max(1, CHUNK // (ny * row))  # planes in a chunk
    rows_y, rows_z = depth * row + GAP, depth * ny + GAP  # distances of rows
    for i in range(0, nx, depth):
        count = min(depth, nx - i)
        for c in range(d):
            analyse(force[c * size + i * plane :], (row, plane, 1), count, row, axes[1], c, x, rows_y, y)
            analyse(x, (1, row, rows_y), count, ny, axes[2], c, x, rows_z, y)
            copy(x, rows_z, ny, out[c * size + i * m :], ny, m, nz, count, ny)
    work = 0.0
    columns = CHUNK // nx
    width = columns + GAP
    z = buffers.reshape(-1)[: d * nx * width].reshape(d, nx, width)
    for at in range(0, m, columns):
        count = min(columns, m - at)
        for c in range(d):
            analyse(out[c * size + at :], (m, 0, 1), 1, count, axes[0], c, z[c].reshape(-1), width, buffers[d])
        work += multiply_symbol(symbol, planes, at, count, z, buffers[d])
        for c in range(d):
            synthesize(z[c].reshape(-1), width, axes[0], c, out[c * size + at :], (m, 0, 1), 1, count, buffers[d])
    for c in range(d):
        for i in range((nx - 1) // depth * depth, -1, -depth):  # backwards, because planes move towards the end
            count = min(depth, nx - i)
            copy(out[c * size + i * m :], ny, m, x, rows_z, ny, nz, count, ny)
            synthesize(x, rows_z, axes[2], c, x, (1, row, rows_y), count, ny, y)
            synthesize(x, rows_y, axes[1], c, out[c * size + i * plane :], (row, plane, 1), count, row, y)
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
