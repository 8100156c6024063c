"""Reader of published strain fields, which stand in for the solver's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lspipe.images import Images, find_sources
from lspipe.images.source import Source, naming

ABAQUS = ("xx", "yy", "zz", "xy", "xz", "yz")  # 11, 22, 33, 12, 13, 23, with engineering shear
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def read_strain(files: Sequence[Path], images: Images, numbers: Sequence[int]) -> NDArray[np.float32]:
    """Read the strain of some images.

    A file has the strain of the images of one file, in the same order and with the same order of the axes. It is an
    array of xx alone, (N, …), of all components before the voxels, (N, 6, …), or after them, (N, voxels, 6). The
    components are in Abaqus's order with engineering shear. In a .h5 file, the array is called ``strain``.

    Args:
        files: A file for each file of the images.
        images: Whole images, not cut into blocks.
        numbers: Numbers of the images.

    Returns:
        The strain (N, 6, nx, ny, nz), xx, yy, zz, yz, xz, xy with tensor shear. Components that a file lacks are NaN.

    Raises:
        ValueError: The files do not belong to the images, or are damaged.
    """
    if len(files) != len(images.sources):
        raise ValueError(f"truth: has {len(files)} files; must have one for each file of the images")
    if images.shape != images.sources[0].grid:
        raise ValueError("truth: needs whole images; leave out crop, downsample, blocks and mirror")
    strain = np.full((len(numbers), 6, *images.shape), np.nan, np.float32)
    for field, k in zip(strain, numbers, strict=True):
        cells, number = images.find_source(k)
        components = read_components(
            open_strain(files[[s is cells for s in images.sources].index(True)]), cells, number
        )
        field[: len(components)] = from_abaqus(components)
    return strain


def open_strain(file: Path) -> Source:
    """Return the array of strains in a file."""
    sources = find_sources(file)
    for source in sources:
        if len(sources) == 1 or source.dataset.strip("/").rpartition("/")[2] == "strain":
            return source
    raise ValueError(f"{file}: has no array strain; it has {', '.join(source.dataset for source in sources) or 'none'}")


def read_components(source: Source, cells: Source, number: int) -> NDArray[np.floating]:
    """Return the strain of an image as it is in the file, (components, nx, ny, nz)."""
    axes = [axis for axis in cells.axes if axis in "xyz"]
    grid = dict(zip("xyz", cells.grid, strict=True))
    lengths = [grid[axis] for axis in axes]
    voxels = math.prod(lengths)
    per_image, rest = divmod(math.prod(source.shape), cells.count)
    if rest or source.shape[0] != cells.count or per_image not in (voxels, 6 * voxels):
        raise ValueError(
            f"{source.name} of shape {source.shape}: must be the strain of {cells.count} images of {voxels} voxels, "
            "with 1 or 6 components"
        )
    with naming(source.name):
        values = source.read((slice(number, number + 1), *[slice(None)] * (len(source.shape) - 1)))
    last = source.shape[-1] == 6 != source.shape[1]
    parts = values.reshape(voxels, -1).T if last else values.reshape(per_image // voxels, voxels)
    field = parts.reshape(-1, *lengths).transpose(0, *(1 + axes.index(axis) for axis in "xyz" if axis in axes))
    return field.reshape(-1, *cells.grid)


def from_abaqus(strain: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return components (6, nx, ny, nz) of Abaqus in Voigt's order with tensor shear; xx alone stays."""
    if len(strain) == 1:
        return strain
    return np.stack([strain[ABAQUS.index(name)] * (1 if name[0] == name[1] else 0.5) for name in VOIGT])
