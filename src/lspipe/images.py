"""Images of a user's own microstructures: integers in a .npy or .npz file, whose values become phases."""

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

MOST = 255  # labels: a phase is stored in a byte, and 255 stands for voxels that have none
JUMP = 2.0  # how often the mean change from a layer to the next makes a change across faces a jump
MOST_CHANNELS = 4  # along the last axis of an image with colours
HEADER = 1 << 14  # bytes to read; the header of an array of integers is shorter
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Image = NDArray[np.integer]
Header = tuple[tuple[int, ...], bool, np.dtype, int]  # shape, whether in Fortran order, type, bytes before the data


class NotPeriodic(UserWarning):
    """Warns that images change much across opposite faces of the cell."""


class Channels(UserWarning):
    """Warns that images look as if their last axis were one of channels, not z."""


def read(path: Path) -> list[Image]:
    """Read the images of a file.

    A ``.npy`` file is an array (N, nx, ny, nz) or one image (nx, ny, nz) and is mapped into memory. A ``.npz`` file
    has any number of such arrays and is read whole.

    Returns:
        The images (nx, ny, nz) in the order of the file.

    Raises:
        ValueError: The file is damaged, does not fit into memory, or does not hold integers in images of one size.
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
    from distributed.system import MEMORY_LIMIT  # takes a second to import; only .npz needs it

    with _naming(path):
        archive = ZipFile(path)
    with archive:
        headers: list[Header] = []
        for entry in archive.infolist():
            name = f"{path}: {entry.filename.removesuffix('.npy')}"
            with _naming(name):
                file = archive.open(entry)
            with file:
                headers.append(_header(name, file, entry.file_size))
        # A small archive can unpack to more than the memory: check before unpacking.
        size, limit = sum(entry.file_size for entry in archive.infolist()) / 1e9, (MEMORY_LIMIT or math.inf) / 2e9
        if size > limit:
            raise ValueError(
                f"{path}: unpacks to {size:.3g} GB: must take at most {limit:.3g} GB, half of the memory; save the "
                "images in a .npy file, which is not read whole"
            )
        arrays = []
        for entry, (shape, fortran, dtype, offset) in zip(archive.infolist(), headers, strict=True):
            with _naming(f"{path}: {entry.filename}"):
                arrays.append(np.ndarray(shape, dtype, archive.read(entry), offset, order="F" if fortran else "C"))
        return arrays


def _header(name: str, file: IO[bytes], length: int) -> Header:
    """Read the header of a .npy file of ``length`` bytes. Raises ValueError unless it describes images."""
    with _naming(name):
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
    if 0 in shape[-3:]:
        raise ValueError(f"{name} of shape {shape}: has no voxels")
    return shape, fortran, dtype, head.tell()


@contextmanager
def _naming(name: object) -> Iterator[None]:
    """Turn any error in parsing a file into a ValueError that names it. Damaged files raise errors of every type."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{name}: is no array of integers, or is damaged ({reason:.200}); save it again") from None


def check_labels(images: Sequence[Image], labels: Sequence[int] | None = None) -> list[int]:
    """Return the labels of phases 0, 1, …: ``labels``, or the integers of the images in ascending order.

    Raises:
        ValueError: There are more than 255 labels, a label is given twice, or an image has a label that is not given.
    """
    counts: list[dict[int, int]] = []  # voxels of each label, image by image
    integers: list[int] = []
    for image in images:
        values, voxels = np.unique(image, return_counts=True)
        integers = sorted({*integers, *map(int, values[: MOST + 1])})
        if len(integers) > MOST:
            raise ValueError(
                f"more than {MOST} different integers, {str(integers[:4])[1:-1]}, …: must be one for each phase"
            )
        counts.append(dict(zip(values.tolist(), voxels.tolist(), strict=True)))
    if labels is None and len(integers) < 2:
        raise ValueError(f"holds one integer, {integers[0]}: must hold at least two; or state the labels")
    if labels is None:
        return integers
    if len(set(labels)) < len(labels) or not 0 < len(labels) <= MOST:
        raise ValueError(f"labels = {list(labels)}: must be 1 to {MOST} different integers")
    if not set(integers) <= set(labels):
        table = np.array([[count.get(label, 0) for label in integers] for count in counts])
        raise ValueError(f"has {describe(integers, table)}: must have no label but labels = {list(labels)}")
    return list(labels)


