"""The loops of the CPU engine, compiled by Numba. They release the GIL, so that cells run side by side in threads.

A nodal field is one flat array: d extended fields (nx+1, ny+1, nz+1), then zeros. A kernel works through a cell in
strips of consecutive nodes, across the ends of rows and planes, so that every loop is long and the compiler vectorizes
it. What a strip computes for nodes that start no voxel gets the weight 0. The corner values of a strip become
amplitudes of the 8 modes of each voxel (element.MODES), in a buffer of 8·d rows of STRIP, row c·8 + mode.

There are three ways to multiply by the element matrices. The coefficients of isotropic stiffnesses, one or two, are the
weights of matrices that couple few modes, because a mode is even or odd along each axis. A full stiffness (6, 6) acts
on the strain amplitudes of a voxel (element.Element.amplitudes). Other coefficients are the weights of sparse matrices.
"""

import numpy as np

from lspipe.cell.compiled import jit
from lspipe.cell.medium import TRIANGLE

# Numbers in a row of a strip. Its buffers fit the L2 cache. Rows at a distance of 4096 bytes would evict one another
# from L1.
STRIP = 960
SLACK = 64  # A strip is a multiple of it, so that no loop has a remainder. The last strip may run past the end.
WIDTH = STRIP - SLACK  # nodes in a strip


@jit
def combine_corners(u00, u01, u10, u11):
    """Return the sum of the values at the corners (x, y) of a face, and their differences along y, x and both."""
    s0, s1, d0, d1 = u00 + u01, u10 + u11, u01 - u00, u11 - u10
    return s0 + s1, d0 + d1, s1 - s0, d1 - d0


@jit
def gather(u, at, plane, row, modes, width):
    """Write the mode amplitudes of one component for the voxels that start at node ``at`` and after it."""
    u00, u01, u10, u11 = u[at:], u[at + row :], u[at + plane :], u[at + plane + row :]
    p, py, px, pxy = combine_corners(u00[0], u01[0], u10[0], u11[0])
    for k in range(width):  # A voxel shares a face with the one before it.
        q, qy, qx, qxy = combine_corners(u00[k + 1], u01[k + 1], u10[k + 1], u11[k + 1])
        modes[k], modes[STRIP + k] = q + p, q - p
        modes[2 * STRIP + k], modes[3 * STRIP + k] = qy + py, qy - py
        modes[4 * STRIP + k], modes[5 * STRIP + k] = qx + px, qx - px
        modes[6 * STRIP + k], modes[7 * STRIP + k] = qxy + pxy, qxy - pxy
        p, py, px, pxy = q, qy, qx, qxy


@jit
def add_up(x, size):
    """Return the sum of the first numbers of x. In a longer function, the compiler would not vectorize it."""
    result = x[0] * 0
    for k in range(size):
        result += x[k]
    return result


@jit
def scatter(modes, f, at, plane, row, size, width, moments, lines):
    """Add modal forces to the nodes of a component, the first ``size`` of f: the transpose of ``gather``.

    Strips come in ascending order. Mode 0 has no force, because no strain moves it. A uniform strain does work on the
    modes z, y and x, whose sums are added to ``moments``. ``lines`` is a buffer of four rows.
    """
    z, y, yz, x = modes[STRIP:], modes[2 * STRIP :], modes[3 * STRIP :], modes[4 * STRIP :]
    xz, xy, xyz = modes[5 * STRIP :], modes[6 * STRIP :], modes[7 * STRIP :]
    moments[4] += add_up(x, width)
    moments[2] += add_up(y, width)
    moments[1] += add_up(z, width)
    # Node k has forces of the voxels k and k − 1. The number before a row is 0, because a strip is shorter than a row.
    for mode in (z, y, yz, x, xz, xy, xyz):
        mode[width] = 0
    z_, y_, yz_, x_ = modes[STRIP - 1 :], modes[2 * STRIP - 1 :], modes[3 * STRIP - 1 :], modes[4 * STRIP - 1 :]
    xz_, xy_, xyz_ = modes[5 * STRIP - 1 :], modes[6 * STRIP - 1 :], modes[7 * STRIP - 1 :]
    f00, f01, f10, f11 = lines, lines[STRIP:], lines[2 * STRIP :], lines[3 * STRIP :]
    for k in range(width + 1):
        a, b = z_[k] - z[k], y_[k] + y[k] + (yz_[k] - yz[k])
        c, d = x_[k] + x[k] + (xz_[k] - xz[k]), xy_[k] + xy[k] + (xyz_[k] - xyz[k])
        s0, s1, d0, d1 = a - b, a + b, c - d, c + d
        f00[k], f01[k], f10[k], f11[k] = s0 - d0, s1 - d1, s0 + d0, s1 + d1
    # Earlier strips have written only the first of the nodes above in x and y. The others are written, not added, so
    # that f needs no clearing. Beyond the component, a strip adds zeros, because the voxels there have weight 0.
    last = at + plane + row
    if at == 0:
        f[: last + 1] = 0
    f[last] += lines[3 * STRIP]
    nodes, line = f[last:], lines[3 * STRIP :]
    for k in range(1, min(width + 1, size - last)):
        nodes[k] = line[k]
    for corner in range(3):
        nodes, line = f[at + (corner >> 1) * plane + (corner & 1) * row :], lines[corner * STRIP :]
        for k in range(width + 1):
            nodes[k] += line[k]


