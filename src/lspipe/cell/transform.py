"""Application of the Green operator: to the frequencies and back, with a 3×3 product at each.

Two ways to the same result. On small grids, a real (Hartley) transform by dense products, n×n along
each axis, which BLAS does faster than any FFT up to about 40 voxels, and for a prime n far beyond.
On larger grids, the real FFT. Both need the symbol at the non-negative frequencies only, for it is
even in each frequency but for the off-diagonal entry of axes i and j, which is odd in both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lspipe.cell.operator_numba import jit

Field = NDArray[np.floating]
DENSE = 40  # largest axis transformed by dense products


def transform(symbol: Field, grid: tuple[int, int, int]) -> Callable[[Field], Field]:
    """The map r → F⁻¹ symbol F r of fields (d, nx, ny, nz), float32 or float64, for an inverse symbol
    as element.green gives it."""
    symbols = {np.dtype(t): np.ascontiguousarray(symbol.transpose(2, 3, 0, 1, 4), t) for t in ("f4", "f8")}
    if max(grid) > DENSE:
        return lambda r: _by_fft(symbols[r.dtype], r)
    bases = {t: [hartley(n).astype(t) for n in grid] for t in symbols}
    return lambda r: _by_products(symbols[r.dtype], bases[r.dtype], r)


def hartley(n: int) -> Field:
    """The orthogonal, symmetric matrix of cos + sin (2π k m / n): its own inverse."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    return (np.cos(angle) + np.sin(angle)) / np.sqrt(n)


def _by_products(symbol: Field, bases: list[Field], r: Field) -> Field:
    z = _along_axes(bases, r)
    _multiply_hartley(symbol, z)
    return _along_axes(bases, z)


def _along_axes(bases: list[Field], u: Field) -> Field:
    Hx, Hy, Hz = bases
    d, nx, ny, nz = u.shape
    u = u.reshape(-1, nz) @ Hz
    u = Hy @ u.reshape(d * nx, ny, nz)
    return (Hx @ u.reshape(d, nx, ny * nz)).reshape(d, nx, ny, nz)


def _by_fft(symbol: Field, r: Field) -> Field:
    z = fft.rfftn(r, axes=(1, 2, 3))
    _multiply_fourier(symbol, z)
    return fft.irfftn(z, s=r.shape[1:], axes=(1, 2, 3), overwrite_x=True)


@jit
def _multiply_fourier(symbol, z):
    """z ← symbol z, in place, at the frequencies of rfftn."""
    d, nx, ny, nz = z.shape
    one = symbol.dtype.type(1)
    sign, value = np.empty(3, symbol.dtype), np.empty(d, z.dtype)
    for i in range(nx):
        for j in range(ny):
            entries = symbol[min(i, nx - i), min(j, ny - j)]
            sign[0], sign[1], sign[2] = one if 2 * i <= nx else -one, one if 2 * j <= ny else -one, one
            for k in range(nz):
                for a in range(d):
                    value[a] = sign[a] * z[a, i, j, k]
                for a in range(d):
                    total = entries[a, 0, k] * value[0]
                    for b in range(1, d):
                        total += entries[a, b, k] * value[b]
                    z[a, i, j, k] = sign[a] * total


@jit
def _multiply_hartley(symbol, z):
    """z ← symbol z, in place, for amplitudes of cos + sin.

    A derivative along an axis turns the amplitude of frequency m there into that of −m. So component 0
    at (mx, my, mz) meets component 1 at (−mx, −my, mz) and component 2 at (−mx, my, −mz), and their
    products with it change sign.
    """
    d, nx, ny, nz = z.shape
    one = symbol.dtype.type(1)
    sign, value, at = np.empty(3, symbol.dtype), np.empty(d, z.dtype), np.empty((3, 3), np.intp)
    for i in range(nx):
        for j in range(ny):
            entries = symbol[min(i, nx - i), min(j, ny - j)]
            mi, mj = (nx - i) % nx, (ny - j) % ny
            sign[0], sign[1] = one if 2 * i <= nx else -one, -one if 2 * j <= ny else one
            for k in range(nz):
                mk = (nz - k) % nz
                sign[2] = -one if 2 * k <= nz else one
                at[0, 0], at[0, 1], at[0, 2] = i, j, k
                at[1, 0], at[1, 1], at[1, 2] = mi, mj, k
                at[2, 0], at[2, 1], at[2, 2] = mi, j, mk
                for a in range(d):
                    value[a] = sign[a] * z[a, at[a, 0], at[a, 1], at[a, 2]]
                for a in range(d):
                    total = entries[a, 0, min(k, nz - k)] * value[0]
                    for b in range(1, d):
                        total += entries[a, b, min(k, nz - k)] * value[b]
                    z[a, at[a, 0], at[a, 1], at[a, 2]] = sign[a] * total
