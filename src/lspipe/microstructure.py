"""Seeded two-phase microstructures: filtered white noise, thresholded (Kelly & Kalidindi 2021, sec. 4).

Sample i of a split depends on (seed, split, i) alone, whatever range it is generated in. Its four
design parameters come from a Latin hypercube over each BLOCK of consecutive samples, so a longer
split begins with the samples of a shorter one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import check_integer, shorten

SPLITS = ("train", "valid", "test")
DESIGN = ("grain_x", "grain_y", "grain_z", "fraction")
BLOCK = 32


@dataclass(frozen=True)
class Microstructures:
    """Generated microstructures.

    Attributes:
        phase: (N, n, n, n) uint8, 0 or 1.
        seed: (N,) uint64, the seed of the noise of each sample.
        design: (N, 4), the grain sizes in voxels along x, y and z, and the volume fraction of phase 0.
    """

    phase: NDArray[np.uint8]
    seed: NDArray[np.uint64]
    design: NDArray[np.float64]


def generate(count: int, n: int, seed: int, split: str = "train", first: int = 0) -> Microstructures:
    """Generate periodic two-phase microstructures.

    Args:
        count: Number of microstructures N.
        n: Voxels along an edge.
        seed: Root of the seeds of the samples.
        split: 'train', 'valid' or 'test'; different splits have different samples.
        first: Number of the first sample in the split.

    Raises:
        ValueError: The split is unknown, or a number is not an integer ≥ 0 (``n``: ≥ 1).
    """
    count, first, seed = (
        check_integer("count", count, 0),
        check_integer("first", first, 0),
        check_integer("seed", seed, 0),
    )
    n = check_integer("n", n, 1)
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"split = {shorten(split)}: must be one of {', '.join(SPLITS)}")
    key = SPLITS.index(split)
    samples = range(first, first + count)
    blocks = {b: _hypercube(n, seed, key, b) for b in {i // BLOCK for i in samples}}
    design = np.array([blocks[i // BLOCK][i % BLOCK] for i in samples]).reshape(count, len(DESIGN))
    seeds = np.array(
        [np.random.SeedSequence([seed, key, i]).generate_state(1, np.uint64)[0] for i in samples],
        dtype=np.uint64,
    )
    phase = np.empty((count, n, n, n), dtype=np.uint8)
    for i in range(count):
        phase[i] = two_phase(n, design[i, :3].astype(int), design[i, 3], seeds[i])
    return Microstructures(phase, seeds, design)


def two_phase(n: int, grain: NDArray[np.int64], fraction: float, seed: np.uint64) -> NDArray[np.uint8]:
    """Make one cell: filtered white noise, with phase 1 where it exceeds its ``fraction``-quantile."""
    smooth = blur(np.random.default_rng(seed).random((n, n, n)), grain)
    return (smooth > np.quantile(smooth, fraction)).astype(np.uint8)


def blur(noise: NDArray[np.float64], grain: NDArray[np.int64]) -> NDArray[np.float64]:
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


def _hypercube(n: int, seed: int, key: int, block: int) -> NDArray[np.float64]:
    """Return the design parameters (BLOCK, 4) of one block."""
    from scipy.stats import qmc  # takes a second to import, which every call of the workflow would pay

    # The fourth word keeps a block's stream apart from the samples' own.
    rng = np.random.default_rng([seed, key, block, 1])
    u = qmc.LatinHypercube(len(DESIGN), rng=rng).random(BLOCK)
    return np.column_stack([np.maximum(np.ceil(n * u[:, :3]), 1), u[:, 3]])
