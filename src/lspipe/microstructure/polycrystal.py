"""Voronoi polycrystals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array, check_integer, check_number
from lspipe.microstructure.generator import Generator, Grid, check_fractions, cut


@dataclass(frozen=True)
class Polycrystal(Generator, kind="polycrystal"):
    """Voronoi cells of uniformly random points, each a grain with an orientation of its own.

    Every grain has at least one voxel: points of grains without a voxel are drawn again.

    Args:
        grains: Number of grains in a cell, at most 65535 and half the number of voxels.
        spread: Orientations are uniform on SO(3) if None. Otherwise they scatter about the sample axes: the three
            components of the rotation vector are normal with mean 0 and this standard deviation, in degrees, 0 to 45.
            The mean angle of rotation is 1.6 times the standard deviation.
        fractions: Shares of the grains that are of materials 0, 1, …, exact to one grain.

    Raises:
        ValueError: A value is outside of these limits.
    """

    grains: int = 100
    spread: float | None = None
    fractions: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if (grains := check_integer("grains", self.grains, 1)) > 65535:
            raise ValueError(f"grains = {grains}: must be at most 65535")
        object.__setattr__(self, "grains", grains)
        if self.spread is not None:
            if not 0 <= (spread := check_number("spread", self.spread)) <= 45:
                raise ValueError(f"spread = {spread}: must lie in [0, 45] degrees; None makes orientations uniform")
            object.__setattr__(self, "spread", spread)
        object.__setattr__(self, "fractions", check_fractions(self.fractions))

    @property
    def phases(self) -> int:
        """Number of materials."""
        return len(self.fractions)

    def check(self, grid: Grid) -> None:
        if self.grains > max(grid.size // 2, 1):
            raise ValueError(
                f"grains = {self.grains}: a cell of {grid} has at most {max(grid.size // 2, 1)} grains; use more voxels"
            )

    def make(self, grid: Grid, design: Array, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        from scipy.spatial.transform import Rotation  # scipy.spatial takes a third of a second to import

        phase = voronoi(grid, self.grains, rng)
        if self.spread is None:
            orientation = Rotation.random(self.grains, rng=rng)
        else:
            orientation = Rotation.from_rotvec(self.spread * rng.standard_normal((self.grains, 3)), degrees=True)
        material = cut(rng.random(self.grains), self.fractions[:-1])
        return phase, material, orientation.as_quat(canonical=True, scalar_first=True)


def voronoi(grid: Grid, grains: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the number (nx, ny, nz) of the nearest of ``grains`` random points, in the periodic metric."""
    from scipy.spatial import cKDTree

    box = grid.edges
    points = box * rng.random((grains, len(box)))
    while True:
        phase = cKDTree(points, boxsize=box).query(grid.centres)[1]
        empty = np.bincount(phase, minlength=grains) == 0
        if not empty.any():
            return phase.reshape(grid.shape)
        points[empty] = box * rng.random((empty.sum(), len(box)))
