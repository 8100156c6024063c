"""Reader of voxels without a header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lspipe.images.source import Source

AXES = {2: "xy", 3: "xyz", 4: "nxyz"}


def open_raw(path: Path, shape: Sequence[int], dtype: str, order: str = "F", header: int = 0) -> Source:
    """Map a file of voxels into memory.

    Args:
        path: The file.
        shape: Number of voxels along x, y, z; with the number of images before them for several images.
        dtype: Type of a voxel in NumPy's notation, such as ``uint8``, or ``>u2`` for the big-endian order of bytes.
        order: ``F`` if x is fastest in the file, ``C`` if the last axis is.
        header: Number of bytes before the voxels.

    Raises:
        ValueError: A value is not allowed, or the file has another size.
    """
    if order not in ("F", "C"):
        raise ValueError(f"order = {order!r}: must be F (x is fastest) or C (the last axis is)")
    try:
        sizes, kind = tuple(int(n) for n in shape), np.dtype(dtype)
        if len(sizes) not in AXES or min(sizes) < 1 or int(header) < 0 or kind.kind not in "iubf":
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"raw = {{shape: {shape}, dtype: {dtype}, header: {header}}}: must be 2 to 4 positive integers, a type of "
            "numbers such as uint8 or >u2, and a number of bytes"
        ) from None
    return map_voxels(path, sizes, kind, order, int(header), AXES[len(sizes)])


def map_voxels(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, order: str, header: int, axes: str, *, is_end: bool = True
) -> Source:
    """Return the array that begins at byte ``header`` of a file and, with ``is_end``, fills the file."""
    expected, size = math.prod(shape) * dtype.itemsize, path.stat().st_size - header
    if size != expected if is_end else size < expected:
        raise ValueError(
            f"{path}: has {size} bytes after the header of {header}; must have {expected} for {shape} voxels of {dtype}"
        )
    if order == "F" and axes[0] == "n":  # images follow each other; x is fastest within each
        voxels = np.memmap(path, dtype, "r", header, (shape[0], *shape[:0:-1]))
        return Source(path, "", voxels.shape, dtype, "n" + axes[:0:-1], voxels.__getitem__)
    if order == "F":
        voxels = np.memmap(path, dtype, "r", header, shape[::-1])
        return Source(path, "", voxels.shape, dtype, axes[::-1], voxels.__getitem__)
    return Source(path, "", shape, dtype, axes, np.memmap(path, dtype, "r", header, shape).__getitem__)
