"""The labels of images: the integers that become phases."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lspipe.images.cut import Images

MOST = 255  # labels: a phase is stored in a byte, and 255 stands for voxels that have none
JUMP = 2.0  # A change across faces is a jump above this multiple of the mean change from a layer to the next.
MOST_CHANNELS = 4  # largest number of channels along the last axis of an image with colours

Image = NDArray[np.integer]


class NotPeriodic(UserWarning):
    """Warns that images change much across opposite faces of the cell."""


class Channels(UserWarning):
    """Warns that images look as if their last axis were one of channels, not z."""


def check_labels(images: Images, labels: Sequence[int] | None = None) -> list[int]:
    """Return the labels of phases 0, 1, …: ``labels``, or the integers of the images in ascending order.

    Thresholds make phases themselves: their labels are 0, 1, …. Files that follow each other must have the same labels.

    Raises:
        ValueError: There are more than 255 labels, a label is given twice, an image has a label that is not given, or
            files have different labels.
    """
    if labels is not None and (len(set(labels)) < len(labels) or not 0 < len(labels) <= MOST):
        raise ValueError(f"labels = {list(labels)}: must be 1 to {MOST} different integers")
    if labels is None and len(images.threshold):
        return list(range(len(images.threshold) + 1))
    counts: list[dict[int, int]] = []  # voxels of each label, cell by cell
    integers: list[int] = []
    for image in images:
        values = count_values(image, MOST + 1)
        integers = sorted({*integers, *values})
        if len(integers) > MOST:
            raise ValueError(
                f"more than {MOST} different integers, {str(integers[:4])[1:-1]}, …: must be one for each phase; "
                "give a threshold for grey values"
            )
        counts.append(values)
    if labels is None:
        if len(integers) < 2:
            raise ValueError(f"holds one integer, {integers[0]}: must hold at least two; or state the labels")
        check_same_labels(images, counts)
        return integers
    if not set(integers) <= set(labels):
        table = np.array([[count.get(label, 0) for label in integers] for count in counts])
        raise ValueError(f"has {describe(integers, table)}: must have no label but labels = {list(labels)}")
    return list(labels)


def check_same_labels(images: Images, counts: Sequence[dict[int, int]]) -> None:
    """Raise ValueError where one file has other labels than the first one; ``counts`` has those of each cell."""
    by_file: dict[str, set[int]] = {}
    for k, count in enumerate(counts):
        by_file.setdefault(images.find_source(images.locate(k)[0])[0].name, set()).update(count)
    first, *others = by_file.items()
    for name, labels in others:
        if labels != first[1]:
            raise ValueError(
                f"{name} has the labels {sorted(labels)}, {first[0]} has {sorted(first[1])}: state all of them with "
                "--labels if equal ones mean the same phase; else relabel one file"
            )


def count_values(image: Image, most: int) -> dict[int, int]:
    """Return the number of voxels of each of the first ``most`` integers of an image."""
    if image.dtype.itemsize == 1:
        lowest = int(np.iinfo(image.dtype).min) if image.dtype.kind == "i" else 0
        voxels = np.bincount(image.ravel().astype(np.int16) - lowest)
        values = np.flatnonzero(voxels)
        return dict(zip((values + lowest).tolist(), voxels[values].tolist(), strict=True))
    values, voxels = np.unique(image, return_counts=True)
    return dict(zip(values[:most].tolist(), voxels[:most].tolist(), strict=True))


def describe(labels: Sequence[int], voxels: NDArray[np.integer], numbers: Sequence[int] | None = None) -> str:
    """Return a list of labels with their ``voxels`` (image, label). It names the image of a label in one image only."""
    entries = []
    for label, count in zip(labels, voxels.T, strict=True):
        where, only = "", int(np.argmax(count))
        if np.count_nonzero(count) == 1 < len(count):
            where = f", all in image {numbers[only] if numbers else only}"
        total = int(count.sum())
        entries.append(f"label {label} ({total} voxel{'s' * (total != 1)}{where})")
    return ", ".join(entries)


def renumber(image: Image, labels: Sequence[int]) -> NDArray[np.uint8]:
    """Return the phases of an image: p where a voxel has the p-th label, and 255 where it has none of the labels."""
    phases = {label: phase for phase, label in enumerate(labels)}
    if image.dtype.itemsize == 1:  # A table of all values takes a tenth of the time.
        values = np.arange(256).astype(np.uint8).view(image.dtype)
        return np.array([phases.get(v, MOST) for v in values.tolist()], np.uint8)[image.view(np.uint8)]
    values = np.unique(image)
    table = np.array([phases.get(value, MOST) for value in values.tolist()], np.uint8)
    return table[np.searchsorted(values, image)]


def check_different(digests: Sequence[str]) -> None:
    """Raise ValueError for an image that occurs twice: a network could be tested on what it has learned."""
    seen: dict[str, int] = {}
    for i, name in enumerate(digests):
        if (first := seen.setdefault(name, i)) != i:
            raise ValueError(f"images {first} and {i} are the same; remove one of them")


def warn_of_channels(images: Images) -> None:
    """Warn of flat images that could be the layers of one image with an axis of channels."""
    *layer, channels = images.shape
    if not images.is_cut and channels <= MOST_CHANNELS < min(len(images), *layer):
        warnings.warn(
            f"the images are taken as {len(images)} of {images.shape} voxels: if they are one image with an axis of "
            "channels, drop that axis, or state the axes: several images are nxyz, and one is xyz",
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
        if is_jump(changed):
            yield name, float(changed[0]), float(changed[1:].mean())


def is_jump(changed: NDArray[np.floating]) -> bool:
    """Whether the first of these changes, across the faces, is far above the others, from a layer to the next."""
    across, inside = changed[0], changed[1:]
    return bool(inside.size and across > JUMP * inside.mean() and across > inside.max())


def warn_of_jumps(jumps: Sequence[tuple[int, str, float, float]], count: int) -> None:
    """Warn of images that do not look periodic.

    Args:
        jumps: The number of the image and a result of ``find_jumps``, for each jump.
        count: The number of all images.
    """
    if jumps:
        i, axis, across, inside = max(jumps, key=lambda jump: jump[2])
        warnings.warn(
            f"{len({jump[0] for jump in jumps})} of {count} images do not look periodic, but the solver takes them as "
            f"periodic: along {axis} of image {i}, {across:.0%} of the voxels change across the opposite faces, "
            f"{inside:.0%} from a layer to the next; expect larger errors near the faces, or mirror images of phases",
            NotPeriodic,
            stacklevel=2,
        )