def describe(labels: Sequence[int], voxels: NDArray[np.integer], first: int = 0) -> str:
    """Return a list of labels with their ``voxels`` (image, label). It names the image of a label in one image only."""
    entries = []
    for label, count in zip(labels, voxels.T, strict=True):
        where = f", all in image {first + int(np.argmax(count))}" if np.count_nonzero(count) == 1 < len(count) else ""
        total = int(count.sum())
        entries.append(f"label {label} ({total} voxel{'s' * (total != 1)}{where})")
    return ", ".join(entries)


def renumber(image: Image, labels: Sequence[int]) -> NDArray[np.uint8]:
    """Return the phases of an image: p where a voxel has the p-th label, and 255 where it has none of the labels."""
    phases = {label: phase for phase, label in enumerate(labels)}
    values = np.unique(image)
    table = np.array([phases.get(value, MOST) for value in values.tolist()], np.uint8)
    return table[np.searchsorted(values, image)]


def digest(phase: NDArray[np.uint8]) -> str:
    """Return the first 16 digits of the SHA-256 of the phases of an image."""
    return hashlib.sha256(phase.tobytes()).hexdigest()[:16]


def check_different(digests: Sequence[str]) -> None:
    """Raise ValueError for an image that occurs twice: a network could be tested on what it has learned."""
    seen: dict[str, int] = {}
    for i, name in enumerate(digests):
        if (first := seen.setdefault(name, i)) != i:
            raise ValueError(f"images {first} and {i} are the same: must be there once")


def warn_of_channels(images: Sequence[Image]) -> None:
    """Warn of flat images that could be the layers of one image with an axis of channels."""
    *layer, channels = images[0].shape
    if channels <= MOST_CHANNELS < min(len(images), *layer):
        warnings.warn(
            f"the images are taken as {len(images)} of {images[0].shape} voxels: if they are one image with an axis of "
            "channels, drop that axis: several images are (N, nx, ny, nz), and one is (nx, ny, nz)",
            Channels,
            stacklevel=2,
        )


def find_jumps(image: Image) -> Iterator[tuple[str, float, float]]:
    """Yield the axes along which an image jumps from one face of the cell to the opposite one.

    Yields:
        The axis, the fraction of voxels that change across the faces, and the mean fraction that change from a layer to
        the next. The first fraction is far above the second, and above that of every pair of layers.
    """
    for axis, name in enumerate("xyz"):
        changed = (image != np.roll(image, 1, axis)).mean(axis=tuple({0, 1, 2} - {axis}))
        across, inside = float(changed[0]), changed[1:]
        if inside.size and across > JUMP * inside.mean() and across > inside.max():
            yield name, across, float(inside.mean())


def warn_of_jumps(images: Sequence[Image], first: int = 0) -> None:
    """Warn of images that do not look periodic. ``first`` is the number of the first image in the file."""
    jumps = [(i, *jump) for i, image in enumerate(images, first) for jump in find_jumps(image)]
    if jumps:
        i, axis, across, inside = max(jumps, key=lambda jump: jump[2])
        warnings.warn(
            f"{len({jump[0] for jump in jumps})} of {len(images)} images do not look periodic, as the equations "
            f"take them to be: along {axis} of image {i}, {across:.0%} of the voxels change across the opposite faces, "
            f"{inside:.0%} from a layer to the next",
            NotPeriodic,
            stacklevel=2,
        )


def count_voxels(path: Path) -> int:
    """Return the number of voxels of the first image of a file; only the header is read."""
    if path.suffix == ".npy":
        return math.prod(_map(path).shape[-3:])
    with _naming(path), ZipFile(path) as archive:
        entry = archive.infolist()[0]
        with archive.open(entry) as file:
            shape, *_ = _header(f"{path}: {entry.filename}", file, entry.file_size)
    return math.prod(shape[-3:])
