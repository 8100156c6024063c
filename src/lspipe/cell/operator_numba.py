"""The stencils of one cell on one CPU thread: gather the 8 corners, multiply, scatter.

Nodal fields are (d, nx, ny, nz), voxel fields (strains, nx, ny, nz), both float64 and periodic.
The kernels release the GIL, so samples run side by side in threads.
"""

import numpy as np
from numba import njit

jit = njit(nogil=True, cache=True, fastmath={"contract"})


@jit
def gather(u, i, j, k, ue):
    """Values of ``u`` at the corners of voxel (i, j, k), ordered as in element.CORNERS."""
    d, nx, ny, nz = u.shape
    at = 0
    for a in (i, i + 1 if i + 1 < nx else 0):
        for b in (j, j + 1 if j + 1 < ny else 0):
            for c in (k, k + 1 if k + 1 < nz else 0):
                for m in range(d):
                    ue[at] = u[m, a, b, c]
                    at += 1


@jit
def scatter(fe, i, j, k, f):
    """Adds corner values to ``f``: the transpose of ``gather``."""
    d, nx, ny, nz = f.shape
    at = 0
    for a in (i, i + 1 if i + 1 < nx else 0):
        for b in (j, j + 1 if j + 1 < ny else 0):
            for c in (k, k + 1 if k + 1 < nz else 0):
                for m in range(d):
                    f[m, a, b, c] += fe[at]
                    at += 1


@jit
def stiffness(phase, element_matrices, u):
    """K u for element matrices (phases, 8·d, 8·d), symmetric."""
    d, nx, ny, nz = u.shape
    f = np.zeros_like(u)
    ue, fe = np.empty(8 * d), np.empty(8 * d)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                gather(u, i, j, k, ue)
                fe[:] = 0.0
                for b in range(8 * d):
                    column = element_matrices[phase[i, j, k], b]
                    for a in range(8 * d):
                        fe[a] += column[a] * ue[b]
                scatter(fe, i, j, k, f)
    return f


@jit
def gradient(B, u):
    """Voxel strain B u for B (strains, 8·d)."""
    d, nx, ny, nz = u.shape
    strain = np.empty((B.shape[0], nx, ny, nz))
    ue = np.empty(8 * d)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                gather(u, i, j, k, ue)
                for s in range(B.shape[0]):
                    total = 0.0
                    for a in range(8 * d):
                        total += B[s, a] * ue[a]
                    strain[s, i, j, k] = total
    return strain


@jit
def gradient_transposed(B, stress):
    """Bᵀ σ summed at the nodes for B (strains, 8·d): the transpose of ``gradient``."""
    _, nx, ny, nz = stress.shape
    f = np.zeros((B.shape[1] // 8, nx, ny, nz))
    fe = np.empty(B.shape[1])
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                fe[:] = 0.0
                for s in range(B.shape[0]):
                    for a in range(B.shape[1]):
                        fe[a] += B[s, a] * stress[s, i, j, k]
                scatter(fe, i, j, k, f)
    return f


@jit
def multiply_symbol(symbol, r):
    """Product of a real symbol (d, d, nx, ny, nz//2 + 1) with a transformed field (d, …), in place."""
    d, nx, ny, nz = r.shape
    row = np.empty(d, r.dtype)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                for m in range(d):
                    row[m] = r[m, i, j, k]
                for m in range(d):
                    total = 0.0 * row[0]
                    for n in range(d):
                        total += symbol[m, n, i, j, k] * row[n]
                    r[m, i, j, k] = total
