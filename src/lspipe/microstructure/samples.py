"""Samples of a split: their seeds, their design and their cells.

Sample i of a split depends on (seed, split, i) alone, whatever range it is generated in. Its design parameters come
from a Latin hypercube over each BLOCK of consecutive samples, so a longer split begins with the samples of a shorter
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.arguments import check_spacing
from lspipe.cell.numbers import Array, check_integer, shorten
from lspipe.microstructure.gaussian import Gaussian
from lspipe.microstructure.generator import Generator, Grid

SPLITS = ("train", "valid", "test")
BLOCK = 32
PAPER = Gaussian()


@dataclass(frozen=True)
class Microstructures:
    """Generated microstructures of N samples.

    Attributes:
        phase: (N, nx, ny, nz), the number of the material of each voxel, uint8; of the grain in polycrystals, uint16.
        seed: (N,) uint64, the seed of the random numbers of each sample.
        design: (N, parameters) float64, the parameters that the generator names.
        material: (N, grains) uint16, the number of the material of each grain; None for other cells.
        orientation: (N, grains, 4) float64, the orientation of each grain as a unit quaternion w, x, y, z that
            rotates crystal axes to sample axes; None for other cells.
    """

    phase: NDArray[Any]
    seed: NDArray[np.uint64]
    design: Array
    material: NDArray[np.uint16] | None = None
    orientation: Array | None = None


def generate(
    count: int,
    n: int | Sequence[int],
    seed: int,
    split: str = "train",
    first: int = 0,
    *,
    generator: Generator = PAPER,
    spacing: Sequence[float] = (1, 1, 1),
) -> Microstructures:
    """Generate periodic microstructures, by default the two-phase cells of Kelly & Kalidindi (2021).

    Args:
        count: Number of microstructures N.
        n: Voxels along an edge, or along x, y and z. With one voxel along an axis, the cell is two-dimensional.
        seed: Root of the seeds of the samples.
        split: 'train', 'valid' or 'test'; different splits have different samples.
        first: Number of the first sample in the split.
        generator: ``Gaussian``, ``Polycrystal``, ``Spheres``, ``Fibres`` or ``ShortFibres``, with their parameters.
        spacing: Edge lengths of a voxel along x, y, z.

    Raises:
        ValueError: The split is unknown, a number is not an integer ≥ 0 (``n``: ≥ 1), or the generator cannot make
            such cells.
    """
    count, first, seed = (
        check_integer("count", count, 0),
        check_integer("first", first, 0),
        check_integer("seed", seed, 0),
    )
    grid = Grid(_check_shape(n), check_spacing(spacing))
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"split = {shorten(split)}: must be one of {', '.join(SPLITS)}")
    generator.check(grid)
    key = SPLITS.index(split)
    samples = range(first, first + count)
    blocks = {b: _hypercube(generator, grid, seed, key, b) for b in {i // BLOCK for i in samples}}
    design = np.array([blocks[i // BLOCK][i % BLOCK] for i in samples]).reshape(count, len(generator.parameters))
    seeds = np.array(
        [np.random.SeedSequence([seed, key, i]).generate_state(1, np.uint64)[0] for i in samples],
        dtype=np.uint64,
    )
    arrays: list[NDArray[Any]] = [np.empty((count, *grid.shape), np.uint16 if generator.grains else np.uint8)]
    if generator.grains:
        arrays += [np.empty((count, generator.grains), np.uint16), np.empty((count, generator.grains, 4))]
    for i in range(count):
        cell = generator.make(grid, design[i], np.random.default_rng(seeds[i]))
        for array, values in zip(arrays, cell, strict=True):
            array[i] = values
    phase, *grains = arrays
    return Microstructures(phase, seeds, design, *grains)


def _check_shape(n: int | Sequence[int]) -> tuple[int, int, int]:
    if np.ndim(n) == 0:
        return (check_integer("n", n, 1),) * 3
    if np.shape(n) != (3,):
        raise ValueError(f"n = {shorten(n)}: must be an integer or three, along x, y and z")
    nx, ny, nz = (check_integer("n", edge, 1) for edge in n)  # type: ignore[union-attr]
    return nx, ny, nz


def _hypercube(generator: Generator, grid: Grid, seed: int, key: int, block: int) -> Array:
    """Return the design parameters (BLOCK, parameters) of one block."""
    count = len(generator.parameters)
    if not count:
        return np.empty((BLOCK, 0))
    from scipy.stats import qmc  # takes a second to import, which every call of the workflow would pay

    # The fourth word keeps a block's stream apart from the samples' own.
    rng = np.random.default_rng([seed, key, block, 1])
    return generator.design(qmc.LatinHypercube(count, rng=rng).random(BLOCK), grid)
