"""Reader of NumPy arrays: .npy, which is mapped into memory, and .npz, which is read whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, check_memory, naming

HEADER = 1 << 14  # bytes to read; the header of an array of numbers is shorter
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
AXES = {2: "xy", 3: "xyz", 4: "nxyz", 5: ""}  # The user states five.

Header = tuple[tuple[int, ...], bool, np.dtype, int]  # shape, whether in Fortran order, type, bytes before the data


def find_sources(path: Path) -> list[Source]:
    """Return the array of a .npy file, or the images of all arrays of a .npz file.

    Raises:
        ValueError: The file is damaged, does not fit into memory, or does not hold images of one size.
    """
    arrays = [_map(path)] if path.suffix == ".npy" else _unpack(path)
    if not arrays:
        raise ValueError(f"{path}: holds no image")
    if len(arrays) > 1:
        arrays = [array[None] if array.ndim == 3 else array for array in arrays]
        if other := [a.shape[1:] for a in arrays if a.shape[1:] != arrays[0].shape[1:]]:
            raise ValueError(f"{path}: images of {arrays[0].shape[1:]} and {other[0]} voxels: must be of one size")
    first, count = arrays[0], sum(map(len, arrays))
    shape = (count, *first.shape[1:]) if len(arrays) > 1 else first.shape

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        if len(arrays) == 1:
            return first[part]
        return np.concatenate(_slices(arrays, *part[0].indices(count)[:2]))[(slice(None), *part[1:])]

    return [Source(path, "", shape, np.result_type(*arrays), AXES[len(shape)], read)]


def _slices(arrays: Sequence[NDArray[Any]], first: int, last: int) -> list[NDArray[Any]]:
    """Return images first … last − 1 of the concatenated arrays, copying none."""
    parts = []
    for array in arrays:
        parts.append(array[max(first, 0) : max(last, 0)])
        first, last = first - len(array), last - len(array)
    return parts


def _map(path: Path) -> NDArray[Any]:
    with open(path, "rb") as file:
        shape, fortran, dtype, offset = _header(str(path), file, path.stat().st_size)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _unpack(path: Path) -> list[NDArray[Any]]:
    with naming(path):
        archive = ZipFile(path)
    with archive:
        headers: list[Header] = []
        for entry in archive.infolist():
            name = f"{path}: {entry.filename.removesuffix('.npy')}"
            with naming(name):
                file = archive.open(entry)
            with file:
                headers.append(_header(name, file, entry.file_size))
        # A small archive can unpack to more than the memory: check before unpacking.
        check_memory(path, sum(entry.file_size for entry in archive.infolist()))
        arrays = []
        for entry, (shape, fortran, dtype, offset) in zip(archive.infolist(), headers, strict=True):
            with naming(f"{path}: {entry.filename}"):
                arrays.append(np.ndarray(shape, dtype, archive.read(entry), offset, order="F" if fortran else "C"))
        return arrays


def _header(name: str, file: IO[bytes], length: int) -> Header:
    """Read the header of a .npy file of ``length`` bytes. Raises ValueError unless it describes images."""
    with naming(name):
        head = BytesIO(file.read(HEADER))
        shape, fortran, dtype = READERS[np.lib.format.read_magic(head)](head)
    if dtype.kind not in "iubf":
        raise ValueError(f"{name} of type {dtype}: must be numbers")
    if len(shape) not in AXES:
        raise ValueError(f"{name} of shape {shape}: must have 2 to 5 axes, such as (N, nx, ny, nz)")
    if math.prod(shape) * dtype.itemsize != length - head.tell() or min(shape) < 0:
        raise ValueError(
            f"{name} of shape {shape} and type {dtype}: has {length - head.tell()} bytes of data, which do not fit; "
            "the file is damaged, perhaps cut: copy or save it again"
        )
    if 0 in shape[-3:]:
        raise ValueError(f"{name} of shape {shape}: has no voxels")
    return shape, fortran, dtype, head.tell()
