"""The loops of the CPU engine, compiled by Numba. They release the GIL, so that cells run side by side in threads.

A nodal field is one flat array: d extended fields (nx+1, ny+1, nz+1), then zeros. A kernel works through a cell in
strips of consecutive nodes, across the ends of rows and planes, so that every loop is long and the compiler vectorizes
it. What a strip computes for nodes that start no voxel gets the weight 0. The corner values of a strip become
amplitudes of the 8 modes of each voxel (element.MODES), in a buffer of 8·d rows of STRIP, row c·8 + mode.

There are three ways to multiply by the element matrices. The two coefficients of an isotropic stiffness are the weights
of matrices that couple few modes, because a mode is even or odd along each axis. A full stiffness (6, 6) acts on the
strain amplitudes of a voxel (element.Element.amplitudes). Other coefficients are the weights of sparse matrices.
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
def gather(u, at, plane, row, modes, width):
    """Write the mode amplitudes of one component for the voxels that start at node ``at`` and after it."""
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
def scatter(modes, f, at, plane, row, width, moments):
    """Add modal forces to the nodes: the transpose of ``gather``. Overwrites ``modes``.

    A uniform strain does work on the modes z, y and x, whose sums are added to ``moments``.
    """
    x = y = z = modes[0] * 0
    for k in range(width):
        x, y, z = x + modes[4 * STRIP + k], y + modes[2 * STRIP + k], z + modes[STRIP + k]
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
    moments[4], moments[2], moments[1] = moments[4] + x, moments[2] + y, moments[1] + z
    for corner in range(0, 8, 2):
        nodes = f[at + (corner >> 2) * plane + (corner >> 1 & 1) * row :]
        # The nodes k and k + 1 along z in one pass. The number before a row is 0: a strip is shorter than a row.
        lower, upper = modes[corner * STRIP :], modes[(corner + 1) * STRIP - 1 :]
        for k in range(width):
            nodes[k] += lower[k] + upper[k]
        nodes[width] += upper[width]


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
    """x ← weights_0 · (M_0 x) + weights_1 · (M_1 x) for symmetric matrices that couple at most three rows.

    ``groups`` has the places where the coupled rows begin, (groups, 3), of which the last one is repeated if there are
    fewer, and the upper triangles of their matrices, (groups, 2, 6). Each row is read and written once.
    """
    rows, triangles = groups
    v, w, size = weights, weights[STRIP:], np.uint64(width)
    for g in range(len(rows)):
        h, i, j = rows[g, 0], rows[g, 1], rows[g, 2]
        m, n = triangles[g]
        m00, m01, m02, m11, m12, m22 = m[0], m[1], m[2], m[3], m[4], m[5]
        n00, n01, n02, n11, n12, n22 = n[0], n[1], n[2], n[3], n[4], n[5]
        if h == i:
            for k in range(size):
                x[h + k] = (v[k] * m00 + w[k] * n00) * x[h + k]
        elif i == j:
            for k in range(size):
                p, q, c01 = x[h + k], x[i + k], v[k] * m01 + w[k] * n01
                x[h + k] = (v[k] * m00 + w[k] * n00) * p + c01 * q
                x[i + k] = c01 * p + (v[k] * m11 + w[k] * n11) * q
        else:
            for k in range(size):
                p, q, r = x[h + k], x[i + k], x[j + k]
                c01, c02, c12 = v[k] * m01 + w[k] * n01, v[k] * m02 + w[k] * n02, v[k] * m12 + w[k] * n12
                x[h + k] = (v[k] * m00 + w[k] * n00) * p + c01 * q + c02 * r
                x[i + k] = c01 * p + (v[k] * m11 + w[k] * n11) * q + c12 * r
                x[j + k] = c02 * p + c12 * q + (v[k] * m22 + w[k] * n22) * r


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
    f[:] = 0
    moments[:] = 0
    for at in range(0, nx * plane, WIDTH):
        width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
        forces = force
        if table.shape[1] == TRIANGLE:
            multiply_weighted(strains[0], ones, modes, amplitudes, width)
            for first in range(0, len(amplitudes), 6 * STRIP):
                multiply_stiffness(weights, amplitudes[first:], width)
            multiply_weighted(strains[1], ones, amplitudes, force, width)
        elif table.shape[1] == 2:
            forces = modes
            multiply_groups(groups, weights, forces, width)
        else:
            multiply_weighted(matrix, weights, modes, force, width)
        for c in range(len(offset) // 8):
            scatter(forces[8 * c * STRIP :], f, c * size + at, plane, row, width, moments[8 * c :])
    fold_faces(f, grid, len(offset) // 8)


@jit
def fold_faces(f, grid, d):
    """Move the forces on the faces of nodes n to those on the faces of nodes 0."""
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
    weights, modes, _, _, ones = buffers
    e, s = np.empty(rows * STRIP, u.dtype), np.empty(rows * STRIP, u.dtype)
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
