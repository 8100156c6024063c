"""The loops over integration points: stress, tangent and state of inelastic laws, compiled by Numba.

They work through a cell in strips, like kernels.py. A strain is trilinear in a voxel, so its values at the 2×2×2 points
are sums and differences of its amplitudes in the modes of the voxel. Sums and differences of the stresses at the points
are, in turn, the amplitudes that do work on those of the strain.
"""

from typing import Any

from lspipe.cell.compiled import jit
from lspipe.cell.kernels import (
    STRIP,
    fold_faces,
    load_strip,
    multiply_stiffness,
    multiply_weighted,
    unload_strip,
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
def load_strains(strains, modes, points, ones, width):
    """Write the strains at the points of a strip from its mode amplitudes."""
    rows = len(strains[2]) - 1
    points[rows * STRIP :] = 0
    multiply_weighted(strains, ones, modes, points[: rows * STRIP], width)
    exchange(points, ones[0], width)


@jit
def unload_stresses(forces, points, force, ones, width):
    """Write the modal forces of the stresses at the points of a strip; ``points`` becomes the amplitudes of stress."""
    exchange(points, -ones[0], width)
    multiply_weighted(forces, ones, points, force, width)


@jit
def apply_tangent(voxels, grid, tangent, strains, forces, carriers, u, offset, f, moments, buffers):
    """f ← nodal forces for the upper triangles of tangents at the points, (strips, points, 21, STRIP).

    The other arguments are those of ``kernels.apply_stiffness``.
    """
    nx, ny, nz = grid
    row = nz + 1
    plane = (ny + 1) * row
    size = (nx + 1) * plane
    weights, modes, force, points, ones, table = buffers
    f[:] = 0
    moments[:] = 0
    for strip in range(len(tangent)):
        at = strip * STRIP
        width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
        load_strains(strains, modes, points, ones, width)
        for q in range(tangent.shape[1]):
            multiply_stiffness(tangent[strip, q].ravel(), points[6 * q * STRIP :], width)
        unload_stresses(forces, points, force, ones, width)
        unload_strip(force, carriers, moments, f, at, plane, row, size, width)
    fold_faces(f, grid, len(offset) // 8)


def compile_loop(law: Any) -> Any:
    """Return the loop that evaluates ``law`` at the points of its voxels."""

    @jit
    def evaluate(
        number, voxels, grid, laws, C, parameters, modulus, slots, strains, forces, carriers, u, offset, old, new, f, moments, stresses, tangent, buffers
    ):  # fmt: skip
        """Add the nodal forces of the voxels whose phase has the law ``number``, and write what belongs to them.

        Loop 0 also does the elastic voxels, with number −1 in ``laws`` (phases,). ``slots`` is the place of each voxel
        in the states ``old`` and ``new`` (slots, points, states). ``stresses`` (6, nodes) are means over the points.
        Stresses have the unit ``modulus``, except the parameters of the law and what it returns.
        """
        nx, ny, nz = grid
        row = nz + 1
        plane = (ny + 1) * row
        size = (nx + 1) * plane
        weights, modes, force, points, ones, table, strain, stress, D = buffers
        count = tangent.shape[1]
        for strip in range(len(tangent)):
            at = strip * STRIP
            width = load_strip(voxels, at, plane, row, size, table, u, offset, weights, modes)
            load_strains(strains, modes, points, ones, width)
            for k in range(width):
                phase, slot = voxels[at + k], slots[at + k]
                for q in range(count):
                    point = points[6 * q * STRIP + k :]
                    for c in range(6):
                        strain[c] = point[c * STRIP]
                    if laws[phase] == number:
                        law(strain, old[slot, q], parameters[phase], stress, new[slot, q], D)
                        to, entry = tangent[strip, q], 0
                        for i in range(6):
                            point[i * STRIP] = stress[i] / modulus
                            for j in range(i, 6):
                                to[entry, k] = D[i, j] / modulus
                                entry += 1
                    elif number == 0 and laws[phase] < 0:
                        for i in range(6):
                            total = 0.0
                            for j in range(6):
                                total += C[phase, i, j] * strain[j]
                            point[i * STRIP] = total
                    else:
                        for i in range(6):
                            point[i * STRIP] = 0
            unload_stresses(forces, points, force, ones, width)
            for c in range(6):
                mean, amplitude = stresses[c, at:], points[c * STRIP :]
                for k in range(width):
                    mean[k] += amplitude[k] / count
            unload_strip(force, carriers, moments, f, at, plane, row, size, width)
        fold_faces(f, grid, len(offset) // 8)

    return evaluate
