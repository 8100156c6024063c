"""Microstructures and their strain fields, computed in batches and written shard by shard.

A shard that is done, by its receipt and the checksums in it, is not computed again: each of these
functions, called again after an interruption, goes on from there.
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

from lspipe import images, store
from lspipe import workers as pool
from lspipe.cell.arguments import check_device, check_tol
from lspipe.cell.numbers import SINGLE, numbers
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged, solve_problem
from lspipe.files import locked
from lspipe.microstructure import DESIGN, generate
from lspipe.progress import progress

BATCH = 8  # samples solved at once: beside the shard it writes, a worker holds what the solver does for so many


def write_microstructures(
    path: Path, *, count: int, n: int, seed: int, split: str, per_shard: int, replace: bool = False
) -> None:
    """Generates a split into a microstructure store. One of another number of samples that is there already keeps
    the shards that are the same."""
    generate(0, n, seed, split)  # refuses bad arguments before anything is written
    sizes = {"sample": count, "x": n, "y": n, "z": n, "material": 2, "parameter": len(DESIGN)}
    attributes = {"split": split, "source": {"root_seed": seed}, "parameters": DESIGN}
    _write_cells_anew(path, store.PHASE, sizes, per_shard, attributes, replace)


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
    """Make a microstructure store of images first … first + count − 1 of a file.

    Shards whose images are unchanged are kept. Images that do not look periodic give a warning.

    Args:
        labels: The integers in the images that become phases 0, 1, …; by default those of the file, in ascending order.

    Raises:
        ValueError: ``images.read`` refuses the file, the file has fewer images or other labels, or the store has
            shards of other images and ``replace`` is false.
    """
    generate(0, 1, 0, split)  # refuses an unknown split
    found = images.read(file)
    if first < 0 or first + count > len(found):
        raise ValueError(f"first = {first}, count = {count}: {file} has {len(found)} images")
    try:
        labels = images.check_labels(found, labels)
        digests = [images.digest(images.renumber(image, labels)) for image in found]
        images.check_different(digests)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    chosen = slice(first, first + count)
    images.warn_of_jumps(found[chosen], first)
    sizes = dict(zip(("sample", "x", "y", "z"), (count, *found[0].shape), strict=True)) | {"material": len(labels)}
    attributes = {"split": split, "source": {"first": first}, "labels": labels, "images": digests[chosen]}
    layout = {name: array for name, array in store.PHASE.items() if name != "design"}
    _write_cells_anew(
        path, layout, sizes, per_shard, attributes | {"images_path": store.seen_from(path, file)}, replace
    )


def _write_cells_anew(
    path: Path, layout: store.Layout, sizes: dict[str, int], per_shard: int, attributes: dict[str, Any], replace: bool
) -> None:
    if sizes["sample"] < 1:
        raise ValueError(f"count = {sizes['sample']}: must be at least 1")
    stated = {**attributes, "axes": "x, y, z in array order"}
    store.create(path, layout, sizes, per_shard, stated, replace=replace)
    write_cells(path)


def write_cells(path: Path, shards: Sequence[int] | None = None) -> None:
    """Writes those of these shards of a microstructure store that are not done (default: of all)."""
    cells = store.Store.open(path)
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


def make_cells(cells: store.Store, first: int, last: int) -> dict[str, np.ndarray]:
    """What a microstructure store says that it holds of some samples: by the generator, or out of the images."""
    source = cells.attributes["source"]
    if "root_seed" in source:
        n = cells.arrays["phase"].shape[1]
        made = generate(last - first, n, source["root_seed"], cells.attributes["split"], first)
        phase, arrays = made.phase, {"seed": made.seed, "design": made.design}
    else:
        file = store.beside(cells, "images_path")
        chosen = _images(file, file.stat().st_mtime_ns)[source["first"] + first : source["first"] + last]
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
def _images(file: Path, _modified: int) -> Sequence[np.ndarray]:
    return images.read(file)


def create_fields(
    path: Path,
    microstructures: Path,
    problem: Problem,
    *,
    tol: float,
    per_shard: int,
    replace: bool = False,
) -> None:
    """Create a store for the fields of microstructures, which states the problem that ``solve_fields`` solves.

    Shards of the same fields that exist already are kept.
    """
    check_tol(tol)
    if None in problem.strain or problem.spacing != (1, 1, 1):
        raise ValueError(f"{problem}: must have cubic voxels of edge 1 and a prescribed strain to be stored")
    load, _, _ = problem.load
    # Fields are stored in single precision, and networks learn them in it.
    numbers("strain", load, SINGLE)
    numbers("stiffness", problem.stiffnesses, SINGLE)
    if voids := [m for m in problem.materials if not m.stiffness.any()]:
        raise ValueError(f"{voids[0]}: must be positive, for a network cannot learn the strain in a void")
    cells = store.Store.open(microstructures)
    if "phase" not in cells.arrays:
        raise ValueError(f"{microstructures}: must be a store of microstructures")
    store.check_version(cells)
    sizes = dict(zip(("sample", "x", "y", "z"), cells.arrays["phase"].shape, strict=True))
    sizes["material"] = cells.arrays["volume_fraction"].shape[1]
    if (count := len(problem.materials)) != sizes["material"]:
        cells.check_whole()
        raise ValueError(f"{count} materials: {microstructures} has {describe_phases(cells)}")
    described = problem.to_json()
    attributes = {
        "microstructures": store.identity(cells),
        "microstructures_path": store.seen_from(path, microstructures),
        "components": problem.physics.components,
        "macroscopic_strain": described.pop("strain"),
        **described,
        **problem.physics.stated,
        "tol": tol,
    }
    if "images" in cells.attributes:
        attributes["images"] = cells.attributes["images"]
    sizes["component"] = len(problem.physics.components)
    store.create(path, store.FIELDS, sizes, per_shard, attributes, replace=replace)


def describe_phases(cells: store.Store) -> str:
    """List the phases of a microstructure store; of images, with the label and the voxels of each."""
    fractions = cells.arrays["volume_fraction"][:]
    said = f"{fractions.shape[1]} phases"
    if "labels" not in cells.attributes:
        return said
    voxels = np.rint(np.nan_to_num(fractions) * math.prod(cells.arrays["phase"].shape[1:])).astype(int)
    return f"{said}, {images.describe(cells.attributes['labels'], voxels, cells.attributes['source']['first'])}"


def solve_fields(
    path: Path,
    microstructures: Path,
    shards: Sequence[int] | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Solves those of these shards of a field store that are not done (default: of all); returns the receipts.

    Dask workers do a shard each, writing it themselves; a CUDA device has one worker. Samples that miss the tolerance
    are stored and named in the receipt. ValueError for shards that the store does not have, and for a device that this
    machine does not have.
    """
    if device != "cpu" and scheduler is None:
        check_device(device)
        workers = 1  # more would only share the device
    cells, data = store.open_pair(microstructures, path)
    data.check_receipts()
    shards = data.shards if shards is None else shards
    if wrong := [k for k in shards if k not in data.shards]:
        raise ValueError(f"shard = {wrong[0]}: {path} has shards 0 to {data.shards[-1]}")
    task = partial(solve_shard, data.path, cells.path, device)
    with locked(data.path, shared=True), progress(f"solve {path}", count_samples(data, shards), "sample") as bar:
        done = pool.run(task, shards, bar, workers=workers, scheduler=scheduler)
    if late := [i for receipt in done for i in receipt["not_converged"]]:
        tol = data.attributes["tol"]
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return done


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, this process solves with one thread."""
    import numba  # that the process which has workers does without

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@one_thread()
def solve_shard(path: Path, microstructures: Path, device: str, shard: int, report: pool.Report) -> dict[str, Any]:
    """Solves one shard, unless it is done; returns its receipt."""
    began = time.perf_counter()
    _, data = store.open_pair(microstructures, path)
    first, last = data.samples(shard)
    phase = read_phase(microstructures, first, last)
    if data.is_done(shard) and data.receipt(shard).get("phase") == digest(phase):
        report(last - first)
        return data.receipt(shard)
    tol = data.attributes["tol"]
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    step = BATCH if device == "cpu" else last - first  # a device takes of it what it has room for
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
    """Names the microstructures that fields are the fields of."""
    return hashlib.sha256(phase.tobytes()).hexdigest()


def read_phase(microstructures: Path, first: int, last: int) -> np.ndarray:
    """Phases (last − first, nx, ny, nz) of a microstructure store. ValueError where their shards are not whole."""
    cells = store.Store.open(microstructures)
    per_shard = cells.attributes["samples_per_shard"]
    cells.check_whole(range(first // per_shard, -(-last // per_shard)))
    return cells.arrays["phase"][first:last]


def count_samples(data: store.Store, shards: Sequence[int]) -> int:
    return sum(last - first for first, last in map(data.samples, shards))
