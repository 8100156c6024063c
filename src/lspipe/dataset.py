"""Microstructures and their strain fields, computed in batches and written shard by shard.

A shard that is done, by its receipt and the checksums in it, is not computed again: each of these
functions, called again after an interruption, goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lspipe import images, store
from lspipe import workers as pool
from lspipe.cell.arguments import check_device, check_load, check_materials, check_scheme
from lspipe.cell.material import Material, material, parameters
from lspipe.cell.solver import NotConverged, solve
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
    path: Path, file: Path, *, first: int, count: int, split: str, per_shard: int, replace: bool = False
) -> None:
    """Makes a microstructure store of images first … first + count − 1 of a file, their integers renumbered.

    Warns of images that are not periodic. ValueError for a file that ``images.read`` refuses, or with fewer images.
    """
    found = images.read(file)
    if first < 0 or first + count > len(found):
        raise ValueError(f"first = {first}, count = {count}: {file} has {len(found)} images")
    values = images.phase_values(found)
    images.check_different(images.renumber(image, values) for image in found)
    images.warn_of_jumps(found[first : first + count])
    sizes = dict(zip(("sample", "x", "y", "z"), (count, *found[0].shape), strict=True)) | {"material": len(values)}
    source = {"images": store.checksum(file), "first": first}
    attributes = {"split": split, "source": source, "phase_values": values}
    layout = {name: array for name, array in store.PHASE.items() if name != "design"}
    _write_cells_anew(
        path, layout, sizes, per_shard, attributes | {"images_path": os.path.relpath(file, path)}, replace
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
    shards = cells.shards if shards is None else shards
    with progress(f"microstructures {path}", count_samples(cells, shards), "sample") as bar:
        for shard in shards:
            began = time.perf_counter()
            first, last = cells.samples(shard)
            if cells.fault(shard) is not None:
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
        found = _images(store.beside(cells, "images_path"), source["images"])
        chosen = found[source["first"] + first : source["first"] + last]
        phase = np.stack([images.renumber(image, cells.attributes["phase_values"]) for image in chosen])
        digests = [hashlib.sha256(image.tobytes()).digest()[:8] for image in phase]
        arrays = {"seed": np.array([int.from_bytes(digest) for digest in digests], dtype=np.uint64)}
    phases = range(cells.arrays["volume_fraction"].shape[1])
    fractions = np.stack([(phase == p).mean(axis=(1, 2, 3)) for p in phases], axis=1)
    return {"phase": phase, "volume_fraction": fractions, **arrays}


@lru_cache(maxsize=1)
def _images(file: Path, checksum: str) -> Sequence[np.ndarray]:
    if store.checksum(file) != checksum:
        raise ValueError(f"{file}: holds other images than those that the store was made of")
    return images.read(file)


def create_fields(
    path: Path,
    microstructures: Path,
    *,
    materials: Sequence[Material],
    strain: Sequence[float],
    scheme: str,
    tol: float,
    per_shard: int,
    replace: bool = False,
) -> None:
    """A field store for these microstructures, with all that ``solve_fields`` needs to know. Shards of the same
    fields that are there already are kept."""
    physics = check_materials(materials)[0].physics
    check_load(physics, strain)
    check_scheme(scheme, tol)
    if voids := [m for m in materials if not m.stiffness.any()]:
        raise ValueError(f"{voids[0]}: must be positive, for a network cannot learn the strain in a void")
    cells = store.Store.open(microstructures)
    if "phase" not in cells.arrays:
        raise ValueError(f"{microstructures}: must be a store of microstructures")
    sizes = dict(zip(("sample", "x", "y", "z"), cells.arrays["phase"].shape, strict=True))
    sizes["material"] = cells.arrays["volume_fraction"].shape[1]
    if len(materials) != sizes["material"]:
        raise ValueError(f"{len(materials)} materials: {microstructures} has {sizes['material']} phases")
    attributes = {
        "microstructures": store.identity(cells),
        "microstructures_path": os.path.relpath(microstructures, path),
        "components": physics.components,
        "macroscopic_strain": strain,
        "materials": [parameters(m) for m in materials],
        **physics.stated,
        "scheme": scheme,
        "tol": tol,
    }
    sizes["component"] = len(physics.components)
    store.create(path, store.FIELDS, sizes, per_shard, attributes, replace=replace)


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
    _, data = store.open_pair(microstructures, path)
    shards = data.shards if shards is None else shards
    if wrong := [k for k in shards if k not in data.shards]:
        raise ValueError(f"shard = {wrong[0]}: {path} has shards 0 to {data.shards[-1]}")
    # Workers elsewhere have another working directory.
    task = partial(solve_shard, path.resolve(), microstructures.resolve(), device)
    with progress(f"solve {path}", count_samples(data, shards), "sample") as bar:
        done = pool.run(task, shards, bar, workers=workers, scheduler=scheduler)
    if late := [i for receipt in done for i in receipt["not_converged"]]:
        tol = data.attributes["tol"]
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return done


def solve_shard(path: Path, microstructures: Path, device: str, shard: int, topic: str) -> dict[str, Any]:
    """Solves one shard on a Dask worker, unless it is done; returns its receipt."""
    import numba  # that the process which has workers does without

    began = time.perf_counter()
    data = store.Store.open(path)
    first, last = data.samples(shard)
    phase = read_phase(microstructures, first, last)
    if data.fault(shard) is None and data.receipt(shard).get("phase") == digest(phase):
        pool.report(topic, last - first)
        return data.receipt(shard)
    materials = [material(**m) for m in data.attributes["materials"]]
    strain, scheme, tol = (data.attributes[name] for name in ("macroscopic_strain", "scheme", "tol"))
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    numba.set_num_threads(1)
    step = BATCH if device == "cpu" else last - first  # a device takes of it what it has room for
    for i in range(0, last - first, step):
        batch = slice(i, i + step)
        solution = solve(phase[batch], materials, strain, scheme=scheme, tol=tol, device=device, warn=False)
        for name, values in arrays.items():
            values[batch] = getattr(solution, name)
        converged[batch] = solution.converged
        pool.report(topic, len(phase[batch]))
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
