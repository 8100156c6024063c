"""Reader of MetaImage files: .mha, or a header .mhd beside a file of voxels."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.raw import map_voxels
from lspipe.images.source import Source, check_memory, naming

HEADER = 1 << 16  # bytes to read; a header of text is shorter
TYPES = {  # MetaIO stores a long in four bytes on any machine
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


def find_sources(path: Path) -> list[Source]:
    """Return the image. Voxels without compression are mapped into memory.

    Raises:
        ValueError: The file is damaged, or the header names a file in another folder, several files or channels.
    """
    keys, offset = read_header(path)
    with naming(path):
        grid = tuple(map(int, keys["DimSize"].split()))
        dtype = np.dtype(TYPES[keys["ElementType"]])
        if "true" in keys.get("BinaryDataByteOrderMSB", keys.get("ElementByteOrderMSB", "")).lower():
            dtype = dtype.newbyteorder(">")
        spacing = [*map(float, keys.get("ElementSpacing", keys.get("ElementSize", "")).split())]
        skip = int(keys.get("HeaderSize", 0))
        if len(grid) not in (2, 3) or min(grid) < 1:
            raise ValueError(f"DimSize = {grid}")
    if keys.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(f"{path}: has {keys['ElementNumberOfChannels']} channels; must have one value for each voxel")
    name = keys["ElementDataFile"]
    if name != "LOCAL" and (Path(name).name != name or not path.parent.joinpath(name).is_file()):
        raise ValueError(f"{path}: ElementDataFile = {name}: must be LOCAL or a file in the same folder")
    file = path if name == "LOCAL" else path.with_name(name)
    offset = offset if name == "LOCAL" else max(skip, 0)
    axes = "xyz"[: len(grid)]
    if keys.get("CompressedData", "").lower() == "true":
        check_memory(path, size := math.prod(grid) * dtype.itemsize)
        changed = file.stat().st_mtime_ns

        def read(part: tuple[slice, ...]) -> NDArray[Any]:
            return _unpack(file, offset, size, changed).view(dtype).reshape(grid[::-1])[part]

        source = Source(path, "", grid[::-1], dtype, axes[::-1], read)
    else:
        if skip == -1:
            offset = max(file.stat().st_size - math.prod(grid) * dtype.itemsize, 0)
        source = replace(map_voxels(file, grid, dtype, "F", offset, axes), path=path)
    if len(spacing) != len(grid):
        return [source]
    x, y, z = [*map(abs, spacing), spacing[0]][:3]
    return [replace(source, spacing=(x, y, z), stated=frozenset({"axes", "spacing"}))]


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the keys of a header with their values, and the number of bytes of the header."""
    with open(path, "rb") as file, naming(path):
        lines = file.read(HEADER).split(b"\n")
        keys: dict[str, str] = {}
        offset = 0
        for line in lines:
            offset += len(line) + 1
            name, _, value = line.decode("ascii").partition("=")
            keys[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":  # the last line
                return keys, offset
    raise ValueError(f"{path}: has no line ElementDataFile; the file is damaged, or is no MetaImage")


@lru_cache(maxsize=1)
def _unpack(file: Path, offset: int, size: int, _changed: int) -> NDArray[np.uint8]:
    with naming(file):
        unpack = zlib.decompressobj()
        data = unpack.decompress(file.read_bytes()[offset:], size + 1)
        if len(data) != size:
            raise ValueError(f"unpacks to {len(data)} bytes; must be {size}")
        return np.frombuffer(data, np.uint8)
