"""Reader of HDF5 files: any array by its path; the layouts of FANS, MSUtils and the paper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, naming

AXES = {2: "yx", 3: "zyx", 4: "nzyx", 5: "nczyx"}  # the paper's one-hot ``micros`` have 5 axes
MOST_PACKED = 10_000  # An array is at most this many times larger than its file. A damaged header may state any size.


def find_sources(path: Path) -> list[Source]:
    """Return all arrays of numbers of 2 to 5 axes. Links to other files are not followed.

    The axes are z, y, x, unless an attribute ``permute_order`` states another order. An attribute ``L`` states the
    edge lengths of the image in the order of the axes.

    Raises:
        ValueError: The file is damaged, or ``permute_order`` is no order of three axes.
    """
    with naming(path), open_file(path) as file:
        arrays = [(array, _read_order(array), _read_lengths(array)) for array in find_arrays(file, path)]
        arrays = [entry for entry in arrays if entry[0].ndim in AXES]
        if unknown := [(array.name, order) for array, order, _ in arrays if sorted(order) not in ([], [*"xyz"])]:
            raise ValueError(f"{unknown[0][0]}: permute_order = {unknown[0][1]!r}")
        sources = []
        for array, order, lengths in arrays:
            axes = order if order and array.ndim == 3 else AXES[array.ndim]
            stated = {"axes"} if order and array.ndim == 3 else set()
            spacing = (1.0, 1.0, 1.0)
            if array.ndim == 3 and lengths:
                sizes = dict(zip(axes, np.divide(lengths, array.shape).tolist(), strict=True))
                spacing = sizes["x"], sizes["y"], sizes["z"]
                stated |= {"spacing"}
            sources.append(
                Source(
                    *(path, array.name, array.shape, array.dtype, axes, make_reader(path, array.name)),
                    stated=frozenset(stated),
                    spacing=spacing,
                )
            )
    return sources


def open_file(path: Path) -> h5py.File:
    """Open a file for reading. It is not locked, which some file systems do not allow."""
    return h5py.File(path, "r", locking=False)


def find_arrays(group: h5py.Group, path: Path) -> Iterator[h5py.Dataset]:
    """Yield the arrays of numbers whose values are in the file itself."""
    found: list[h5py.Dataset] = []
    # This visits neither soft nor external links.
    group.visititems(lambda _, entry: found.append(entry) if isinstance(entry, h5py.Dataset) else None)
    most = MOST_PACKED * path.stat().st_size
    for array in found:
        if array.dtype.kind in "iubf" and array.dtype.itemsize <= 8 and 0 < array.nbytes <= most:  # noqa: SIM102
            if not array.is_virtual and not array.external:
                yield array


def make_reader(path: Path, dataset: str, last: tuple[int, ...] = ()) -> Any:
    """Return a function that reads a part of an array; ``last`` is the index along its last axes."""

    def read(part: tuple[slice, ...]) -> NDArray[Any]:
        name = f"{path}: {dataset}"
        with naming(name):
            file = open_file(path)
        with file:
            with naming(name):
                array = file[dataset]
                missing = _find_missing_filter(array)
            if missing:
                raise ValueError(f"{name}: is compressed by {missing}; to read it, pip install hdf5plugin")
            with naming(name):
                return array[(*part, *last)]

    return read


def _find_missing_filter(array: h5py.Dataset) -> str:
    """Return the name of a filter of an array that HDF5 lacks; an empty string if it has all."""
    properties = array.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                import hdf5plugin  # type: ignore[import-not-found]  # noqa: F401
        if not h5py.h5z.filter_avail(code):
            return name.decode(errors="replace") or f"filter {code}"
    return ""


def _read_order(array: h5py.Dataset) -> str:
    order = array.attrs.get("permute_order", "")
    return order.decode() if isinstance(order, bytes) else str(order)


def _read_lengths(array: h5py.Dataset) -> list[float]:
    """Return the attribute ``L``; an empty list unless it has three positive numbers."""
    lengths = np.asarray(array.attrs.get("L", ())).reshape(-1)
    if lengths.dtype.kind in "iuf" and len(lengths) == 3 and np.isfinite(lengths).all() and (lengths > 0).all():
        return lengths.tolist()
    return []
