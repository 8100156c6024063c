"""A pass over all voxels of images, slab by slab, and the histogram of grey values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.cut import Images
from lspipe.images.labels import count_values, is_jump

SLAB = 2**25  # voxels that are read at once
LIKELY = 32  # Largest number of phases. More different values are taken for grey values.
BINS = 250  # bins of the histogram from which Otsu's threshold is found
MOST_GRAINS = 65535


@dataclass
class Scan:
    """The results of a pass over all voxels.

    Attributes:
        counts: Number of voxels of each integer; empty where there are more than 32, which are not phases.
        lowest: The smallest value.
        highest: The largest value.
        changes: For each axis, the sum over the cells of the fractions of voxels that change from a layer to the next;
            the first number is that across the faces.
        jumps: For each axis, the number of cells that change much more across the faces.
        cells: Number of cells that differ from each other.
    """

    counts: dict[int, int] = field(default_factory=dict)
    lowest: float = math.inf
    highest: float = -math.inf
    changes: list[NDArray[np.float64]] = field(default_factory=list)
    jumps: list[int] = field(default_factory=lambda: [0, 0, 0])
    cells: int = 0


def read_slabs(images: Images, is_grey: bool) -> Iterator[list[NDArray[Any]] | Iterator[NDArray[Any]]]:
    """Yield each cell in parts along the slowest axis of the file: a block as a whole, an image in slabs."""
    if images.is_cut and not is_grey:
        for cell in images:
            yield [cell]
        return
    slow = images.order[0]
    layers = images.grid[slow]
    thickness = max(1, SLAB * layers // math.prod(images.grid))
    for number in range(sum(source.count for source in images.sources)):
        starts = range(0, layers, thickness)
        yield (images.read_layers(number, slow, i, min(i + thickness, layers), is_grey=is_grey) for i in starts)


def scan_voxels(images: Images, is_grey: bool) -> Scan:
    """Look at every voxel once, slab by slab."""
    scan = Scan()
    shape, slow = images.shape if images.is_cut else images.grid, images.order[0]
    scan.changes = [np.zeros(n) for n in shape]
    most = LIKELY if images.crystals is None else MOST_GRAINS
    many, seen = is_grey, set()
    for slabs in read_slabs(images, is_grey):
        changes, content, last = [np.zeros(n) for n in shape], hashlib.sha256(), 0
        first_layer = last_layer = None
        for slab in slabs:
            finite = slab[np.isfinite(slab)] if slab.dtype.kind == "f" else slab
            if finite.size:
                scan.lowest, scan.highest = min(scan.lowest, finite.min()), max(scan.highest, finite.max())
            if many:
                continue
            content.update(np.ascontiguousarray(slab).tobytes())
            for value, voxels in count_values(slab, most + 1).items():
                scan.counts[value] = scan.counts.get(value, 0) + voxels
            many = len(scan.counts) > most
            others = [(0, 1, 2)[:a] + (0, 1, 2)[a + 1 :] for a in range(3)]
            for axis in {0, 1, 2} - {slow}:
                changes[axis] += (slab != np.roll(slab, 1, axis)).sum(axis=others[axis])
            layers = np.moveaxis(slab, slow, 0)
            inside = slice(last + 1, last + len(layers))
            changes[slow][inside] += (layers[1:] != layers[:-1]).sum(axis=(1, 2))
            if last_layer is None:
                first_layer = layers[0]
            else:
                changes[slow][last] += (layers[0] != last_layer).sum()
            last, last_layer = last + len(layers), layers[-1]
        if many:
            continue
        changes[slow][0] += np.sum(first_layer != last_layer)
        fractions = [c * len(c) / math.prod(shape) for c in changes]
        scan.changes = [a + b for a, b in zip(scan.changes, fractions, strict=True)]
        scan.jumps = [n + is_jump(f) for n, f in zip(scan.jumps, fractions, strict=True)]
        seen.add(content.digest())
    scan.cells = len(seen)
    if many:
        scan.counts = {}
    return scan


def count_grey_values(images: Images, lowest: float, highest: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of voxels in each bin of the grey values, and the edges of the bins."""
    edges = np.linspace(lowest, highest, BINS + 1)
    histogram = np.zeros(BINS, int)
    for slabs in read_slabs(images, True):
        for slab in slabs:
            histogram += np.histogram(slab, edges)[0]
    return histogram, edges


def find_otsu(histogram: NDArray[np.integer], edges: NDArray[np.floating]) -> float:
    """Return the edge of the histogram that separates two classes with the largest variance between them."""
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(histogram)[:-1], np.cumsum(histogram * centres)[:-1]
    above, rest = histogram.sum() - below, (histogram * centres).sum() - moment
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = below * above * (moment / below - rest / above) ** 2.0
    return float(edges[1 + np.nanargmax(variance)])
