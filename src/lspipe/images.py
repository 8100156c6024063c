"""A user's own microstructures: images of integers of any kind, from a .npy or .npz file."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

LEAST = 8  # voxels along an edge that the networks need
MOST = 255  # labels: a phase is stored in a byte, and 255 stands for voxels that have none
JUMP = 2.0  # times the mean change from a layer to the next
HEADER = 1 << 14  # bytes that hold the header of any array of integers
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Image = NDArray[np.integer]
Header = tuple[tuple[int, ...], bool, np.dtype, int]  # shape, whether in Fortran order, type, bytes before the data


class NotPeriodic(UserWarning):
    """Some images jump across opposite faces."""


def read(path: Path) -> list[Image]:
    """Read the images of a file.

    A ``.npy`` file is an array (N, nx, ny, nz) or one image (nx, ny, nz) and is mapped into memory. A ``.npz`` file
    has any number of such arrays and is read whole.

    Returns:
        The images (nx, ny, nz) in the order of the file.

    Raises:
        ValueError: The file is damaged, does not fit into memory, or does not hold integers in images of one size,
            at least 8³ voxels.
    """
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: must end in .npy or .npz")
    arrays = [_map(path)] if path.suffix == ".npy" else _unpack(path)
    images = [image for array in arrays for image in (array if array.ndim == 4 else [array])]
    if not images:
        raise ValueError(f"{path}: holds no image")
    if other := [image.shape for image in images if image.shape != images[0].shape]:
        raise ValueError(f"{path}: images of {images[0].shape} and {other[0]} voxels: must be of one size")
    return images


def _map(path: Path) -> Image:
    with open(path, "rb") as file:
        shape, fortran, dtype, offset = _header(str(path), file, path.stat().st_size)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _unpack(path: Path) -> list[Image]:
    from distributed.system import MEMORY_LIMIT  # takes a second to import, and only .npz needs it

    with _named(path):
        archive = ZipFile(path)
    with archive:
        headers: list[Header] = []
        for entry in archive.infolist():
            name = f"{path}: {entry.filename.removesuffix('.npy')}"
            with _named(name):
                file = archive.open(entry)
            with file:
                headers.append(_header(name, file, entry.file_size))
        # What an archive unpacks to is checked before any of it is unpacked.
        size, limit = sum(entry.file_size for entry in archive.infolist()) / 1e9, (MEMORY_LIMIT or math.inf) / 2e9
        if size > limit:
            raise ValueError(
                f"{path}: unpacks to {size:.3g} GB: must take at most {limit:.3g} GB, half of the memory; save the "
                "images in a .npy file, which is not read whole"
            )
        arrays = []
        for entry, (shape, fortran, dtype, offset) in zip(archive.infolist(), headers, strict=True):
            with _named(f"{path}: {entry.filename}"):
                arrays.append(np.ndarray(shape, dtype, archive.read(entry), offset, order="F" if fortran else "C"))
        return arrays


def _header(name: str, file: IO[bytes], length: int) -> Header:
    """Read the header of a .npy file of ``length`` bytes, and compare it with what images must be."""
    with _named(name):
        head = BytesIO(file.read(HEADER))
        shape, fortran, dtype = READERS[np.lib.format.read_magic(head)](head)
    if dtype.kind not in "iub":
        raise ValueError(f"{name} of type {dtype}: must be integers, which name the phases")
    if len(shape) not in (3, 4):
        raise ValueError(f"{name} of shape {shape}: must be (N, nx, ny, nz), or (nx, ny, nz) of one image")
    if math.prod(shape) * dtype.itemsize != length - head.tell() or min(shape) < 0:
        raise ValueError(
            f"{name} of shape {shape} and type {dtype}: has {length - head.tell()} bytes of data, which do not fit; "
            "the file is damaged, perhaps cut: copy or save it again"
        )
    if min(shape[-3:]) < LEAST:
        meant = f"{shape[0]} images" if len(shape) == 4 else "one image"
        raise ValueError(
            f"{name} of shape {shape}: is taken as {meant} of {shape[-3:]} voxels: must have at least {LEAST} along "
            "each axis; several images are (N, nx, ny, nz), and one is (nx, ny, nz), without an axis of channels"
        )
    return shape, fortran, dtype, head.tell()


@contextmanager
def _named(name: object) -> Iterator[None]:
    """Name the file in what goes wrong while it is parsed: there is no end to the ways in which a file is damaged."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{name}: is no array of integers, or is damaged ({said:.200}); save it again") from None


