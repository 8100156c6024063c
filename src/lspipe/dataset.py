"""The data of a run: microstructures and their strain fields, written to stores shard by shard.

A shard that is done, by its receipt and its checksums, is not computed again. So a call after an interruption goes on
with the first shard that is missing.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lspipe import images
from lspipe import workers as pool
from lspipe.cell.arguments import check_device, check_tol
from lspipe.cell.numbers import SINGLE, numbers
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged, solve_problem
from lspipe.files import locked
from lspipe.microstructure import DESIGN, generate
from lspipe.progress import progress
from lspipe.store import Store
from lspipe.store.creation import create_store
from lspipe.store.layout import FIELDS, PHASE, Layout
from lspipe.store.shards import open_pair, relative_path

BATCH = 8  # samples solved at once: besides its shard, a worker holds what the solver needs for so many


def write_microstructures(
    path: Path, *, count: int, n: int, seed: int, split: str, per_shard: int, replace: bool = False
) -> None:
    """Generate a split into a microstructure store.

    Shards that an earlier store of the same microstructures has already are kept.

    Args:
        path: The store, ``NAME.zarr``.
        count: Number of microstructures.
        n: Voxels along an edge.
        seed: Root of the seeds of the samples.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: An argument is not allowed, or ``path`` cannot be replaced.
    """
    generate(0, n, seed, split)  # refuses bad arguments before anything is written
    sizes = {"sample": count, "x": n, "y": n, "z": n, "material": 2, "parameter": len(DESIGN)}
    attributes = {"split": split, "source": {"root_seed": seed}, "parameters": DESIGN}
    _write_new_cells(path, PHASE, sizes, per_shard, attributes, replace)


def import_microstructures(
    path: Path,
    file: Path,
    *,
    first: int,
    count: int,
    split: str,
    per_shard: int,
    labels: Sequence[int] | None = None,
    replace: bool = False,
) -> None:
    """Import images of a file into a microstructure store.

    Shards whose images are unchanged are kept. Images that do not look periodic give a warning.

    Args:
        path: The store, ``NAME.zarr``.
        file: The images; see ``images.read``.
        first: Number of the first image to import.
        count: Number of images to import.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        labels: The integers in the images that become phases 0, 1, …. By default those of the file in ascending order.
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
    images.warn_of_jumps(cells[chosen], first)
    sizes = dict(zip(("sample", "x", "y", "z"), (count, *cells[0].shape), strict=True)) | {"material": len(labels)}
    attributes = {
        "split": split,
        "source": {"first": first},
        "labels": labels,
        "images": digests[chosen],
        "images_path": relative_path(path, file),
    }
    layout = {name: array for name, array in PHASE.items() if name != "design"}
    _write_new_cells(path, layout, sizes, per_shard, attributes, replace)


