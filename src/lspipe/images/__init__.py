"""Images of microstructures: readers of the formats that people have, and the cells that are cut from the images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from lspipe.cell.arguments import check_spacing
from lspipe.images.cut import Images as Images
from lspipe.images.source import Source as Source

# Module of the reader by the ending of a file's name; a folder holds slices.
FORMATS = {
    (".npy", ".npz"): "arrays",
    (".tif", ".tiff"): "tiff",
    (".h5", ".hdf5", ".hdf"): "hdf5",
    (".dream3d",): "dream3d",
    (".vti", ".vtk"): "vtk",
    (".tesr",): "tesr",
    (".mhd", ".mha"): "metaimage",
    (".nrrd", ".nhdr"): "nrrd",
    (".nii", ".nii.gz"): "nifti",
}
SLICES = (".tif", ".tiff")
ENDINGS = [ending for endings in FORMATS for ending in endings]


def read_images(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    dataset: str = "",
    axes: str = "",
    spacing: Sequence[float] | None = None,
    raw: Mapping[str, Any] | None = None,
    **cut: Any,
) -> Images:
    """Read images of microstructures, part by part, and cut cells from them.

    Args:
        path: A file, a folder of TIFF slices, or a list of these, whose images follow each other.
        dataset: Name of the array within the file, or the last part of its path. It may be left out where the file has
            only one, or one with grains.
        axes: A letter for each axis of the array, in the order of the file: x, y, z, n (number of the image) and c
            (channel of a one-hot code). The default is the order that the file states, or the one that is
            usual in its format.
        spacing: Edge lengths of a voxel along x, y, z. By default those that the file states, or 1.
        raw: For a file without header: its ``shape`` and ``dtype``, and, if they are not the default, ``order`` and
            ``header``; see ``lspipe.images.raw.open_raw``.
        **cut: How cells are cut from the images: ``threshold``, ``crop``, ``downsample``, ``blocks``, ``mirror``; see
            ``Images``.

    Returns:
        The cells, in x, y, z order. They are read when they are used.

    Raises:
        ValueError: A file is damaged, its format is unknown, or an option does not fit.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else path
    sources = [_choose(Path(p), find_sources(Path(p), raw), dataset) for p in paths]
    if axes:
        sources = [source.with_axes(axes) for source in sources]
    if unknown := [source for source in sources if not source.axes]:
        raise ValueError(f"{unknown[0].name} of shape {unknown[0].shape}: state the axes, such as ncxyz")
    if spacing is not None:
        checked = check_spacing(spacing)
        sources = [replace(s, spacing=checked, stated=s.stated - {"spacing"}) for s in sources]
    return Images(sources, **cut)


def find_sources(path: Path, raw: Mapping[str, Any] | None = None) -> list[Source]:
    """Return the arrays of a file that could be images. Only headers are read.

    Raises:
        ValueError: The file is damaged or of an unknown format.
    """
    if not path.exists():
        raise ValueError(f"{path}: does not exist; must be a file or a folder of slices")
    if raw:
        from lspipe.images.raw import open_raw

        return [open_raw(path, **raw)]
    if path.is_dir():
        from lspipe.images.tiff import find_slices

        return [find_slices(path)]
    for endings, module in FORMATS.items():
        if path.name.lower().endswith(endings):
            return import_module(f"lspipe.images.{module}").find_sources(path)
    raise ValueError(
        f"{path}: unknown format; must be a folder of slices, or end in {', '.join(ENDINGS)}; for a file without "
        "header give --raw '{shape: [64, 64, 64], dtype: uint8}'"
    )


def _choose(path: Path, sources: Sequence[Source], dataset: str) -> Source:
    """Return the source of this name, or the only one."""
    names = ", ".join(source.dataset for source in sources)
    if dataset:
        wanted = f"/{dataset.strip('/')}"
        named = [source for source in sources if f"/{source.dataset.strip('/')}".endswith(wanted)]
        for source in named:
            if source.dataset.strip("/") == dataset.strip("/") or len(named) == 1:
                return source
        raise ValueError(f"{path}: dataset = {dataset!r}: must be one of {names or 'none: the file has one array'}")
    if not sources:
        raise ValueError(f"{path}: holds no image; an image is an array of numbers of 2 to 5 axes")
    if len(grains := [source for source in sources if source.crystals]) == 1:
        return grains[0]  # the other arrays of such a file describe the grains
    if len(sources) > 1:
        raise ValueError(f"{path}: has several arrays; choose one with --dataset or dataset: {names}")
    return sources[0]


def list_files(path: Path) -> list[Path]:
    """Return the slices of a folder, or the file itself."""
    return sorted(f for f in path.iterdir() if f.name.lower().endswith(SLICES)) if path.is_dir() else [path]


def format_options(options: dict[str, Any]) -> list[str]:
    """Return the words of a command that state these options of ``read_images``."""
    words = []
    for name, value in options.items():
        if name == "raw":
            text = json.dumps(value, sort_keys=True)
        elif name == "crop":
            text = ",".join(":".join("" if x is None else str(x) for x in pair) for pair in value)
        elif isinstance(value, list | tuple):
            text = ",".join(x if isinstance(x, str) else f"{x:g}" for x in value)
        else:
            text = str(value)
        words += [f"--{name}"] if value is True else [f"--{name}", text]
    return words
