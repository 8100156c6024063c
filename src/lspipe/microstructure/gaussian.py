"""Filtered white noise, cut at thresholds (Kelly & Kalidindi 2021, sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array, check_integer
from lspipe.microstructure.generator import Generator, Grid, check_fractions, cut


@dataclass(frozen=True)
class Gaussian(Generator, kind="gaussian"):
    """Phases between thresholds of filtered white noise. The default makes the paper's two-phase cells.

    The grain size along each axis is uniform between 1 voxel and the cell's edge. Volume fractions are exact to one
    voxel.

    Args:
        phases: Number of phases, 1 to 255.
        fractions: Volume fractions of phases 0, 1, … in all cells. Without them, those of a cell are drawn: all
            fractions whose sum is 1 are equally likely.

    Raises:
        ValueError: A value is outside of these limits.
    """

    phases: int = 2
    fractions: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        phases = check_integer("phases", self.phases, 1)
        if self.fractions is not None:
            fractions = check_fractions(self.fractions)
            object.__setattr__(self, "fractions", fractions)
            if phases not in (Gaussian.phases, len(fractions)):
                raise ValueError(f"phases = {phases}: there are {len(fractions)} fractions; leave out one of the two")
            phases = len(fractions)
        if phases > 255:
            raise ValueError(f"phases = {phases}: must be at most 255")
        object.__setattr__(self, "phases", phases)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Grain sizes in voxels along x, y, z, and the volume fractions, if drawn, of all phases but the last one."""
        drawn = () if self.fractions else tuple(f"fraction_{p}" for p in range(self.phases - 1))
        return ("grain_x", "grain_y", "grain_z", *(("fraction",) if len(drawn) == 1 else drawn))

    def design(self, u: Array, grid: Grid) -> Array:
        grain = np.maximum(np.ceil(np.array(grid.shape) * u[:, :3]), 1)
        # The gaps between sorted uniform numbers are uniform among all fractions with the sum 1.
        return np.column_stack([grain, np.diff(np.sort(u[:, 3:]), prepend=0.0)])

    def make(self, grid: Grid, design: Array, rng: np.random.Generator) -> tuple[NDArray[np.int64]]:
        smooth = blur(rng.random(grid.shape), design[:3].astype(int))
        return (cut(smooth, self.fractions[:-1] if self.fractions else design[3:]),)


def blur(noise: Array, grain: NDArray[np.int64]) -> Array:
    """Convolve a periodic field (nx, ny, nz) with the paper's filter of ``grain`` voxels along each axis.

    Along an axis the filter is a Gaussian of standard deviation g/(2π) voxels in a window of g voxels. Its peak is at
    voxel g // 2 of the window: an even window keeps one voxel more on one side of the peak than on the other.
    """
    field = np.fft.rfftn(noise)
    for axis, (n, g) in enumerate(zip(noise.shape, grain, strict=True)):
        window = np.zeros(n)
        window[:g] = np.exp(-0.5 * ((np.arange(g) - g // 2) * 2 * np.pi / g) ** 2)
        transform = np.fft.rfft(window) if axis == 2 else np.fft.fft(window)
        field *= transform.reshape([-1 if a == axis else 1 for a in range(3)])
    return np.fft.irfftn(field, s=noise.shape, axes=(0, 1, 2))
