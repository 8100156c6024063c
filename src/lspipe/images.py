"""A user's own microstructures: images of integers of any kind, from a .npy or .npz file."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

LEAST = 8  # voxels along an edge that the networks need
JUMP = 2.0  # times the mean change from a layer to the next


class NotPeriodic(UserWarning):
    """Some images jump across opposite faces."""


def read(path: Path) -> Sequence[NDArray[np.integer]]:
    """The images (nx, ny, nz) in the order of the file: of .npy an array (N, nx, ny, nz) or a single image, of .npz any
    number of such arrays. ValueError for what is not integers, or not of one size of 8³ voxels at least."""
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: must end in .npy or .npz")
    try:
        loaded = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: is no {path.suffix} file of integers ({error})") from None
    arrays = {str(path): loaded} if path.suffix == ".npy" else {f"{path}: {name}": loaded[name] for name in loaded}
    images: list[NDArray[np.integer]] = []
    for name, array in arrays.items():
        if array.dtype.kind not in "iub":
            raise ValueError(f"{name} of type {array.dtype}: must be integers, which name the phases")
        if array.ndim not in (3, 4):
            raise ValueError(f"{name} of shape {array.shape}: must be (N, nx, ny, nz), or (nx, ny, nz) of one image")
        images += list(array) if array.ndim == 4 else [array]
    if not images:
        raise ValueError(f"{path}: holds no image")
    if other := [image.shape for image in images if image.shape != images[0].shape]:
        raise ValueError(f"{path}: images of {images[0].shape} and {other[0]} voxels: must be of one size")
    if min(images[0].shape) < LEAST:
        raise ValueError(f"{path}: images of {images[0].shape} voxels: must have at least {LEAST} along each axis")
    return images


def phase_values(images: Sequence[NDArray[np.integer]]) -> list[int]:
    """The integers in the images, in ascending order: phase p is the p-th. ValueError for more than 255."""
    values = sorted(set().union(*(np.unique(image).tolist() for image in images)))
    if len(values) > 255:
        raise ValueError(f"images: {len(values)} different integers: must be at most 255, one for each phase")
    if values[0] < 0 and values[-1] >= 2**63:
        raise ValueError(f"images: integers from {values[0]} to {values[-1]} do not fit one type")
    return [int(value) for value in values]


def renumber(image: NDArray[np.integer], values: Sequence[int]) -> NDArray[np.uint8]:
    """Phases 0, 1, … of an image."""
    dtype = np.int64 if values[0] < 0 else np.uint64
    return np.searchsorted(np.array(values, dtype), image.astype(dtype)).astype(np.uint8)


def check_different(images: Iterable[NDArray[np.uint8]]) -> None:
    """Raises ValueError where an image is there twice: a network could be tested on what it has learned."""
    seen: dict[bytes, int] = {}
    for i, image in enumerate(images):
        first = seen.setdefault(hashlib.sha256(image.tobytes()).digest(), i)
        if first != i:
            raise ValueError(f"images {first} and {i} are the same: must be there once")


def jumps(image: NDArray[np.integer]) -> Iterator[tuple[str, float, float]]:
    """(axis, voxels that change across the opposite faces, voxels that change from a layer to the next in the mean), as
    fractions, for each axis along which the first is far above the second and above every layer's: a visible jump."""
    for axis, name in enumerate("xyz"):
        changed = (image != np.roll(image, 1, axis)).mean(axis=tuple({0, 1, 2} - {axis}))
        across, inside = float(changed[0]), changed[1:]
        if across > JUMP * inside.mean() and across > inside.max():
            yield name, across, float(inside.mean())


def warn_of_jumps(images: Sequence[NDArray[np.integer]]) -> None:
    """Warns of images that do not look periodic."""
    found = [(i, *jump) for i, image in enumerate(images) for jump in jumps(image)]
    if found:
        i, axis, across, inside = max(found, key=lambda f: f[2])
        warnings.warn(
            f"{len({f[0] for f in found})} of {len(images)} images do not look periodic, as the equations "
            f"take them to be: along {axis} of image {i}, {across:.0%} of the voxels change across the opposite faces, "
            f"{inside:.0%} from a layer to the next",
            NotPeriodic,
            stacklevel=2,
        )


def voxels(path: Path) -> int:
    """Return the number of voxels of the first image of a file, from its header alone."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open(path, "rb"))
        if path.suffix == ".npz":
            archive = stack.enter_context(ZipFile(file))
            file = stack.enter_context(archive.open(archive.infolist()[0]))
        version, form = np.lib.format.read_magic(file), np.lib.format
        shape, *_ = (form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0)(file)
    return math.prod(shape[-3:])
