"""Reader of NRRD files, with or without a separate header."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, check_memory, naming


def find_sources(path: Path) -> list[Source]:
    """Return the image. It is read whole when its first part is.

    Raises:
        ImportError: The package pynrrd is missing.
        ValueError: The file is damaged, or names a file of voxels in another folder.
    """
    nrrd = _import()
    with naming(path):
        header = nrrd.read_header(str(path))
        shape = tuple(int(n) for n in header["sizes"])
        dtype = np.dtype(nrrd.reader._determine_datatype(header))
        vectors = header.get("space directions")
        spacing = header.get("spacings") if vectors is None else np.linalg.norm(np.asarray(vectors, float), axis=1)
        units = [str(unit) for unit in header.get("space units", header.get("units", []))]
    name = header.get("data file", header.get("datafile"))
    if name and Path(str(name)).name != str(name):
        raise ValueError(f"{path}: data file = {name}: must be a file in the same folder")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"{path}: has the sizes {shape}; must be 2 or 3 axes of voxels")
    check_memory(path, math.prod(shape) * dtype.itemsize)
    changed = path.stat().st_mtime_ns

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        return _read(path, shape, changed)[part]

    if spacing is None or len(spacing) != len(shape) or not np.isfinite(spacing).all() or not np.all(spacing):
        return [Source(path, "", shape, dtype, "xyz"[: len(shape)], read, frozenset({"axes"}))]
    x, y, z = [*(abs(float(h)) for h in spacing), 1.0][:3]
    unit = units[0] if units else ""
    return [Source(path, "", shape, dtype, "xyz"[: len(shape)], read, frozenset({"axes", "spacing"}), (x, y, z), unit)]


def _import() -> Any:
    try:
        import nrrd
    except ImportError:
        raise ValueError("NRRD files need the package pynrrd: pip install 'lspipe[images]'") from None
    return nrrd


@lru_cache(maxsize=1)
def _read(path: Path, shape: tuple[int, ...], _changed: int) -> NDArray[Any]:
    with naming(path):
        values, _ = _import().read(str(path))
        return values.reshape(shape)
