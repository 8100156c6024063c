"""The stencils of one cell on one CPU thread, a row of voxels along z at a time.

Nodal fields are (d, nx, ny, nz), voxel fields (strains, nx, ny, nz), both periodic. A row's nodal
values are gathered once, as amplitudes of the 8 modes of each voxel (element.MODES), in buffers
(8·d, nz) on which every further loop runs along z, so that the compiler vectorizes it. The kernels
release the GIL: samples run side by side in threads.
"""

import numpy as np
from numba import njit

jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@jit
def gather(u, i, j, row, modes):
    """Mode amplitudes (8·d, nz) of the voxels (i, j, ·); ``row``: a buffer (4, nz + 1)."""
    d, nx, ny, nz = u.shape
    i1, j1 = (i + 1) % nx, (j + 1) % ny
    for m in range(d):
        u00, u01, u10, u11 = u[m, i, j], u[m, i, j1], u[m, i1, j], u[m, i1, j1]
        for k in range(nz):
            row[0, k] = (u00[k] + u01[k]) + (u10[k] + u11[k])
            row[1, k] = (u01[k] - u00[k]) + (u11[k] - u10[k])
            row[2, k] = (u10[k] + u11[k]) - (u00[k] + u01[k])
            row[3, k] = (u11[k] - u10[k]) - (u01[k] - u00[k])
        for h in range(4):
            row[h, nz] = row[h, 0]
            even, odd = modes[2 * h * d + m], modes[(2 * h + 1) * d + m]
            for k in range(nz):
                even[k] = row[h, k] + row[h, k + 1]
                odd[k] = row[h, k + 1] - row[h, k]


@jit
def scatter(modes, i, j, row, f):
    """Adds to the nodal field ``f``: the transpose of ``gather``."""
    d, nx, ny, nz = f.shape
    i1, j1 = (i + 1) % nx, (j + 1) % ny
    for m in range(d):
        for h in range(4):
            even, odd = modes[2 * h * d + m], modes[(2 * h + 1) * d + m]
            row[h, 0] = (even[0] - odd[0]) + (even[nz - 1] + odd[nz - 1])
            for k in range(1, nz):
                row[h, k] = (even[k] - odd[k]) + (even[k - 1] + odd[k - 1])
        f00, f01, f10, f11 = f[m, i, j], f[m, i, j1], f[m, i1, j], f[m, i1, j1]
        for k in range(nz):
            f00[k] += (row[0, k] - row[1, k]) - (row[2, k] - row[3, k])
            f01[k] += (row[0, k] + row[1, k]) - (row[2, k] + row[3, k])
            f10[k] += (row[0, k] - row[1, k]) + (row[2, k] - row[3, k])
            f11[k] += (row[0, k] + row[1, k]) + (row[2, k] + row[3, k])


@jit
def product(data, columns, pointers, r, x, y):
    """y ← row r of a sparse matrix (CSR) times x, along z."""
    first = pointers[r]
    entry, row = data[first], x[columns[first]]
    for k in range(len(y)):
        y[k] = entry * row[k]
    for n in range(first + 1, pointers[r + 1]):
        entry, row = data[n], x[columns[n]]
        for k in range(len(y)):
            y[k] += entry * row[k]


@jit
def stiffness(phase, coefficients, data, columns, pointers, u, f):
    """f ← K u. The element matrix of a phase is Σ_b coefficients[phase, b] M_b in the modes' basis; the
    M_b (8·d, 8·d) stand one below the other in a sparse matrix."""
    d, nx, ny, nz = u.shape
    f[:] = 0.0
    row, part, weight = np.empty((4, nz + 1)), np.empty(nz), np.empty(nz)
    modes, force = np.empty((8 * d, nz)), np.empty((8 * d, nz))
    for i in range(nx):
        for j in range(ny):
            gather(u, i, j, row, modes)
            force[:] = 0.0
            for b in range(coefficients.shape[1]):
                for k in range(nz):
                    weight[k] = coefficients[phase[i, j, k], b]
                for a in range(8 * d):
                    if pointers[b * 8 * d + a] < pointers[b * 8 * d + a + 1]:
                        product(data, columns, pointers, b * 8 * d + a, modes, part)
                        for k in range(nz):
                            force[a, k] += weight[k] * part[k]
            scatter(force, i, j, row, f)


@jit
def gradient(data, columns, pointers, u):
    """Voxel strain for a sparse B (strains, 8·d) in the modes' basis."""
    d, nx, ny, nz = u.shape
    strain = np.empty((len(pointers) - 1, nx, ny, nz))
    row, modes = np.empty((4, nz + 1)), np.empty((8 * d, nz))
    for i in range(nx):
        for j in range(ny):
            gather(u, i, j, row, modes)
            for s in range(len(strain)):
                product(data, columns, pointers, s, modes, strain[s, i, j])
    return strain


@jit
def gradient_transposed(data, columns, pointers, stress, f):
    """f ← Σ Bᵀ σ at the nodes, for a sparse B (strains, 8·d): the transpose of ``gradient``."""
    d, nx, ny, nz = f.shape
    f[:] = 0.0
    row, modes = np.empty((4, nz + 1)), np.empty((8 * d, nz))
    for i in range(nx):
        for j in range(ny):
            modes[:] = 0.0
            for s in range(len(stress)):
                for n in range(pointers[s], pointers[s + 1]):
                    for k in range(nz):
                        modes[columns[n], k] += data[n] * stress[s, i, j, k]
            scatter(modes, i, j, row, f)


@jit
def constitutive(C, phase, strain):
    """C(x):ε for C (phases, strains, strains)."""
    stress = np.zeros_like(strain)
    for i in range(phase.shape[0]):
        for j in range(phase.shape[1]):
            for s in range(C.shape[1]):
                for t in range(C.shape[2]):
                    for k in range(phase.shape[2]):
                        stress[s, i, j, k] += C[phase[i, j, k], s, t] * strain[t, i, j, k]
    return stress


@jit
def axpy(a, x, y):
    """y ← y + a x."""
    for i in range(len(x)):
        y[i] += a * x[i]