def check_labels(images: Sequence[Image], labels: Sequence[int] | None = None) -> list[int]:
    """Return the labels of phases 0, 1, …: ``labels``, or the integers of the images in ascending order.

    Raises:
        ValueError: There are more than 255 labels, a label is given twice, or an image has a label that is not given.
    """
    counts: list[dict[int, int]] = []  # voxels of each label, image by image
    found: list[int] = []
    for image in images:
        values, voxels = np.unique(image, return_counts=True)
        found = sorted({*found, *map(int, values[: MOST + 1])})
        if len(found) > MOST:
            raise ValueError(
                f"more than {MOST} different integers, {str(found[:4])[1:-1]}, …: must be one for each phase"
            )
        counts.append(dict(zip(values.tolist(), voxels.tolist(), strict=True)))
    if labels is None and len(found) < 2:
        raise ValueError(f"holds one integer, {found[0]}: must hold at least two; or state the labels")
    if labels is None:
        return found
    if len(set(labels)) < len(labels) or not 0 < len(labels) <= MOST:
        raise ValueError(f"labels = {list(labels)}: must be 1 to {MOST} different integers")
    if not set(found) <= set(labels):
        table = np.array([[count.get(label, 0) for label in found] for count in counts])
        raise ValueError(f"has {describe(found, table)}: must have no label but labels = {list(labels)}")
    return list(labels)


def describe(labels: Sequence[int], voxels: NDArray[np.integer], first: int = 0) -> str:
    """List labels with their ``voxels`` (image, label). A label that only one image has is listed with its number."""
    entries = []
    for label, count in zip(labels, voxels.T, strict=True):
        where = f", all in image {first + int(np.argmax(count))}" if np.count_nonzero(count) == 1 < len(count) else ""
        total = int(count.sum())
        entries.append(f"label {label} ({total} voxel{'s' * (total != 1)}{where})")
    return ", ".join(entries)


def renumber(image: Image, labels: Sequence[int]) -> NDArray[np.uint8]:
    """Phases of an image: p where its voxels have the p-th label, and 255 where they have none of the labels."""
    phases = {label: phase for phase, label in enumerate(labels)}
    values = np.unique(image)
    table = np.array([phases.get(value, MOST) for value in values.tolist()], np.uint8)
    return table[np.searchsorted(values, image)]


def digest(phase: NDArray[np.uint8]) -> str:
    """Name the phases of an image by the first 16 digits of their SHA-256."""
    return hashlib.sha256(phase.tobytes()).hexdigest()[:16]


def check_different(digests: Sequence[str]) -> None:
    """Raise ValueError where an image is there twice: a network could be tested on what it has learned."""
    seen: dict[str, int] = {}
    for i, name in enumerate(digests):
        if (first := seen.setdefault(name, i)) != i:
            raise ValueError(f"images {first} and {i} are the same: must be there once")


def jumps(image: Image) -> Iterator[tuple[str, float, float]]:
    """(axis, voxels that change across the opposite faces, voxels that change from a layer to the next in the mean), as
    fractions, for each axis along which the first is far above the second and above every layer's: a visible jump."""
    for axis, name in enumerate("xyz"):
        changed = (image != np.roll(image, 1, axis)).mean(axis=tuple({0, 1, 2} - {axis}))
        across, inside = float(changed[0]), changed[1:]
        if across > JUMP * inside.mean() and across > inside.max():
            yield name, across, float(inside.mean())


def warn_of_jumps(images: Sequence[Image], first: int = 0) -> None:
    """Warn of images that do not look periodic. ``first`` is the number of the first of them in their file."""
    found = [(i, *jump) for i, image in enumerate(images, first) for jump in jumps(image)]
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
    if path.suffix == ".npy":
        return math.prod(_map(path).shape[-3:])
    with _named(path), ZipFile(path) as archive:
        entry = archive.infolist()[0]
        with archive.open(entry) as file:
            shape, *_ = _header(f"{path}: {entry.filename}", file, entry.file_size)
    return math.prod(shape[-3:])
