"""Cells that are cut from images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.numbers import check_integer, shorten
from lspipe.images.source import Crystals, Source, check_memory


class Images(Sequence[NDArray[Any]]):
    """A sequence of cells of integers, (nx, ny, nz), which are read from files when they are used.

    The steps are taken in this order: crop, downsample, threshold, cut into blocks, mirror.

    Args:
        sources: Arrays in files, whose images follow each other.
        crop: First voxel and end (exclusive) along x, y, z; None stands for a face of the image. Empty: no crop.
        downsample: Number of voxels along each axis that become one: its grey value is their mean, its label the most
            frequent one.
        threshold: Ascending grey values. Values below the first become phase 0, values from the first on phase 1, and
            so on. Without thresholds, the values are labels.
        blocks: Number of voxels along x, y, z, or one number for all, of the blocks into which each image is cut. The
            blocks do not overlap. Voxels that are left over at the far faces are dropped.
        mirror: Whether cells are mirrored along each axis, which makes any image periodic.

    Attributes:
        shape: Number of voxels of a cell along x, y, z.
        spacing: Edge lengths of a voxel of a cell along x, y, z.
        grid: Number of voxels of an image along x, y, z, after crop and downsampling.
        layout: Number of blocks of an image along x, y, z; 1, 1, 1 without blocks.

    Raises:
        ValueError: An option does not fit the images, or the images do not fit each other.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        crop: Sequence[Sequence[int | None]] = (),
        downsample: int = 1,
        threshold: Sequence[float] = (),
        blocks: int | Sequence[int] | None = None,
        mirror: bool = False,
    ) -> None:
        first = sources[0]
        for source in sources[1:]:
            if (source.grid, source.spacing) != (first.grid, first.spacing):
                raise ValueError(
                    f"{source.name}: has {source.grid} voxels with spacing {source.spacing}; must be as {first.name}, "
                    f"{first.grid} voxels with spacing {first.spacing}"
                )
        for source in sources:
            if source.dtype.kind == "f" and not len(threshold) and "c" not in source.axes:
                raise ValueError(
                    f"{source.name}: values are {source.dtype.name}: must be integer labels; or give a threshold, "
                    "which lspipe inspect proposes"
                )
            if source.crystals and (mirror or len(sources) > 1 or len(threshold)):
                wrong = "mirrored" if mirror else "segmented by a threshold" if len(threshold) else "joined with others"
                raise ValueError(f"{source.name}: holds grains, which cannot be {wrong}; leave this option out")
        self.sources = sources
        self.threshold = np.asarray(threshold, float)
        if not np.isfinite(self.threshold).all() or (np.diff(self.threshold) <= 0).any():
            raise ValueError(f"threshold = {shorten(threshold)}: must be ascending numbers")
        self.mirror = mirror
        d = check_integer("downsample", downsample, 1)
        self.region = _check_crop(crop or [(None, None)] * 3, first.grid)
        self.factors = [d if n > 1 else 1 for n in first.grid]
        self.grid = grid = [len(r) // f for r, f in zip(self.region, self.factors, strict=True)]
        if 0 in grid:
            raise ValueError(f"downsample = {d}: must be at most the number of voxels, {min(map(len, self.region))}")
        self.block = grid if blocks is None else _check_blocks(blocks, grid)
        self.is_cut = blocks is not None
        self.layout = [n // b for n, b in zip(grid, self.block, strict=True)]
        self.shape = tuple(b * (2 if mirror and b > 1 else 1) for b in self.block)
        self.spacing = tuple(h * f for h, f in zip(first.spacing, self.factors, strict=True))
        # Blocks follow each other as their voxels do in the file, so that it is read in one run.
        axes = [axis for axis in first.axes if axis in "xyz"]
        self.order = ["xyz".index(axis) for axis in [*axes, *({*"xyz"} - {*axes})]]
        self._read_layer = lru_cache(maxsize=1)(self._read_layer_once)

    @property
    def crystals(self) -> Crystals | None:
        """The grains that the integers name; None for phases."""
        return self.sources[0].crystals

    def __len__(self) -> int:
        return sum(source.count for source in self.sources) * math.prod(self.layout)

    def __getitem__(self, k: Any) -> Any:
        """Return cell ``k``, (nx, ny, nz); a list of cells for a slice."""
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        if not -len(self) <= k < len(self):
            raise IndexError(f"cell {k}: there are {len(self)}")
        number, place = self.locate(k % len(self))
        slow = self.order[0]
        corner = [p * b for p, b in zip(place, self.block, strict=True)]
        corner[slow] = 0
        layer = self._read_layer(number, place[slow])
        cell = layer[tuple(slice(c, c + b) for c, b in zip(corner, self.block, strict=True))]
        for axis in range(3) if self.mirror else ():
            if cell.shape[axis] > 1:
                cell = np.concatenate([cell, np.flip(cell, axis)], axis)
        return cell

    def find_source(self, number: int) -> tuple[Source, int]:
        """Return the source of an image, and the number of the image there."""
        for source in self.sources:
            if number < source.count:
                return source, number
            number -= source.count
        raise IndexError(f"image {number}: there is none")

    def locate(self, k: int) -> tuple[int, tuple[int, ...]]:
        """Return the number of the image that cell ``k`` is cut from, and the place of its block along x, y, z."""
        number, block = divmod(k, math.prod(self.layout))
        places = np.unravel_index(block, [self.layout[axis] for axis in self.order])
        return number, tuple(int(places[self.order.index(axis)]) for axis in range(3))

    def find_near(self, numbers: Iterable[int]) -> set[int]:
        """Return the numbers of these cells and of all blocks that share a face, edge or corner with one of them."""
        near = set()
        shape = [self.layout[axis] for axis in self.order]
        for k in numbers:
            number, place = self.locate(k)
            around = [range(max(p - 1, 0), min(p + 2, n)) for p, n in zip(place, self.layout, strict=True)]
            for other in product(*around):
                block = int(np.ravel_multi_index([other[axis] for axis in self.order], shape))
                near.add(number * math.prod(self.layout) + block)
        return near

    def _read_layer_once(self, number: int, place: int) -> NDArray[Any]:
        """Read the blocks of an image that have one ``place`` along the slowest axis of the file."""
        slow = self.order[0]
        return self.read_layers(number, slow, place * self.block[slow], (place + 1) * self.block[slow])

    def read_layers(self, number: int, axis: int, first: int, end: int, *, is_grey: bool = False) -> NDArray[Any]:
        """Read layers ``first`` … ``end`` − 1 of an image along an axis, before it is cut into blocks.

        Args:
            number: Number of the image.
            axis: 0 for x, 1 for y, 2 for z.
            first: First layer, after crop and downsampling.
            end: The one after the last layer.
            is_grey: Whether to return the grey values instead of the phases that the thresholds make of them.
        """
        source, number = self.find_source(number)
        lines = list(self.region)
        lines[axis] = lines[axis][first * self.factors[axis] : end * self.factors[axis]]
        check_memory(
            source.name, math.prod(map(len, lines)) * source.dtype.itemsize * (8 if len(self.threshold) else 1)
        )
        values = source.read_image(number, tuple(slice(line.start, line.stop) for line in lines))  # type: ignore[arg-type]
        if max(self.factors) > 1:
            values = downsample(values, self.factors, bool(len(self.threshold)))
        if is_grey or not len(self.threshold):
            return values
        return np.searchsorted(self.threshold, values, side="right").astype(np.uint8)


def downsample(values: NDArray[Any], factors: Sequence[int], is_grey: bool) -> NDArray[Any]:
    """Join voxels (nx, ny, nz) by ``factors`` along the axes: to their mean, or to the most frequent label."""
    nx, ny, nz = (n // f for n, f in zip(values.shape, factors, strict=True))
    a, b, c = factors
    groups = values[: nx * a, : ny * b, : nz * c].reshape(nx, a, ny, b, nz, c).transpose(0, 2, 4, 1, 3, 5)
    groups = groups.reshape(nx, ny, nz, a * b * c)
    if is_grey:
        return groups.mean(axis=-1)
    label, most = groups[..., 0].copy(), np.zeros((nx, ny, nz), int)
    for k in range(groups.shape[-1]):
        count = (groups == groups[..., k : k + 1]).sum(axis=-1)
        label, most = np.where(count > most, groups[..., k], label), np.maximum(count, most)
    return label


def _check_crop(crop: Sequence[Sequence[int | None]], grid: Sequence[int]) -> list[range]:
    """Return the voxels that a crop leaves along each axis."""
    if len(crop) == 3 and all(len(pair) == 2 for pair in crop):
        region = [range(n)[slice(*pair)] for pair, n in zip(crop, grid, strict=True)]
        if all(region) and all((end or 0) <= n for (_, end), n in zip(crop, grid, strict=True)):
            return region
    raise ValueError(
        f"crop = {shorten(crop)}: must be the first voxel and the end along x, y, z; the image has "
        f"{' × '.join(map(str, grid))} voxels"
    )


def _check_blocks(blocks: int | Sequence[int], grid: Sequence[int]) -> list[int]:
    """Return the number of voxels of a block along x, y, z; 1 along an axis of one voxel."""
    numbers = [blocks if n > 1 else 1 for n in grid] if isinstance(blocks, int) else [*blocks]
    if len(numbers) != 3 or not all(1 <= b <= n for b, n in zip(numbers, grid, strict=True)):
        raise ValueError(f"blocks = {shorten(blocks)}: must be 1 or 3 numbers of voxels, at most {tuple(grid)}")
    return numbers