def _write_new_cells(
    path: Path, layout: Layout, sizes: dict[str, int], per_shard: int, attributes: dict[str, Any], replace: bool
) -> None:
    if sizes["sample"] < 1:
        raise ValueError(f"count = {sizes['sample']}: must be at least 1")
    create_store(path, layout, sizes, per_shard, attributes | {"axes": "x, y, z in array order"}, replace=replace)
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
        n = cells.arrays["phase"].shape[1]
        made = generate(last - first, n, source["root_seed"], cells.attributes["split"], first)
        phase, arrays = made.phase, {"seed": made.seed, "design": made.design}
    else:
        file = cells.resolve("images_path")
        chosen = _read_images(file, file.stat().st_mtime_ns)[source["first"] + first : source["first"] + last]
        renumbered = [images.renumber(image, cells.attributes["labels"]) for image in chosen]
        digests = [images.digest(one) for one in renumbered]
        if digests != cells.attributes["images"][first:last]:
            raise ValueError(
                f"{file}: holds other images than those that the store was made of; lspipe import makes it anew"
            )
        phase, arrays = np.stack(renumbered), {"seed": np.array([int(name, 16) for name in digests], np.uint64)}
    phases = range(cells.arrays["volume_fraction"].shape[1])
    fractions = np.stack([(phase == p).mean(axis=(1, 2, 3)) for p in phases], axis=1)
    return {"phase": phase, "volume_fraction": fractions, **arrays}


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
        problem: The problem, with a prescribed strain and cubic voxels.
        tol: Relative residual at which the solver stops.
        per_shard: Samples in a shard.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: The problem cannot be stored or does not fit the microstructures, or ``path`` cannot be replaced.
    """
    check_tol(tol)
    if None in problem.strain or problem.spacing != (1, 1, 1):
        raise ValueError(f"{problem}: must have cubic voxels of edge 1 and a prescribed strain to be stored")
    # Fields are stored in single precision, and networks learn them in it.
    numbers("strain", problem.load[0], SINGLE)
    numbers("stiffness", problem.stiffnesses, SINGLE)
    if voids := [m for m in problem.materials if not m.stiffness.any()]:
        raise ValueError(f"{voids[0]}: must be positive, for a network cannot learn the strain in a void")
    cells = Store.open(microstructures)
    if "phase" not in cells.arrays:
        raise ValueError(f"{microstructures}: must be a store of microstructures")
    cells.check_version()
    sizes = dict(zip(("sample", "x", "y", "z"), cells.arrays["phase"].shape, strict=True))
    sizes["material"] = cells.arrays["volume_fraction"].shape[1]
    sizes["component"] = len(problem.physics.components)
    if (count := len(problem.materials)) != sizes["material"]:
        cells.check_whole()
        raise ValueError(f"{count} materials: {microstructures} has {describe_phases(cells)}")
    values = problem.to_json()
    attributes = {
        "microstructures": cells.identity,
        "microstructures_path": relative_path(path, microstructures),
        "components": problem.physics.components,
        "macroscopic_strain": values.pop("strain"),
        **values,
        **problem.physics.stated,
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this process solve with one thread."""
    import numba  # the process that has workers does not need it

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@one_thread()
def solve_shard(path: Path, microstructures: Path, device: str, shard: int, report: pool.Report) -> dict[str, Any]:
    """Solve one shard, unless it is done, and return its receipt."""
    began = time.perf_counter()
    _, data = open_pair(microstructures, path)
    first, last = data.samples(shard)
    phase = read_phase(microstructures, first, last)
    if data.is_done(shard) and data.receipt(shard).get("phase") == digest(phase):
        report(last - first)
        return data.receipt(shard)
    tol = data.attributes["tol"]
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    step = BATCH if device == "cpu" else last - first  # the solver cuts it to what a device has room for
    for i in range(0, last - first, step):
        batch = slice(i, i + step)
        solution = solve_problem(phase[batch], data.problem, tol=tol, device=device, warn=False)
        for name, values in arrays.items():
            values[batch] = getattr(solution, name)
        converged[batch] = solution.converged
        report(len(phase[batch]))
    iterations = arrays["iterations"]
    record = {
        "phase": digest(phase),
        "iterations": {"min": int(iterations.min()), "mean": iterations.mean(), "max": int(iterations.max())},
        "residual_max": arrays["residual"].max(),
        "bound_max": arrays["bound"].max(),
        "not_converged": (first + np.flatnonzero(~converged)).tolist(),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return data.write(shard, arrays, record)


def digest(phase: np.ndarray) -> str:
    """Return the SHA-256 of phases, by which the receipt of their fields names them."""
    return hashlib.sha256(phase.tobytes()).hexdigest()


def read_phase(microstructures: Path, first: int, last: int) -> np.ndarray:
    """Read the phases of samples first … last − 1. Raises ValueError where their shards are not whole."""
    cells = Store.open(microstructures)
    per_shard = cells.attributes["samples_per_shard"]
    cells.check_whole(range(first // per_shard, -(-last // per_shard)))
    return cells.arrays["phase"][first:last]


def count_samples(data: Store, shards: Sequence[int]) -> int:
    """Return the number of samples in these shards."""
    return sum(last - first for first, last in map(data.samples, shards))
