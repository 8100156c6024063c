"""Reader of TIFF stacks and of folders of TIFF slices."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, check_memory, naming

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # A damaged file gets one line, which is the exception.


def find_sources(path: Path) -> list[Source]:
    """Return the stack of a file: its pages are layers along z, unless the file states otherwise.

    Raises:
        ValueError: The file is damaged, has colours, or has pages of different sizes.
    """
    with naming(path):
        from tifffile import TiffFile

        with TiffFile(path, _multifile=False) as tiff:  # OME files may name others, which are not opened
            several = tiff.series
            series = several[0]
            page: Any = series.keyframe
            axes, shape, dtype = series.axes, series.shape, np.dtype(series.dtype).newbyteorder(tiff.byteorder)
            offset = series.dataoffset if page.is_memmappable else None
            numbers = [p.index for p in series.pages if p is not None]
            spacing, unit = read_spacing(tiff)
            stated = {"axes"} if tiff.is_ome or (tiff.is_imagej and "Z" in axes) else set()
    if "S" in axes:
        raise ValueError(f"{path}: is a colour image; must have one value for each voxel; convert it to grey or labels")
    if len(several) > 1:
        shapes = ", ".join(str(s.shape) for s in several[:4])
        raise ValueError(f"{path}: has pages of different sizes, {shapes}; must have one size")
    if dtype.kind not in "iubf" or len(shape) not in (2, 3, 4) or min(shape) < 1:
        raise ValueError(f"{path}: has {shape} values of type {dtype}; must have one number for each voxel")
    size = math.prod(shape) * dtype.itemsize
    if offset is not None:
        if offset + size > path.stat().st_size:
            raise ValueError(
                f"{path}: is cut: {path.stat().st_size} bytes, but voxels to byte {offset + size}; copy it again"
            )
        read = np.memmap(path, dtype, "r", offset, shape).__getitem__
    else:
        if len(numbers) != (count := math.prod(shape[:-2])):
            raise ValueError(
                f"{path}: has {len(numbers)} pages; must have {count} for the shape {shape}; the file is damaged"
            )
        check_memory(path, math.prod(shape[-2:]) * dtype.itemsize)
        read = page_reader(path, numbers, shape)
    source = Source(path, "", shape, dtype, name_axes(axes), read, frozenset(stated))
    if spacing:
        source = replace(source, spacing=spacing, unit=unit, stated=source.stated | {"spacing"})
    return [source]


def find_slices(folder: Path) -> Source:
    """Return the stack of the TIFF files in a folder, in natural order: s2.tif comes before s10.tif.

    Raises:
        ValueError: There are none, or they differ in size or type.
    """
    from lspipe.images import list_files

    files = sorted(
        list_files(folder), key=lambda file: [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", file.name)]
    )
    if not files:
        raise ValueError(f"{folder}: has no file .tif or .tiff")
    slices = [find_sources(file)[0] for file in files]
    first = slices[0]
    for one in slices:
        if len(one.shape) != 2 or (one.shape, one.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{one.path}: has {one.shape} pixels of type {one.dtype}; must be a slice as {first.path.name}, of "
                f"{first.shape} pixels of type {first.dtype}"
            )

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        return np.stack([one.read(part[1:]) for one in slices[part[0]]])

    shape = (len(slices), *first.shape)
    return replace(first, path=folder, shape=shape, axes="zyx", read=read, stated=frozenset())


def name_axes(axes: str) -> str:
    """Return the axes of a stack in the letters of ``Source``: layers are z, and several stacks are n."""
    others = [axis for axis in axes if axis not in "XY"]
    layers = "Z" if "Z" in others else others[-1] if others else ""
    return "".join(axis.lower() if axis in "XY" else "z" if axis == layers else "n" for axis in axes)


def page_reader(path: Path, numbers: Sequence[int], shape: Sequence[int]) -> Callable[..., NDArray[Any]]:
    """Return a function that reads a part of a stack whose pages must be decoded, page by page."""

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        from tifffile import TiffFile

        ranges = [range(n)[cut] for n, cut in zip(shape, part, strict=True)]
        chosen = [
            numbers[int(np.ravel_multi_index(k, shape[:-2])) if k else 0] for k in itertools.product(*ranges[:-2])
        ]
        with naming(path), TiffFile(path, _multifile=False) as tiff:
            try:
                pages = [tiff.pages[k].asarray()[part[-2:]] for k in chosen]
            except (ValueError, ImportError) as error:  # tifffile looks for codecs in packages
                if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                    raise
                pages = [read_page(path, k, str(error))[part[-2:]] for k in chosen]
        return np.stack(pages).reshape([len(r) for r in ranges])

    return read


def read_page(path: Path, number: int, reason: str) -> NDArray[Any]:
    """Read a page with Pillow, which has some codecs that tifffile takes from another package."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.seek(number)
            return np.asarray(image)
    except (OSError, UnidentifiedImageError):
        raise ValueError(f"{reason}: pip install imagecodecs") from None


def read_spacing(tiff: Any) -> tuple[tuple[float, float, float] | None, str]:
    """Return the edge lengths of a voxel and their unit, where ImageJ or OME metadata state them.

    In other files, the resolution of a page is meant for a printer.
    """
    if tiff.is_ome:
        text = tiff.ome_metadata or ""
        found = [re.search(rf'PhysicalSize{axis}="([\d.eE+-]+)"', text) for axis in "XYZ"]
        unit = re.search(r'PhysicalSizeXUnit="([^"]*)"', text)
        sizes = [float(match[1]) if match else 0.0 for match in found]
        unit_name = unit[1] if unit else "µm"
    elif tiff.is_imagej:
        metadata = tiff.imagej_metadata or {}
        tags = [tiff.pages[0].tags.get(f"{axis}Resolution") for axis in "XY"]
        sizes = [tag.value[1] / tag.value[0] if tag and tag.value[0] else 0.0 for tag in tags]
        sizes.append(float(metadata.get("spacing", 0)))
        unit_name = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    else:
        return None, ""
    x, y, z = sizes[0], sizes[1], sizes[2] or sizes[0]
    if not (x > 0 and y > 0 and z > 0 and math.isfinite(x + y + z)):
        return None, ""
    return (x, y, z), unit_name
