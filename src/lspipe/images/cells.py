"""Microstructures made of images: phases instead of labels, and the crystals of grains."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lspipe.images.cut import Images
from lspipe.images.labels import renumber


@dataclass(frozen=True)
class Cell:
    """One microstructure.

    Attributes:
        phase: Number of the phase, uint8, or of the grain, uint16, of each voxel, (nx, ny, nz).
        material: Number of the material of each grain, (grains,) uint16; None for phases.
        orientation: Unit quaternions w, x, y, z of each grain, crystal to sample, (grains, 4); None for phases.
    """

    phase: NDArray[np.unsignedinteger]
    material: NDArray[np.uint16] | None = None
    orientation: NDArray[np.float64] | None = None

    @property
    def digest(self) -> str:
        """The first 16 digits of the SHA-256 of the arrays."""
        content = hashlib.sha256()
        for array in (self.phase, self.material, self.orientation):
            if array is not None:
                content.update(array.tobytes())
        return content.hexdigest()[:16]


def make_cell(images: Images, k: int, labels: Sequence[int] = ()) -> Cell:
    """Return the microstructure of cell ``k``.

    Args:
        images: The images.
        k: Number of the cell.
        labels: The integers of phases 0, 1, …; not used for grains.

    Raises:
        ValueError: A voxel has a label that is no grain of the file, or there are more than 65,535 grains.
    """
    if (crystals := images.crystals) is None:
        return Cell(renumber(images[k], labels))
    integers, phase = np.unique(images[k], return_inverse=True)
    known = (integers >= 0) & (integers < len(crystals.material))
    known[known] = crystals.material[integers[known]] >= 0
    if not known.all():
        label = int(integers[~known][0])
        raise ValueError(
            f"{images.sources[0].name}: {np.count_nonzero(images[k] == label)} voxels of cell {k} have the label "
            f"{label}, which is no grain; assign each voxel to a grain, or crop"
        )
    if len(integers) > 65535:
        raise ValueError(f"{images.sources[0].name}: cell {k} has {len(integers)} grains; must have at most 65535")
    material, orientation = crystals.material[integers], crystals.orientation[integers]
    return Cell(phase.reshape(images.shape).astype(np.uint16), material.astype(np.uint16), orientation)


def stack(cells: Sequence[Cell], grains: int) -> dict[str, NDArray]:
    """Return the arrays of several cells. Lists of grains are filled up to ``grains`` by grains without voxels."""
    arrays = {"phase": np.stack([cell.phase for cell in cells])}
    if grains:
        arrays["material"] = np.zeros((len(cells), grains), np.uint16)
        arrays["orientation"] = np.tile([1.0, 0.0, 0.0, 0.0], (len(cells), grains, 1))
        for i, cell in enumerate(cells):
            assert cell.material is not None
            arrays["material"][i, : len(cell.material)] = cell.material
            arrays["orientation"][i, : len(cell.material)] = cell.orientation
    return arrays


def make_cells(
    images: Images, numbers: Iterable[int], labels: Sequence[int] = (), others: Iterable[str] = ()
) -> Iterator[tuple[int, Cell]]:
    """Yield the numbers and microstructures of cells.

    Blocks of one image may repeat each other where it is uniform. Only the first of equal ones is yielded, and none
    whose digest is among ``others``.
    """
    seen = set(others)
    for k in numbers:
        cell = make_cell(images, k, labels)
        if not images.is_cut or cell.digest not in seen:
            seen.add(cell.digest)
            yield k, cell
