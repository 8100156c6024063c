"""Periodic packings without overlap of equal rods with round ends: of spheres, if their length is 0.

A rod is the set of points within a radius of a segment of half length |h| about its centre c, in two or three
dimensions. Packings are made by pushing overlapping rods apart. Only sums, products and roots of numbers in a fixed
order decide, so that a packing is the same on any processor.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import Array

STEPS = 300  # More steps seldom help, while another start often does.
MARGIN = 0.01  # Pushing stops within this share above the distance asked for, so that few pairs touch exactly.
PUSH = 0.8  # Share of an overlap by which either rod of a pair moves. Half of it is too timid, more than 1 diverges.


def pack(
    count: int, distance: float, length: float, edges: Array, rng: np.random.Generator, attempts: int
) -> tuple[Array, Array] | None:
    """Pack rods of random directions at random places.

    Args:
        count: Number of rods.
        distance: Smallest distance between the segments of two rods.
        length: Length of the segments.
        edges: Edge lengths (d,) of the periodic cell.
        rng: Source of the random starts.
        attempts: Number of random starts.

    Returns:
        The centres c (count, d) and the halves h (count, d) of the segments, which end at c ± h; None if no attempt
        succeeds, a rod is too near to its own image, or it is longer than twice the shortest edge.
    """
    if max(distance, length / 2) > edges.min():
        return None
    for _ in range(attempts):
        centres = edges * rng.random((count, len(edges)))
        direction = rng.standard_normal(centres.shape)
        halves = 0.5 * length * direction / np.sqrt(_dot(direction, direction))[:, None]
        for _ in range(STEPS):
            i, gap = find_neighbours(centres, halves, distance * (1 + MARGIN), edges)
            d = np.sqrt(_dot(gap, gap))
            if d.min(initial=np.inf) >= distance:
                return centres, halves
            overlap = np.maximum(distance * (1 + MARGIN) - d, 0)
            np.add.at(centres, i, (PUSH * overlap / np.maximum(d, 1e-12 * distance))[:, None] * gap)
    return None


def find_neighbours(centres: Array, halves: Array, distance: float, edges: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the pairs of rods and periodic images of rods that may be nearer than ``distance``.

    A rod and its own images are pairs too. Every pair occurs twice, once for either rod.

    Returns:
        The number (pairs,) of the rod, and the vector (pairs, d) to it from the nearest point of the other one.
    """
    from scipy.spatial import cKDTree  # scipy.spatial takes a third of a second to import

    reach = distance + 2 * np.sqrt(_dot(halves, halves).max())
    centres = centres % edges
    shifts = np.array(list(product(*(range(-m, m + 1) for m in np.ceil(reach / edges).astype(int))))) * edges
    images = (centres + shifts[:, None]).reshape(-1, len(edges))
    owner = np.tile(np.arange(len(centres)), len(shifts))
    near = ((images > -reach) & (images < edges + reach)).all(axis=1)
    images, owner = images[near], owner[near]
    pairs = cKDTree(centres).sparse_distance_matrix(cKDTree(images), reach, output_type="ndarray")
    pairs = pairs[(owner[pairs["j"]] != pairs["i"]) | (pairs["v"] > 0)]
    i, j = pairs["i"], pairs["j"]
    return i, separate(centres[i] - images[j], halves[i], halves[owner[j]])


def separate(w: Array, p: Array, q: Array) -> Array:
    """Return the shortest vector w + s p − t q, with s and t in [−1, 1], between segments; each (pairs, d).

    Segments in a plane may cross. A short vector along w then tells where to push them.
    """
    pp, pq, qq, pw, qw = _dot(p, p), _dot(p, q), _dot(q, q), _dot(p, w), _dot(q, w)
    determinant = pp * qq - pq * pq
    s = _clipped_ratio(pq * qw - qq * pw, determinant, 1e-12 * pp * qq)  # 0, which is as good, for parallel segments
    t = _clipped_ratio(pq * s + qw, qq)
    s = _clipped_ratio(pq * t - pw, pp)
    gap = w + s[:, None] * p - t[:, None] * q
    crosses = _dot(gap, gap) < 1e-18 * _dot(w, w)
    return np.where(crosses[:, None], 1e-9 * w, gap)


def _clipped_ratio(a: Array, b: Array, least: Array | float = 0.0) -> Array:
    positive = b > least
    return np.where(positive, np.clip(a / np.where(positive, b, 1.0), -1, 1), 0.0)


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum(axis=-1)
