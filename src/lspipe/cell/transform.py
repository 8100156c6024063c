"""The basis in which the Green operator is a d×d matrix at each frequency.

There are two transforms. Both are exact, and ``is_dense`` takes the faster one. One is the real FFT. The other has real
basis functions, applied as dense products along each axis.

The real basis: a derivative along an axis turns cos into −sin and sin into cos. The symbol of K⁰ couples components
a ≠ b of a vector by one derivative along a and one along b. Component a therefore has the functions φ (cosines and
sines) along the other axes, and their derivatives ψ along axis a. Components that couple then have the same index, and
the factor between them is the symbol at the non-negative frequency.

The dense products are folded. The sums x_j + x_{n−j} determine the amplitudes of even functions, and the differences
those of odd ones, which halves the multiplications. The sums x_j + x_{j+n/2} determine the amplitudes of the even
frequencies, and the differences those of the odd ones. This halves the multiplications again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Grid = tuple[int, int, int]
FFT = 80  # multiplications of a value along an axis that take as long as an FFT of a length with small factors
FOLD = 20  # length from which products are folded; smaller products are slow
SPLIT = 32  # length from which even and odd frequencies are separated


def is_dense(grid: Grid) -> bool:
    """Return whether dense products are faster than an FFT, for which a length with large factors is twice as long."""
    dense = sum((blocks(n, derived=False)[:, 2] ** 2).sum() / n for n in grid)
    if dense <= 3 * FFT:
        return True
    from scipy.fft import next_fast_len  # takes half a second to import

    return bool(dense <= FFT * sum(1 + (next_fast_len(n, real=True) > n) for n in grid))


def angles(grid: Grid, dense: bool) -> list[Array]:
    """Return the angles along each axis, in radians per voxel, at which the symbol of the Green operator is needed.

    Args:
        grid: Numbers of voxels.
        dense: Whether the transform consists of dense products, not of FFTs.
    """
    frequency = [np.fft.rfftfreq if dense or axis == 2 else np.fft.fftfreq for axis in range(3)]
    return [2 * np.pi * np.asarray(f(n), np.float64) for f, n in zip(frequency, grid, strict=True)]


def places(grid: Grid, dense: bool) -> tuple[Integers, ...]:
    """Return the index into ``angles`` of each amplitude along each axis, as an open mesh."""
    if not dense:
        return np.ix_(*(np.arange(len(angle)) for angle in angles(grid, dense)))
    return np.ix_(*(np.concatenate([k for _, *ks in _groups(n) for k in (*ks, ks[0])]) for n in grid))


def bases(grid: Grid, d: int) -> list[Array]:
    """Return for each axis the real basis functions of each component at the nodes, (d, n, n), in orthonormal columns.

    Scalar unknowns, which C⁰ does not couple, may have ψ along any axis.
    """
    return [np.stack([functions(n, derived=c == axis) for c in range(d)]) for axis, n in enumerate(grid)]


def functions(n: int, derived: bool) -> Array:
    """Return the functions φ of an axis of n nodes, or their derivatives ψ, in orthonormal columns (n, n)."""
    columns = []
    for _, paired, alone in _groups(n):
        # cos(x − π/2) = sin x; the constant and the alternating function have no sine beside them.
        for k, lag, size in ((paired, 0, 2), (alone, 0, 1), (paired, np.pi / 2, 2)):
            shift = lag - np.pi / 2 * (derived and size == 2)
            columns.append(np.sqrt(size / n) * np.cos(2 * np.pi / n * np.outer(np.arange(n), k) - shift))
    return np.hstack(columns)


def _groups(n: int) -> Iterator[tuple[int, Integers, Integers]]:
    """Yield the first row of each group of frequencies that sums and differences of rows separate, and its frequencies.

    Frequencies of a cosine and a sine come first, then those of a function alone. A group has a row for each function.
    """
    period = n
    while period % 2 == 0 and period >= SPLIT:
        period //= 2
    first, rows, k = 0, period, n // period * np.arange(period // 2 + 1)
    while first < n:
        alone = 2 * k % n == 0
        yield first, k[~alone], k[alone]
        first = rows = first + rows
        k = n // (2 * rows) * np.arange(1, rows + 1, 2)


def pairs(n: int) -> tuple[Integers, Integers]:
    """Return the pairs (i, j) of rows to replace by x_i + x_j and x_i − x_j: first all of one table, then of another.

    Each row is once in the first table, where a row beside itself stays as it is. The rows of a group then begin with
    those that determine its even functions.
    """
    groups = [(first, 2 * len(paired) + len(alone)) for first, paired, alone in _groups(n)]
    steps = [[(j, j + first) for j in range(first)] for first, _ in groups[:0:-1]]
    folds = [(first + j, first + rows - j) for first, rows in groups for j in range(1, (rows + 1) // 2)]
    # x_{j+n/2} = −x_j in the groups after the first one, so that the difference is even.
    steps += [[(i, j) if i < groups[0][1] else (j, i) for i, j in folds if n >= FOLD]]
    first = steps[0] + [(i, i) for i in set(range(n)).difference(*steps[0])]
    others = [pair for step in steps[1:] for pair in step]
    return np.array(first), np.array(others, np.int64).reshape(-1, 2)


def blocks(n: int, derived: bool) -> Integers:
    """Return row, column and size of the blocks of which the basis of an axis consists after ``pairs``, (blocks, 3)."""
    if n < FOLD:
        return np.array([[0, 0, n]])
    table = []
    for first, paired, alone in _groups(n):
        odd, even = len(paired), len(paired) + len(alone)
        if derived:
            table += [(first + even, first, odd), (first, first + odd, even)]
        else:
            table += [(first, first, even), (first + even, first + even, odd)]
    return np.array(table)


def tiles(matrix: Array, blocks: Integers) -> tuple[Integers, Array]:
    """Divide the blocks of a matrix (n, n) into 4×4 numbers. Each block has its first row, first column and size.

    Tiles may overlap, and have zeros where another one has the number. Small blocks repeat their last row.

    Returns:
        (tiles, 9): the 4 rows to write, the 4 to read, and whether the tile is the first one that writes to its rows.
        Then the numbers (tiles, 16).
    """
    numbers, rows = [], []
    for row, column, size in blocks:
        fours = [min(k, max(size - 4, 0)) + np.arange(4) for k in range(0, size, 4)]
        for written in fours:
            for k, read in enumerate(fours):
                i, j = row + np.minimum(written, size - 1), column + np.minimum(read, size - 1)
                numbers.append(matrix[np.ix_(i, j)] * ((read >= 4 * k) & (read < size)))
                rows.append([*i, *j, k == 0])
    return np.array(rows, np.int64), np.reshape(numbers, (-1, 16))


def folded(basis: Array) -> Array:
    """Return the basis (n, n) that applies after ``pairs``."""
    basis = basis.copy()
    for i, j in np.concatenate(pairs(len(basis))):
        if i != j:
            a, b = basis[i] / 2, basis[j] / 2
            basis[i], basis[j] = a + b, a - b
    return basis


def analyse(bases: Any, r: Any) -> Any:
    """Return the amplitudes (…, d, nx, ny, nz) of nodal values r (…, d, nx, ny, nz), NumPy or PyTorch."""
    *lead, nx, ny, nz = r.shape
    for basis in bases:  # transforms the first axis and makes it the last
        r = r.reshape(*lead, basis.shape[-1], -1).mT @ basis
    return r.reshape(*lead, nx, ny, nz)


def synthesize(bases: Any, z: Any) -> Any:
    """Return the nodal values of amplitudes: the transpose and inverse of ``analyse``."""
    return analyse([basis.mT for basis in bases], z)


def extend(u: Any, out: Any) -> Any:
    """Write a periodic nodal field (…, nx, ny, nz), NumPy or PyTorch, to ``out`` on the nodes 0 … n of each axis."""
    out[..., :-1, :-1, :-1] = u
    out[..., :-1, :-1, -1] = out[..., :-1, :-1, 0]
    out[..., :-1, -1, :] = out[..., :-1, 0, :]
    out[..., -1, :, :] = out[..., 0, :, :]
    return out
