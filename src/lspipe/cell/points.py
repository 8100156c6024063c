"""The loops over integration points: stress, tangent and state of inelastic laws, compiled by Numba.

They work through a cell in strips, like kernels.py. A strain is trilinear in a voxel, so its values at the 2×2×2 points
are sums and differences of its amplitudes in the modes of the voxel. Sums and differences of the stresses at the points
are, in turn, the amplitudes that do work on those of the strain.
"""

from typing import Any

import numpy as np

from lspipe.cell.compiled import jit
from lspipe.cell.kernels import (
    STRIP,
    WIDTH,
    fold_faces,
    load_strip,
    multiply_stiffness,
    multiply_weighted,
    scatter,
)


@jit
def exchange(x, sign, width):
    """Turn amplitudes in the modes of a voxel into values at its points (sign 1), or do the transpose (sign −1).

    Both have 8 blocks of 6 rows. One block, for an element with one point, stays as it is.
    """
    blocks = len(x) // (6 * STRIP)
    step = 1
    while step < blocks:
        for block in range(blocks):
            if block // step % 2 == 0:
                for c in range(6):
                    low, high = x[(6 * block + c) * STRIP :], x[(6 * (block + step) + c) * STRIP :]
                    for k in range(width):
                        a, b = low[k], high[k]
                        low[k] = a - sign * b
                        high[k] = b + sign * a
        step *= 2


@jit
def load_points(voxels, grid, strains, u, offset, points, buffers):
    """Write the strains at the points, (strips, 6·points, STRIP), under u and the amplitudes ``offset``.

    ``strains`` is the matrix of the strain amplitudes. The buffers are those of ``apply_tangent``.
    """
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    weights, modes, _, _, ones, table = buffers
    for strip in range(len(points)):
        at, block = strip * WIDTH, points[strip].reshape(-1)
        width = load_strip(voxels, at, plane, row, (nx + 1) * plane, table, u, offset, weights, modes)
        rows = len(strains[2]) - 1
        block[rows * STRIP :] = 0
        multiply_weighted(strains, ones, modes, block[: rows * STRIP], width)
        exchange(block, ones[0], width)


@jit
def unload_points(voxels, grid, forces, points, stresses, f, moments, buffers):
    """Write the nodal forces of the stresses at the points, and the voxel means of stress, (6, nodes)."""
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    _, _, force, lines, ones, _ = buffers
    moments[:] = 0
    for strip in range(len(points)):
        at, block = strip * WIDTH, points[strip].reshape(-1)
        width = min(WIDTH, len(voxels) - at)
        exchange(block, -ones[0], width)
        for c in range(6):
            mean, amplitude = stresses[c, at:], block[c * STRIP :]
            for k in range(width):
                mean[k] = amplitude[k] * 6 / points.shape[1]
        multiply_weighted(forces, ones, block, force, width)
        for c in range(3):
            modal, nodes = force[8 * c * STRIP :], f[c * size :]
            scatter(modal, nodes, at, plane, row, size, width, moments[8 * c :], lines)
    fold_faces(f, grid, 3)


@jit
def apply_tangent(voxels, grid, tangent, strains, forces, u, offset, f, moments, buffers):
    """f ← nodal forces for the upper triangles of tangents at the points, (strips, points, 21, STRIP).

    The other arguments are those of ``kernels.apply_stiffness``.
    """
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    weights, modes, force, points, ones, table = buffers
    moments[:] = 0
    for strip in range(len(tangent)):
        at, rows = strip * WIDTH, len(strains[2]) - 1
        width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
        points[rows * STRIP :] = 0
        multiply_weighted(strains, ones, modes, points[: rows * STRIP], width)
        exchange(points, ones[0], width)
        for q in range(tangent.shape[1]):
            multiply_stiffness(tangent[strip, q].reshape(-1), points[6 * q * STRIP :], width)
        exchange(points, -ones[0], width)
        multiply_weighted(forces, ones, points, force, width)
        for c in range(3):
            modal, nodes = force[8 * c * STRIP :], f[c * size :]
            scatter(modal, nodes, at, plane, row, size, width, moments[8 * c :], points)
    fold_faces(f, grid, 3)


def compile_loop(law: Any) -> Any:
    """Return the loop that evaluates ``law`` at the points of its voxels."""

    def evaluate(number, sizes, voxels, laws, C, parameters, modulus, slots, old, new, points, tangent):
        """Replace the strains at the points, (strips, 6·points, STRIP), by stresses; write new states and tangents.

        The loop works on the voxels whose phase has the law ``number``. Loop 0 also does the elastic phases, with
        number −1 in ``laws``. ``sizes`` are the numbers of states and of parameters of the law. ``slots`` is the place
        of each voxel in the states ``old`` and ``new``. Stresses have the unit ``modulus``, except the parameters of
        the law and what it returns.
        """
        strain, stress, D = np.empty(6), np.empty(6), np.empty((6, 6))
        state, fresh = np.empty(sizes[0]), np.empty(sizes[0])
        unit = 1 / modulus
        for strip in range(len(points)):
            at = strip * WIDTH
            for q in range(tangent.shape[1]):
                point, to = points[strip, 6 * q : 6 * q + 6], tangent[strip, q]
                for k in range(min(WIDTH, len(voxels) - at)):
                    phase, slot = voxels[at + k], slots[at + k]
                    for c in range(6):
                        strain[c] = point[c, k]
                    if laws[phase] == number:
                        for c in range(len(state)):
                            state[c] = old[q, slot, c]
                        law(strain, state, parameters[phase, : sizes[1]], stress, fresh, D)
                        for c in range(len(state)):
                            new[q, slot, c] = fresh[c]
                        entry = 0
                        for i in range(6):
                            point[i, k] = stress[i] * unit
                            for j in range(i, 6):
                                to[entry, k] = D[i, j] * unit
                                entry += 1
                    elif number == 0 and laws[phase] < 0:
                        for i in range(6):
                            total = 0.0
                            for j in range(6):
                                total += C[phase, i, j] * strain[j]
                            point[i, k] = total

    return jit(evaluate, allocates=True)
