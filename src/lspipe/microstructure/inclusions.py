"""Inclusions that do not overlap: spheres, long fibres and short fibres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import gamma, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array, check_integer, check_number, check_numbers, shorten
from lspipe.microstructure.generator import Generator, Grid, cut
from lspipe.microstructure.packing import pack

TRIALS, ATTEMPTS = 5, 1000  # random starts of the check and of a sample


@dataclass(frozen=True)
class Inclusions(Generator):
    """Equal inclusions (phase 1) that do not overlap, in a matrix (phase 0); see ``Spheres`` for the parameters."""

    parameters = ("radius", "fraction")
    phases = 2
    count: int = 20
    fraction: tuple[float, float] = (0.1, 0.3)
    gap: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", check_integer("count", self.count, 1))
        allowed = "a number or two, low ≤ high, between 0 and 1, both excluded"
        limits = check_numbers("fraction", self.fraction, allowed=allowed)
        if limits.shape not in ((), (2,)) or not 0 < limits.min() <= limits.max() == limits.flat[-1] < 1:
            raise ValueError(f"fraction = {shorten(self.fraction)}: must be {allowed}")
        object.__setattr__(self, "fraction", (float(limits.min()), float(limits.max())))
        if (gap := check_number("gap", self.gap)) < 0:
            raise ValueError(f"gap = {gap}: must be a number ≥ 0")
        object.__setattr__(self, "gap", gap)

    @property
    def aspect(self) -> float:
        """Length of an inclusion, with its round ends, over its diameter."""
        return 1.0

    def section(self, grid: Grid) -> Grid:
        """Return the part of the grid that the inclusions are packed in, and that is repeated along other axes."""
        return grid

    def radius(self, fraction: Any, grid: Grid) -> Any:
        """Return the radius of the inclusions at a volume fraction."""
        edges = self.section(grid).edges
        d = len(edges)
        volume = _ball(d) + 2 * (self.aspect - 1) * _ball(d - 1)  # volume of an inclusion of radius 1
        return (fraction * edges.prod() / (self.count * volume)) ** (1 / d)

    def check(self, grid: Grid) -> None:
        _check(self, grid)

    def design(self, u: Array, grid: Grid) -> Array:
        low, high = self.fraction
        fraction = low + (high - low) * u[:, 1]
        return np.column_stack([self.radius(fraction, grid), fraction])

    def pack(self, radius: float, grid: Grid, rng: np.random.Generator, attempts: int) -> tuple[Array, Array] | None:
        """Return the centres and the half axes of packed inclusions; see ``packing.pack``."""
        length = 2 * radius * (self.aspect - 1)
        return pack(self.count, radius * (2 + self.gap), length, self.section(grid).edges, rng, attempts)

    def make(self, grid: Grid, design: Array, rng: np.random.Generator) -> tuple[NDArray[Any]]:
        radius, fraction = design
        rods = self.pack(radius, grid, rng, ATTEMPTS)
        if rods is None:
            raise ValueError(f"fraction = {fraction:.3g}: {ATTEMPTS} attempts to pack {self} failed; lower it")
        section = self.section(grid)
        inside = cut(-measure_distance(section, *rods, radius), [1 - fraction])
        return (np.broadcast_to(inside.reshape(section.shape), grid.shape),)


@dataclass(frozen=True)
class Spheres(Inclusions, kind="spheres"):
    """Equal spheres (phase 1) that do not overlap, in a matrix (phase 0). In a cell with nz = 1 they are discs.

    The volume fraction is exact to one voxel: the spheres have the voxels whose centres are nearest to theirs. The
    radius in the voxels differs from the nominal one by a few hundredths of a voxel.

    Args:
        count: Number of spheres in a cell.
        fraction: Volume fraction, or the two limits between which it is uniform. It determines the radius.
        gap: Smallest distance between the surfaces of two spheres, in units of their radius.

    Raises:
        ValueError: A value is outside of its limits.
    """


@dataclass(frozen=True)
class Fibres(Inclusions, kind="fibres"):
    """Equal round fibres along an axis, as long as the cell. Other parameters are those of ``Spheres``.

    Args:
        axis: 'x', 'y' or 'z'.

    Raises:
        ValueError: A value is outside of its limits.
    """

    axis: str = "z"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis not in ("x", "y", "z"):
            raise ValueError(f"axis = {shorten(self.axis)}: must be x, y or z")

    def section(self, grid: Grid) -> Grid:
        nx, ny, nz = (1 if name == self.axis else n for name, n in zip("xyz", grid.shape, strict=True))
        return Grid((nx, ny, nz), grid.spacing)


@dataclass(frozen=True)
class ShortFibres(Inclusions, kind="short-fibres"):
    """Equal straight fibres with round ends in random directions. Other parameters are those of ``Spheres``.

    All directions in space are equally likely; in a cell with nz = 1, all directions in the plane.

    Args:
        aspect: Length, with the round ends, over diameter; at least 1.

    Raises:
        ValueError: A value is outside of its limits.
    """

    aspect: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (aspect := check_number("aspect", self.aspect)) < 1:
            raise ValueError(f"aspect = {aspect}: must be a number, at least 1")
        object.__setattr__(self, "aspect", aspect)


@cache  # a check may take a second, and every shard asks for it
def _check(inclusions: Inclusions, grid: Grid) -> None:
    section = inclusions.section(grid)
    smallest, largest = (inclusions.radius(f, grid) for f in inclusions.fraction)
    half_diagonal = float(np.linalg.norm([section.spacing[a] for a in section.axes])) / 2
    if smallest < half_diagonal:
        raise ValueError(
            f"fraction = {inclusions.fraction[0]:g}: {inclusions.count} inclusions in {grid} would have the radius "
            f"{smallest:.3g}, less than half the diagonal of a voxel; use more voxels or lower count"
        )
    if inclusions.pack(largest, grid, np.random.default_rng(0), TRIALS) is None:
        raise ValueError(
            f"fraction = {inclusions.fraction[1]:g}: {TRIALS} attempts to pack {inclusions.count} inclusions with a "
            f"gap of {inclusions.gap:g} into {grid} failed; lower the fraction or the gap "
            "(docs/microstructures.md lists the fractions that can be reached)"
        )


def _ball(d: int) -> float:
    """Return the volume of the unit ball in d dimensions."""
    return pi ** (d / 2) / gamma(d / 2 + 1)


def measure_distance(grid: Grid, centres: Array, halves: Array, radius: float) -> Array:
    """Return the distance of each voxel's centre from the nearest segment c ± h, in the periodic metric.

    Returns:
        An array with one entry for each voxel along the axes of the geometry. Distances are infinite where they exceed
        the radius by more than two voxels.
    """
    n, spacing = (np.array([values[a] for a in grid.axes]) for values in (grid.shape, grid.spacing))
    field = np.full(n, np.inf)
    for c, h in zip(centres, halves, strict=True):
        extent = np.abs(h) + radius + 2 * spacing
        first, last = np.ceil((c - extent) / spacing - 0.5), np.floor((c + extent) / spacing - 0.5)
        lines = [np.arange(*ends) for ends in zip(first.astype(int), last.astype(int) + 1, strict=True)]
        indices = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
        w = spacing * (indices + 0.5) - c
        t = np.clip(w @ h / max(h @ h, 1e-300), -1, 1)
        np.minimum.at(field, tuple(np.moveaxis(indices % n, -1, 0)), np.linalg.norm(w - t[..., None] * h, axis=-1))
    return field