@jit
def multiply_row(matrix, r, x, weight, y, width):
    """y += weight · (row r of a sparse matrix times the rows of x)."""
    data, columns, pointers = matrix
    n, last = pointers[r], pointers[r + 1]
    # Indices are unsigned: those that may be negative take more time than the arithmetic.
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
def multiply_groups(groups, weights, x, width):
    """x ← Σ_b weights_b · (M_b x) for one or two symmetric matrices that couple at most three rows.

    ``groups`` has the places where the coupled rows begin, (groups, 3), of which the last one is repeated if there are
    fewer, and the upper triangles of their matrices, (groups, b, 6). Each row is read and written once.
    """
    rows, triangles = groups
    for g in range(len(rows)):
        first, second, third = x[rows[g, 0] :], x[rows[g, 1] :], x[rows[g, 2] :]
        size = 1 if rows[g, 0] == rows[g, 1] else 2 if rows[g, 1] == rows[g, 2] else 3
        if triangles.shape[1] == 1:
            multiply_group(size, triangles[g, 0], weights, first, second, third, width)
        else:
            multiply_group_twice(size, triangles[g], weights, weights[STRIP:], first, second, third, width)


@jit
def multiply_group(size, m, w, x, y, z, width):
    """(x, y, z) ← w · (M (x, y, z)) for ``size`` rows and the upper triangle m."""
    m00, m01, m02, m11, m12, m22 = m[0], m[1], m[2], m[3], m[4], m[5]
    if size == 1:
        for k in range(width):
            x[k] = w[k] * m00 * x[k]
    elif size == 2:
        for k in range(width):
            p, q = w[k] * x[k], w[k] * y[k]
            x[k], y[k] = m00 * p + m01 * q, m01 * p + m11 * q
    else:
        for k in range(width):
            p, q, r = w[k] * x[k], w[k] * y[k], w[k] * z[k]
            x[k], y[k], z[k] = m00 * p + m01 * q + m02 * r, m01 * p + m11 * q + m12 * r, m02 * p + m12 * q + m22 * r


@jit
def multiply_group_twice(size, triangles, v, w, x, y, z, width):
    """(x, y, z) ← v · (M (x, y, z)) + w · (N (x, y, z)) for ``size`` rows and the upper triangles of M and N."""
    m, n = triangles
    m00, m01, m02, m11, m12, m22 = m[0], m[1], m[2], m[3], m[4], m[5]
    n00, n01, n02, n11, n12, n22 = n[0], n[1], n[2], n[3], n[4], n[5]
    if size == 1:
        for k in range(width):
            x[k] = (v[k] * m00 + w[k] * n00) * x[k]
    elif size == 2:
        for k in range(width):
            p, q, c01 = x[k], y[k], v[k] * m01 + w[k] * n01
            x[k] = (v[k] * m00 + w[k] * n00) * p + c01 * q
            y[k] = c01 * p + (v[k] * m11 + w[k] * n11) * q
    else:
        for k in range(width):
            p, q, r = x[k], y[k], z[k]
            c01, c02, c12 = v[k] * m01 + w[k] * n01, v[k] * m02 + w[k] * n02, v[k] * m12 + w[k] * n12
            x[k] = (v[k] * m00 + w[k] * n00) * p + c01 * q + c02 * r
            y[k] = c01 * p + (v[k] * m11 + w[k] * n11) * q + c12 * r
            z[k] = c02 * p + c12 * q + (v[k] * m22 + w[k] * n22) * r


