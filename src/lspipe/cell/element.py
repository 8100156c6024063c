"""The trilinear hexahedron, one for each voxel. Every constant of the discretization is derived here.

Corner ``a`` of voxel (i, j, k) is the node (i, j, k) + CORNERS[a] of the periodic grid. The unknowns of an element are
ordered corner by corner: component ``c`` of ``d`` has the index ``a·d + c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.physics import ELASTICITY, Physics

Array = NDArray[np.float64]

SCHEMES = ("bbar", "full", "reduced")
CORNERS = np.array(list(np.ndindex(2, 2, 2)))
# The trilinear functions 1, z, y, yz, x, xz, xy, xyz of a voxel at its corners, (mode, corner). The element matrices
# couple few of them, and are sparse in this basis.
MODES = np.array([[np.prod((2.0 * c - 1) ** m) for c in CORNERS] for m in CORNERS])


@dataclass(frozen=True, eq=False)
class Element:
    """Strain-displacement matrices of one voxel.

    Attributes:
        B: Strain at each integration point, (points, strains, 8·d). All points have the same weight.
        volume: Volume of the voxel.
    """

    B: Array
    volume: float

    @property
    def mean(self) -> Array:
        """Mean of B over the points, (strains, 8·d), which is its value at the centre."""
        return self.B.mean(axis=0)

    @cached_property
    def amplitudes(self) -> Array:
        """Matrices B_m (m, strains, 8·d) with ∫ BᵀCB = volume · Σ_m B_mᵀ C B_m for a uniform C.

        They are the amplitudes of B in the modes of a voxel. The first one is the mean; the last mode, xyz, does not
        occur in a strain.
        """
        return self.B if len(self.B) == 1 else np.tensordot(MODES, self.B, 1)[:-1] / 8

    def element_matrices(self, C: Array) -> Array:
        """Return the element matrices ∫ Bᵀ C B, (…, 8·d, 8·d), for stiffnesses C (…, strains, strains)."""
        return self.volume / len(self.B) * np.einsum("qsi,...st,qtj->...ij", self.B, C, self.B)


@lru_cache(maxsize=8)
def hexahedron(scheme: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), physics: Physics = ELASTICITY) -> Element:
    """Return the element of a scheme with edge lengths ``spacing``.

    ``full`` has 2×2×2 Gauss points. ``bbar`` has the same points, and replaces the volumetric strain by its mean over
    the element (Hughes 1980; Abaqus C3D8). ``reduced`` has one point (rotated scheme of Willot 2015).
    """
    gauss = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)
    points = [(0.5, 0.5, 0.5)] if scheme == "reduced" else [tuple(gauss[c]) for c in CORNERS]
    L, h = physics.strain_operator, np.array(spacing)
    B = np.stack([_strain_displacement(np.array(point), h, L) for point in points])
    if scheme == "bbar":
        trace = physics.volumetric
        volumetric = trace @ B
        B = B + np.multiply.outer(trace / 3, volumetric.mean(axis=0) - volumetric).transpose(1, 0, 2)
    return Element(B, float(np.prod(spacing)))


def _strain_displacement(point: Array, spacing: Array, L: Array) -> Array:
    """Return B (strains, 8·d) at a point of the unit cube."""
    shape = np.where(CORNERS, point, 1 - point)
    slope = np.where(CORNERS, 1.0, -1.0) / spacing
    gradient = np.stack([slope[:, i] * np.delete(shape, i, axis=1).prod(axis=1) for i in range(3)])
    return np.einsum("isc,ia->sac", L, gradient).reshape(L.shape[1], -1)


def to_modes(matrix: Array) -> Array:
    """Transform the last axis of a matrix (…, 8·d) from corners to modes.

    Index ``c·8 + mode`` then refers to the amplitude Σ_a MODES[mode, a] u_ac.
    """
    d = matrix.shape[-1] // 8
    return np.einsum("...ac,ma->...cm", matrix.reshape(*matrix.shape[:-1], 8, d), MODES).reshape(matrix.shape) / 8


def uniform_displacements(spacing: Array, L: Array) -> Array:
    """Return the displacements (8·d, strains) of the corners of a voxel under each unit strain, without rotation.

    The centre does not move, so that only the modes x, y and z occur.
    """
    gradient = np.einsum("isc,st->ict", L, np.linalg.inv(np.einsum("isc,itc->st", L, L)))
    return np.einsum("ai,i,ics->acs", CORNERS - 0.5, spacing, gradient).reshape(-1, L.shape[1])


def inverse_symbol(element: Element, C0: Array, angles: tuple[Array, ...]) -> Array:
    """Return the inverse symbol of K⁰ for the medium C0, (d, d, nx, ny, nz), at all triples of three lists of angles.

    The angles are in radians per voxel. An element matrix assembles to an even stencil of 27 nodes, so the symbol is
    real and symmetric. It vanishes at the mean. With one integration point it also vanishes where a displacement
    alternates along two or three axes (hourglass modes of even grids). The inverse is set to 0 there, which keeps these
    modes out of u.
    """
    matrix = element.element_matrices(C0)
    d = len(matrix) // 8
    blocks = matrix.reshape(8, d, 8, d)
    stencil = np.zeros((3, 3, 3, d, d))
    for a in range(8):
        for b in range(8):
            stencil[tuple(CORNERS[b] - CORNERS[a] + 1)] += blocks[a, :, b, :]
    waves = [np.exp(1j * np.outer(angle, [-1, 0, 1])) for angle in angles]
    symbol = np.einsum("xi,yj,zk,ijkab->abxyz", *waves, stencil, optimize=True).real.copy()
    still = _count(angle == 0 for angle in angles)
    alternating = _count(np.isclose(np.abs(angle), np.pi) for angle in angles)
    vanishing = (still == 3) | ((alternating >= 2) & (len(element.B) == 1))
    symbol[:, :, vanishing] = np.eye(d)[:, :, None]
    # The sweep operator inverts all d×d matrices at once. They are positive definite.
    for k in range(d):
        pivot, column = symbol[k, k].copy(), symbol[k].copy()
        symbol -= column[:, None] * column / pivot
        symbol[k] = symbol[:, k] = column / pivot
        symbol[k, k] = -1 / pivot
    symbol[:, :, vanishing] = 0.0
    return -symbol


def _count(flags: Iterable[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Return for each point of a grid the number of axes along which the flag is set."""
    x, y, z = (flag.astype(int) for flag in flags)
    return x[:, None, None] + y[:, None] + z
