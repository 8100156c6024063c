"""The data of a run: microstructures and their strain fields, written to stores shard by shard.

A shard that is done, by its receipt and its checksums, is not computed again. So a call after an interruption goes on
with the first shard that is missing.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace as change
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lspipe import images
from lspipe import workers as pool
from lspipe.cell.arguments import check_device, check_spacing, check_tol
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import NotConverged
from lspipe.files import locked
from lspipe.microstructure import Generator, generate, read_generator
from lspipe.microstructure.samples import PAPER
from lspipe.progress import progress
from lspipe.solving import solve_shard
from lspipe.store import Store
from lspipe.store.cells import find_materials
from lspipe.store.creation import create_store
from lspipe.store.layout import FIELDS, QUATERNIONS, lay_out_cells
from lspipe.store.shards import open_pair, relative_path


def write_microstructures(
    path: Path,
    *,
    count: int,
    n: int | Sequence[int],
    seed: int,
    split: str,
    per_shard: int,
    generator: Generator = PAPER,
    spacing: Sequence[float] = (1, 1, 1),
    replace: bool = False,
) -> None:
    """Generate a split into a microstructure store.

    Shards that an earlier store of the same microstructures has already are kept.

    Args:
        path: The store, ``NAME.zarr``.
        count: Number of microstructures.
        n: Voxels along x, y and z, or one number for all three.
        seed: Root of the seeds of the samples.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        generator: Description of the microstructures.
        spacing: Edge lengths of a voxel along x, y, z.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: An argument is not allowed, or ``path`` cannot be replaced.
    """
    # No cell: this refuses bad arguments before anything is written, and has the shapes of all arrays.
    made = generate(0, n, seed, split, generator=generator, spacing=spacing)
    sizes = dict(zip("xyz", made.phase.shape[1:], strict=True)) | {"sample": count}
    sizes |= {"material": generator.phases, "crystal": generator.phases, "parameter": len(generator.parameters)}
    source: dict[str, Any] = {"root_seed": seed}
    if generator != PAPER:
        source["generator"] = generator.to_dict()
    attributes = {"split": split, "source": source}
    if generator.parameters:
        attributes["parameters"] = list(generator.parameters)
    if made.orientation is not None:
        sizes |= {"grain": made.orientation.shape[1], "quaternion": len(QUATERNIONS)}
        attributes |= {"quaternions": QUATERNIONS, "rotation": "crystal to sample"}
    _write_new_cells(path, sizes, spacing, attributes, per_shard=per_shard, replace=replace)


def import_microstructures(
    path: Path,
    file: Path,
    *,
    first: int,
    count: int,
    split: str,
    per_shard: int,
    labels: Sequence[int] | None = None,
    spacing: Sequence[float] = (1, 1, 1),
    replace: bool = False,
) -> None:
    """Import images of a file into a microstructure store.

    Shards whose images are unchanged are kept. Images that do not look periodic, or that look as if they had an axis
    of channels, give a warning.

    Args:
        path: The store, ``NAME.zarr``.
        file: The images; see ``images.read``.
        first: Number of the first image to import.
        count: Number of images to import.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        labels: The integers in the images that become phases 0, 1, …. By default those of the file in ascending order.
        spacing: Edge lengths of a voxel along x, y, z.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: ``images.read`` refuses the file, the file has fewer images or other labels, or ``path`` cannot be
            replaced.
    """
    generate(0, 1, 0, split)  # refuses an unknown split
    cells = images.read(file)
    if first < 0 or first + count > len(cells):
        raise ValueError(f"first = {first}, count = {count}: {file} has {len(cells)} images")
    try:
        labels = images.check_labels(cells, labels)
        digests = [images.digest(images.renumber(image, labels)) for image in cells]
        images.check_different(digests)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    chosen = slice(first, first + count)
    images.warn_of_channels(cells)
    images.warn_of_jumps(cells[chosen], first)
    sizes = dict(zip(("sample", "x", "y", "z"), (count, *cells[0].shape), strict=True)) | {"material": len(labels)}
    attributes = {
        "split": split,
        "source": {"first": first},
        "labels": labels,
        "images": digests[chosen],
        "images_path": relative_path(path, file),
    }
    _write_new_cells(path, sizes, spacing, attributes, per_shard=per_shard, replace=replace)


def _write_new_cells(
    path: Path, sizes: Mapping[str, int], spacing: Sequence[float], attributes: dict[str, Any], **options: Any
) -> None:
    if sizes["sample"] < 1:
        raise ValueError(f"count = {sizes['sample']}: must be at least 1")
    attributes["axes"] = "x, y, z in array order"
    if (checked := check_spacing(spacing)) != (1, 1, 1):
        attributes["spacing"] = list(checked)
    create_store(path, lay_out_cells(attributes), sizes, attributes=attributes, **options)
    write_cells(path)


def write_cells(path: Path, shards: Sequence[int] | None = None) -> None:
    """Write those of these shards of a microstructure store that are not done (default: of all)."""
    cells = Store.open(path)
    cells.check_receipts()
    shards = cells.shards if shards is None else shards
    bar = progress(f"microstructures {path}", count_samples(cells, shards), "sample")
    with locked(cells.path, shared=True), bar:
        for shard in shards:
            began = time.perf_counter()
            first, last = cells.samples(shard)
            if not cells.is_done(shard):
                arrays = make_cells(cells, first, last)
                cells.write(shard, arrays, {"seconds": round(time.perf_counter() - began, 3)})
            bar.update(last - first)


def make_cells(cells: Store, first: int, last: int) -> dict[str, np.ndarray]:
    """Return the arrays of samples first … last − 1 of a microstructure store, from the generator or the images."""
    source = cells.attributes["source"]
    if "root_seed" in source:
        grid, split = cells.arrays["phase"].shape[1:], cells.attributes["split"]
        options: Any = {"generator": read_generator(source.get("generator", {})), "spacing": cells.spacing}
        made = generate(last - first, grid, source["root_seed"], split, first, **options)
        arrays = {name: getattr(made, name) for name in cells.arrays if name != "volume_fraction"}
    else:
        file = cells.resolve("images_path")
        chosen = _read_images(file, file.stat().st_mtime_ns)[source["first"] + first : source["first"] + last]
        renumbered = [images.renumber(image, cells.attributes["labels"]) for image in chosen]
        digests = [images.digest(one) for one in renumbered]
        if digests != cells.attributes["images"][first:last]:
            raise ValueError(
                f"{file}: holds other images than those that the store was made of; lspipe import makes it anew"
            )
        arrays = {"phase": np.stack(renumbered), "seed": np.array([int(name, 16) for name in digests], np.uint64)}
    materials = cells.arrays["volume_fraction"].shape[1]
    return arrays | {"volume_fraction": volume_fractions(find_materials(arrays), materials)}


@lru_cache(maxsize=1)
def _read_images(file: Path, _modified: int) -> Sequence[np.ndarray]:
    return images.read(file)


def create_fields(
    path: Path, microstructures: Path, problem: Problem, *, tol: float, per_shard: int, replace: bool = False
) -> None:
    """Create a field store that states which problem ``solve_fields`` solves for which microstructures.

    Shards that an earlier store of the same fields has already are kept.

    Args:
        path: The store, ``NAME.zarr``.
        microstructures: The microstructure store.
        problem: The problem. Its voxels are those of the microstructures.
        tol: Relative residual at which the solver stops.
        per_shard: Samples in a shard.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: The problem cannot be stored or does not fit the microstructures, or ``path`` cannot be replaced.
    """
    check_tol(tol)
    problem.check_storable()
    cells = Store.open(microstructures)
    if "phase" not in cells.arrays:
        raise ValueError(f"{microstructures}: must be a store of microstructures")
    cells.check_version()
    if problem.spacing not in ((1, 1, 1), cells.spacing):
        raise ValueError(f"spacing = {problem.spacing}: {microstructures} has voxels of {cells.spacing}; leave it out")
    problem = change(problem, spacing=cells.spacing)
    sizes = dict(zip(("sample", "x", "y", "z"), cells.arrays["phase"].shape, strict=True))
    sizes["material"] = cells.arrays["volume_fraction"].shape[1]
    sizes["component"] = len(problem.physics.components)
    if (count := len(problem.materials)) != sizes["material"]:
        cells.check_whole()
        raise ValueError(f"{count} materials: {microstructures} has {describe_phases(cells)}")
    solid = [material.stiffness.any() for material in problem.materials]
    if (hollow := np.flatnonzero(cells.arrays["volume_fraction"][:][:, solid].sum(axis=1) == 0)).size:
        raise ValueError(f"{microstructures}: samples {hollow[:20].tolist()} have no solid voxel; each must have one")
    values = problem.to_json()
    attributes = {
        "microstructures": cells.identity,
        "microstructures_path": relative_path(path, microstructures),
        "components": problem.physics.components,
        "macroscopic_strain": values.pop("strain"),
        **values,
        **problem.physics.store_attributes,
        "tol": tol,
    }
    if "images" in cells.attributes:
        attributes["images"] = cells.attributes["images"]
    create_store(path, FIELDS, sizes, per_shard, attributes, replace=replace)


def describe_phases(cells: Store) -> str:
    """Return the number of phases of a microstructure store; of images, also the label and the voxels of each."""
    fractions = cells.arrays["volume_fraction"][:]
    phases = f"{fractions.shape[1]} phases"
    if "labels" not in cells.attributes:
        return phases
    voxels = np.rint(np.nan_to_num(fractions) * math.prod(cells.arrays["phase"].shape[1:])).astype(int)
    return f"{phases}, {images.describe(cells.attributes['labels'], voxels, cells.attributes['source']['first'])}"


def solve_fields(
    path: Path,
    microstructures: Path,
    shards: Sequence[int] | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Solve those of these shards of a field store that are not done.

    A worker solves and writes one shard at a time. Samples that miss the tolerance are stored; the receipt and a
    warning name them.

    Args:
        path: The field store.
        microstructures: The microstructure store.
        shards: Numbers of shards; by default all.
        workers: Processes of one thread each. A CUDA device has one.
        scheduler: Address of a Dask cluster, whose workers are used instead.
        device: 'cpu', 'cuda', 'cuda:1', ….

    Returns:
        The receipts of the shards.

    Raises:
        ValueError: The store does not have a shard, or the machine does not have the device.
    """
    if device != "cpu" and scheduler is None:
        check_device(device)
        workers = 1  # more would only share the device
    cells, data = open_pair(microstructures, path)
    data.check_receipts()
    shards = data.shards if shards is None else shards
    if wrong := [k for k in shards if k not in data.shards]:
        raise ValueError(f"shard = {wrong[0]}: {path} has shards 0 to {data.shards[-1]}")
    task = partial(solve_shard, data.path, cells.path, device)
    with locked(data.path, shared=True), progress(f"solve {path}", count_samples(data, shards), "sample") as bar:
        receipts = pool.run(task, shards, bar, workers=workers, scheduler=scheduler)
    if late := [i for receipt in receipts for i in receipt["not_converged"]]:
        tol = data.attributes["tol"]
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return receipts


def count_samples(data: Store, shards: Sequence[int]) -> int:
    """Return the number of samples in these shards."""
    return sum(last - first for first, last in map(data.samples, shards))