@jit
def multiply_stiffness(c, x, width):
    """x (6 rows) ← C x. The rows of c are the upper triangle of C, row by row."""
    S = STRIP
    for k in range(width):
        p, q, r, s, t, u = x[k], x[S + k], x[2 * S + k], x[3 * S + k], x[4 * S + k], x[5 * S + k]
        c00, c01, c02, c03, c04, c05 = c[k], c[S + k], c[2 * S + k], c[3 * S + k], c[4 * S + k], c[5 * S + k]
        c11, c12, c13, c14, c15 = c[6 * S + k], c[7 * S + k], c[8 * S + k], c[9 * S + k], c[10 * S + k]
        c22, c23, c24, c25 = c[11 * S + k], c[12 * S + k], c[13 * S + k], c[14 * S + k]
        c33, c34, c35 = c[15 * S + k], c[16 * S + k], c[17 * S + k]
        c44, c45, c55 = c[18 * S + k], c[19 * S + k], c[20 * S + k]
        x[k] = c00 * p + c01 * q + c02 * r + c03 * s + c04 * t + c05 * u
        x[S + k] = c01 * p + c11 * q + c12 * r + c13 * s + c14 * t + c15 * u
        x[2 * S + k] = c02 * p + c12 * q + c22 * r + c23 * s + c24 * t + c25 * u
        x[3 * S + k] = c03 * p + c13 * q + c23 * r + c33 * s + c34 * t + c35 * u
        x[4 * S + k] = c04 * p + c14 * q + c24 * r + c34 * s + c44 * t + c45 * u
        x[5 * S + k] = c05 * p + c15 * q + c25 * r + c35 * s + c45 * t + c55 * u


@jit
def load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes):
    """Write the weights and the mode amplitudes of the strip that begins at node ``at``, and return its width.

    The weights are the columns of ``table``. The amplitudes are those of u and ``offset``, those of a uniform strain.
    """
    width = min(WIDTH, (len(voxels) - at) // SLACK * SLACK)
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
def apply_stiffness(voxels, grid, table, matrix, groups, strains, u, offset, f, moments, buffers):
    """f ← nodal forces of the voxels under u and a uniform strain with the amplitudes ``offset``.

    The moments are the sums of the modal forces on which a uniform strain does work.
    ``table`` (phases, b) has the coefficients of the matrices in ``matrix``, or the upper triangles of stiffnesses.
    ``strains`` is the matrix of the strain amplitudes, and its transpose times the volume of a voxel.
    """
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    weights, modes, force, amplitudes, ones = buffers
    moments[:] = 0
    for at in range(0, nx * plane, WIDTH):
        width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
        forces = force
        if table.shape[1] == TRIANGLE:
            multiply_weighted(strains[0], ones, modes, amplitudes, width)
            for first in range(0, len(amplitudes), 6 * STRIP):
                multiply_stiffness(weights, amplitudes[first:], width)
            multiply_weighted(strains[1], ones, amplitudes, force, width)
        elif len(groups[0]):
            forces = modes
            multiply_groups(groups, weights, forces, width)
        else:
            multiply_weighted(matrix, weights, modes, force, width)
        for c in range(len(offset) // 8):
            modal, nodes = forces[8 * c * STRIP :], f[c * size :]
            scatter(modal, nodes, at, plane, row, size, width, moments[8 * c :], amplitudes)
    fold_faces(f, grid, len(offset) // 8)


@jit
def fold_faces(f, grid, d):
    """Move the forces on the last faces to the faces where the same nodes begin."""
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    for step, distance, face in ((row, nz, 1), (plane, ny * row, row), (size, nx * plane, plane)):
        for at in range(0, d * size, step):
            fold(f[at:], f[at + distance :], face)


@jit
def fold(face, opposite, size):
    """Move the forces on a face to the face where the same nodes begin."""
    for k in range(size):
        face[k] += opposite[k]
        opposite[k] = 0


@jit
def compute_fields(voxels, grid, table, B, matrix, u, offset, strain, stress, buffers):
    """Write the voxel means of strain and stress, (strains, nx, ny, nz)."""
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    rows = len(strain)
    weights, modes, force, amplitudes, ones = buffers
    e, s = force[: rows * STRIP], amplitudes[: rows * STRIP]
    for at in range(0, nx * plane, WIDTH):
        width = load_strip(voxels, at, plane, row, (nx + 1) * plane, table, u, offset, weights, modes)
        multiply_weighted(B, ones, modes, e, width)
        multiply_weighted(matrix, weights, e, s, width)
        for line in range(at // row, min((at + width) // row + 1, nx * (ny + 1))):
            i, j = line // (ny + 1), line % (ny + 1)
            first = line * row - at  # the place of the line in the strip
            for r in range(rows if j < ny else 0):
                for k in range(max(0, -first), min(nz, width - first)):
                    strain[r, i, j, k], stress[r, i, j, k] = e[r * STRIP + first + k], s[r * STRIP + first + k]


@jit
def inner(x, y):
    """Return x·y, summed in the precision of x within a strip and in double precision over the strips."""
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
