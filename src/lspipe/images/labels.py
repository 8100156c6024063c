"""The labels of images: the integers that become phases."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 255  # labels: a phase is stored in a byte, and 255 stands for voxels that have none
JUMP = 2.0  # how often the mean change from a layer to the next makes a change across faces a jump
MOST_CHANNELS = 4  # along the last axis of an image with colours

Image = NDArray[np.integer]


class NotPeriodic(UserWarning):
    """Warns that images change much across opposite faces of the cell."""


class Channels(UserWarning):
    """Warns that images look as if their last axis were one of channels, not z."""


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
