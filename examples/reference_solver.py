"""Solve the cell problem of docs/theory.md in plain numpy, for one cell of isotropic phases under a prescribed strain.

This page states what `lspipe.solve` computes with its default element; a test compares the two. It favours short code
over speed. Run it with `python examples/reference_solver.py`.
"""

import numpy as np

CORNERS = np.array(list(np.ndindex(2, 2, 2)))  # the nodes of a voxel
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # xx, yy, zz, yz, xz, xy
TRACE = np.array([1.0, 1, 1, 0, 0, 0])


def stiffness(bulk, shear):
    """Isotropic stiffness (6, 6), which acts on engineering shear."""
    return (bulk - 2 / 3 * shear) * np.outer(TRACE, TRACE) + shear * np.diag([2.0, 2, 2, 1, 1, 1])


def strain_displacement():
    """B (8 Gauss points, 6, 24) of the B-bar hexahedron: strains from the displacements of its corners."""
    B = np.zeros((8, 6, 8, 3))
    for g, point in enumerate(0.5 + (CORNERS - 0.5) / np.sqrt(3)):
        shape = np.where(CORNERS, point, 1 - point)
        gradient = [(2 * CORNERS[:, i] - 1) * np.delete(shape, i, axis=1).prod(axis=1) for i in range(3)]
        for row, (i, j) in enumerate(PAIRS):
            B[g, row, :, j] += gradient[i]
            B[g, row, :, i] += gradient[j] * (i != j)
    B = B.reshape(8, 6, 24)
    dilatation = TRACE @ B
    return B + TRACE[:, None] / 3 * (dilatation.mean(axis=0) - dilatation)[:, None]


def solve(phase, moduli, E, tol=1e-10):
    """Return the mean strain (6, nx, ny, nz) of each voxel, with tensor shear.

    Args:
        phase: Integers (nx, ny, nz), the number of the material of each voxel.
        moduli: Bulk and shear modulus of each material, (phases, 2).
        E: Macroscopic strain xx, yy, zz, yz, xz, xy, with tensor shear.
        tol: Energy norm of the residual relative to that of the load.
    """
    C, B, axes = np.array([stiffness(*m) for m in moduli]), strain_displacement(), (-3, -2, -1)
    E = np.array(E) * [1, 1, 1, 2, 2, 2]
    element = np.einsum("gsi,pst,gtj->pij", B, C, B) / 8
    C0 = stiffness(*(np.min(moduli, axis=0) + np.max(moduli, axis=0)) / 2)

    def gather(u):  # (3, nx, ny, nz) at the nodes → (24, nx, ny, nz) at the corners of the voxels
        return np.concatenate([np.roll(u, -c, axes) for c in CORNERS])

    def scatter(f):
        return sum(np.roll(f[3 * a : 3 * a + 3], c, axes) for a, c in enumerate(CORNERS))

    def K(u):
        return scatter(np.einsum("xyzij,jxyz->ixyz", element[phase], gather(u)))

    # K⁰ is a convolution. In Fourier space it is a 3×3 matrix at each frequency: the transform of its response to a
    # unit displacement of one node. Its inverse, 0 at the mean, is the Green operator.
    unit = np.zeros((3, 3, *phase.shape))
    unit[range(3), range(3), 0, 0, 0] = 1
    K0 = np.einsum("gsi,st,gtj->ij", B, C0, B) / 8
    symbol = np.fft.fftn([scatter(np.tensordot(K0, gather(u), 1)) for u in unit], axes=axes).transpose(2, 3, 4, 1, 0)
    symbol[0, 0, 0] = np.eye(3)
    symbol = np.linalg.inv(symbol)
    symbol[0, 0, 0] = 0

    def green(r):
        return np.fft.ifftn(np.einsum("xyzij,jxyz->ixyz", symbol, np.fft.fftn(r, axes=axes)), axes=axes).real

    u = np.zeros((3, *phase.shape))
    r = -scatter(np.einsum("si,xyzst,t->ixyz", B.mean(axis=0), C[phase], E))  # f − K u at u = 0
    p = z = green(r)
    rho = load = np.vdot(r, z)
    while rho > tol**2 * load:
        Kp = K(p)
        step = rho / np.vdot(p, Kp)
        u, r = u + step * p, r - step * Kp
        z, previous = green(r), rho
        rho = np.vdot(r, z)
        p = z + rho / previous * p
    strain = E[:, None, None, None] + np.tensordot(B.mean(axis=0), gather(u), 1)
    return strain / np.array([1, 1, 1, 2, 2, 2])[:, None, None, None]


if __name__ == "__main__":
    phase = np.random.default_rng(0).integers(0, 2, (9, 8, 7))
    strain = solve(phase, moduli=[(100, 46), (5000, 2300)], E=[1e-3, 0, 0, 0, 0, 0])
    print(f"largest ε_xx: {strain[0].max():.4e}, mean ε_xx: {strain[0].mean():.4e}")
