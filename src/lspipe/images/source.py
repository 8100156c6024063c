"""An array of voxels in a file, which is read part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, slice, slice]  # a part of an image along x, y and z


@dataclass(frozen=True)
class Crystals:
    """The grains of a polycrystal, as a file describes them.

    Args:
        material: Number of the material of each label of the image, (labels,); -1 for a label that is no grain.
        orientation: Unit quaternions w, x, y, z of each label, crystal to sample, (labels, 4).
        names: Name of each material in the file, such as ``"Cubic_High Copper"``.
    """

    material: NDArray[np.int64]
    orientation: NDArray[np.float64]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """An array of voxels in a file.

    Args:
        path: The file, or the folder of slices.
        dataset: Name of the array within the file; empty where the file has only one.
        shape: Shape of the array in the file.
        dtype: Its type.
        axes: A letter for each axis of the array: x, y, z; n for the number of an image; c for a channel of a one-hot
            code, in which channel p is 1 in the voxels of phase p. An axis that is missing has one voxel. Empty where
            the user must state it.
        read: Function that returns the part of the array that lies within a slice along each axis.
        stated: The properties that the file itself states, a subset of {"axes", "spacing"}. The rest follows a
            convention.
        spacing: Edge lengths of a voxel along x, y, z.
        unit: Unit of length, if the file states it.
        crystals: The grains that the integers name; None for phases.
    """

    path: Path
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: str
    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    stated: frozenset[str] = frozenset()
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = ""
    crystals: Crystals | None = None

    @property
    def name(self) -> str:
        """The file and, if it has several, the array: the beginning of a message."""
        return f"{self.path}: {self.dataset}" if self.dataset else str(self.path)

    @property
    def count(self) -> int:
        """Number of images."""
        return self._sizes.get("n", 1)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of voxels of an image along x, y, z."""
        nx, ny, nz = (self._sizes.get(axis, 1) for axis in "xyz")
        return nx, ny, nz

    @property
    def _sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.shape, strict=True))

    def with_axes(self, axes: str) -> Self:
        """Return the source with other names of its axes.

        Raises:
            ValueError: The names are not one of x, y, z, n, c for each axis, each at most once.
        """
        if len(axes) != len(self.shape) or len({*axes}) < len(axes) or not {*axes} <= {*"xyznc"}:
            raise ValueError(
                f"{self.name}: axes = {axes!r}: must be {len(self.shape)} different letters of x, y, z, n (images) and "
                f"c (one-hot channels), one for each axis of the shape {self.shape}"
            )
        return replace(self, axes=axes, stated=self.stated - {"axes"})

    def read_image(self, number: int, region: Region) -> NDArray[Any]:
        """Read a region of an image.

        Returns:
            Its values (x, y, z); the number of the largest channel where there are channels.
        """
        parts = {"n": slice(number, number + 1), "c": slice(None), **dict(zip("xyz", region, strict=True))}
        values = self.read(tuple(parts[axis] for axis in self.axes))
        missing = [axis for axis in "ncxyz" if axis not in self.axes]
        axes = [*self.axes, *missing]
        values = values.reshape(*values.shape, *[1] * len(missing)).transpose([*map(axes.index, "ncxyz")])[0]
        if "c" not in self.axes:
            return values[0]
        if len(values) > 255 or ((values != 0).sum(axis=0) != 1).any():
            raise ValueError(f"{self.name}: axis c of axes = {self.axes}: is no one-hot code of at most 255 channels")
        return values.argmax(axis=0).astype(np.uint8)


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Turn any error in parsing a file into a ValueError that names it. Damaged files raise errors of every type."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{name}: is no image, or is damaged ({reason:.200}); save it again") from None


def check_memory(name: object, size: float) -> None:
    """Raise ValueError for an array of ``size`` bytes that takes more than half of the memory."""
    from distributed.system import MEMORY_LIMIT  # takes a second to import; only files that are read whole need it

    if size > (limit := (MEMORY_LIMIT or math.inf) / 2):
        raise ValueError(
            f"{name}: unpacks to {size / 1e9:.3g} GB: must take at most {limit / 1e9:.3g} GB, half of the memory; save "
            "it without compression, or as .npy, which is read in parts"
        )
