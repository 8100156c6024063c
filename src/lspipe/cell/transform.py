"""The basis in which the Green operator is a d×d matrix at each frequency.

There are two transforms. Larger grids use the real FFT. Small grids use real basis functions, applied as dense n×n
products along each axis. BLAS computes these faster than an FFT up to about 40 voxels, and for a prime n far beyond.

The real basis: a derivative along an axis turns cos into −sin and sin into cos. The symbol of K⁰ couples components
a ≠ b of a vector by one derivative along a and one along b. Component a therefore has the functions φ (cosines, then
sines) along the other axes, and their derivatives ψ along axis a. Components that couple then have the same index, and
the factor between them is the symbol at the non-negative frequency.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Grid = tuple[int, int, int]
DENSE = 40  # length of the largest axis that is transformed by dense products


def is_dense(grid: Grid) -> bool:
    return max(grid) <= DENSE


def angles(grid: Grid) -> tuple[Array, ...]:
    """Return the angles along each axis, in radians per voxel, at which the symbol of the Green operator is needed."""
    nx, ny, nz = grid
    if is_dense(grid):
        return _real_angles(nx), _real_angles(ny), _real_angles(nz)
    x, y, z = np.fft.fftfreq(nx), np.fft.fftfreq(ny), np.fft.rfftfreq(nz)
    return tuple(2 * np.pi * np.asarray(f, np.float64) for f in (x, y, z))


@lru_cache(maxsize=4)
def bases(grid: Grid, d: int) -> list[Array]:
    """Return for each axis the real basis functions of each component at the nodes, (d, n, n), in orthonormal columns.

    Scalar unknowns, which C⁰ does not couple, may have ψ along any axis.
    """
    return [np.stack([_functions(n, derived=c == axis) for c in range(d)]) for axis, n in enumerate(grid)]


def _real_angles(n: int) -> Array:
    return 2 * np.pi / n * np.r_[0 : n // 2 + 1, 1 : (n + 1) // 2]


def _functions(n: int, derived: bool) -> Array:
    angle = _real_angles(n)
    lag = np.where(np.arange(n) > n // 2, np.pi / 2, 0.0)  # cos(x − π/2) = sin x
    alone = np.isclose(np.sin(angle), 0)  # The constant and the alternating function have no sine beside them.
    if derived:
        lag = np.where(alone, lag, lag - np.pi / 2)
    return np.cos(np.outer(np.arange(n), angle) - lag) * np.sqrt(np.where(alone, 1, 2) / n)


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
