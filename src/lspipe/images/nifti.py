"""Reader of NIfTI files, compressed or not."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, check_memory, naming


def find_sources(path: Path) -> list[Source]:
    """Return the image. A file without compression is read in parts.

    Raises:
        ValueError: The package nibabel is missing, or the file is damaged.
    """
    try:
        import nibabel
    except ImportError:
        raise ValueError("NIfTI files need the package nibabel: pip install 'lspipe[images]'") from None
    with naming(path):
        image: Any = nibabel.load(path)
        header, shape = image.header, tuple(int(n) for n in image.shape)
        scaled = {*header.get_slope_inter()} - {None, 1.0, 0.0}
        dtype = np.dtype(float) if scaled else np.dtype(image.get_data_dtype())
        zooms = [abs(float(h)) for h in header.get_zooms()]
        unit = header.get_xyzt_units()[0]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or min(shape) < 1 or dtype.kind not in "iubf":
        raise ValueError(f"{path}: has {shape} values of type {dtype}; must have one number for each voxel")
    if path.name.endswith(".gz"):
        check_memory(path, float(np.prod(shape)) * dtype.itemsize)

    changed = path.stat().st_mtime_ns

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        if path.name.endswith(".gz"):
            return _unpack(path, changed).reshape(shape)[part]
        with naming(path):
            rest = (0,) * (len(image.shape) - len(part))
            return np.asarray(image.dataobj[(*part, *rest)])

    x, y, z = [*zooms[: len(shape)], 1.0][:3]
    stated = frozenset({"axes", "spacing"})
    unit = "" if unit == "unknown" else unit
    return [Source(path, "", shape, dtype, "xyz"[: len(shape)], read, stated, (x, y, z), unit)]


@lru_cache(maxsize=1)
def _unpack(path: Path, _changed: int) -> NDArray[Any]:
    """Read a compressed file whole, because each part of it would be unpacked from the beginning."""
    import nibabel

    with naming(path):
        image: Any = nibabel.load(path)
        return np.asarray(image.dataobj)
