"""Microstructures and their strain fields, computed in batches and written shard by shard.

A shard that is done, by its receipt and the checksums in it, is not computed again: each of these
functions, called again after an interruption, goes on from there.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

from lspipe import store
from lspipe.cell.arguments import check_load, check_scheme
from lspipe.cell.material import VOIGT, Isotropic
from lspipe.cell.solver import NotConverged, solve
from lspipe.microstructure import DESIGN, generate
from lspipe.progress import progress

BATCH = 8  # samples solved at once: beside the shard it writes, a worker holds what the solver does for so many


def write_microstructures(path: Path, *, count: int, n: int, seed: int, split: str, per_shard: int) -> None:
    """Generates a split into a microstructure store. One of fewer samples that is there already is extended."""
    generate(0, n, seed, split)  # refuses bad arguments before anything is written
    if count < 1 or per_shard < 1:
        raise ValueError(f"count = {count}, samples per shard = {per_shard}: must be at least 1")
    sizes = {"sample": count, "x": n, "y": n, "z": n, "material": 2, "parameter": len(DESIGN)}
    attributes = {
        "split": split,
        "source": {"root_seed": seed},
        "parameters": DESIGN,
        "axes": "x, y, z in array order",
    }
    store.create(path, store.PHASE, sizes, per_shard, attributes)
    write_cells(path)


def write_cells(path: Path, shards: Sequence[int] | None = None) -> None:
    """Writes those of these shards of a microstructure store that are not done (default: of all)."""
    cells = store.Store.open(path)
    n, split, seed = cells.arrays["phase"].shape[1], cells.attributes["split"], cells.attributes["source"]["root_seed"]
    shards = cells.shards if shards is None else shards
    with progress(f"microstructures {path}", count_samples(cells, shards), "sample") as bar:
        for shard in shards:
            began = time.perf_counter()
            first, last = cells.samples(shard)
            if cells.fault(shard) is not None:
                made = generate(last - first, n, seed, split, first)
                fraction = made.phase.mean(axis=(1, 2, 3))
                arrays = {
                    "phase": made.phase,
                    "volume_fraction": np.column_stack([1 - fraction, fraction]),
                    "seed": made.seed,
                    "design": made.design,
                }
                cells.write(shard, arrays, {"seconds": round(time.perf_counter() - began, 3)})
            bar.update(last - first)


def create_fields(
    path: Path,
    microstructures: Path,
    *,
    materials: Sequence[Isotropic],
    strain: Sequence[float],
    scheme: str,
    tol: float,
    per_shard: int,
) -> None:
    """A field store for these microstructures, with all that ``solve_fields`` needs to know. Shards of the same
    fields that are there already are kept."""
    check_load(strain)
    check_scheme(scheme, tol)
    if any(m.young == 0 for m in materials):
        raise ValueError("young = 0: must be positive, for a network cannot learn the strain in a void")
    cells = store.open_dataset(microstructures)
    sizes = {str(k): v for k, v in cells.sizes.items()}
    attributes = {
        "microstructures": store.identity(cells),
        "microstructures_path": os.path.relpath(microstructures, path),
        "components": VOIGT,
        "shear": "tensor",
        "macroscopic_strain": strain,
        "materials": [asdict(m) for m in materials],
        "units": {"young": "GPa", "strain": "1"},
        "scheme": scheme,
        "tol": tol,
    }
    store.create(path, store.FIELDS, sizes | {"component": len(VOIGT)}, per_shard, attributes)


def solve_fields(
    path: Path,
    microstructures: Path,
    shards: Sequence[int] | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Solves those of these shards of a field store that are not done (default: of all); returns the receipts.

    Dask workers do a shard each, writing it themselves. Samples that miss the tolerance are stored
    and named in the receipt. ValueError for shards that the store does not have.
    """
    from lspipe import workers as pool  # Dask, that only this needs

    store.open_pair(microstructures, path)
    data = store.Store.open(path)
    shards = data.shards if shards is None else shards
    if wrong := [k for k in shards if k not in data.shards]:
        raise ValueError(f"shard = {wrong[0]}: {path} has shards 0 to {data.shards[-1]}")
    # Workers elsewhere have another working directory.
    task = partial(solve_shard, path.resolve(), microstructures.resolve())
    with progress(f"solve {path}", count_samples(data, shards), "sample") as bar:
        done = pool.run(task, shards, bar, workers=workers, scheduler=scheduler)
    if late := [i for receipt in done for i in receipt["not_converged"]]:
        tol = data.attributes["tol"]
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return done


def solve_shard(path: Path, microstructures: Path, shard: int, topic: str) -> dict[str, Any]:
    """Solves one shard on a Dask worker, unless it is done; returns its receipt."""
    from lspipe.workers import report

    began = time.perf_counter()
    data = store.Store.open(path)
    first, last = data.samples(shard)
    if data.fault(shard) is None:
        report(topic, last - first)
        return data.receipt(shard)
    phase = read_phase(microstructures, first, last)
    materials = [Isotropic(**m) for m in data.attributes["materials"]]
    strain, scheme, tol = (data.attributes[name] for name in ("macroscopic_strain", "scheme", "tol"))
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    numba.set_num_threads(1)
    for i in range(0, last - first, BATCH):
        batch = slice(i, i + BATCH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConverged)
            solution = solve(phase[batch], materials, strain, scheme=scheme, tol=tol)
        for name, values in arrays.items():
            values[batch] = getattr(solution, name)
        converged[batch] = solution.converged
        report(topic, len(phase[batch]))
    iterations = arrays["iterations"]
    record = {
        "iterations": {"min": int(iterations.min()), "mean": iterations.mean(), "max": int(iterations.max())},
        "residual_max": arrays["residual"].max(),
        "bound_max": arrays["bound"].max(),
        "not_converged": (first + np.flatnonzero(~converged)).tolist(),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return data.write(shard, arrays, record)


def read_phase(microstructures: Path, first: int, last: int) -> np.ndarray:
    """Phases (last − first, nx, ny, nz) of a microstructure store. ValueError where their shards are not whole."""
    cells = store.Store.open(microstructures)
    per_shard = cells.attributes["samples_per_shard"]
    for shard in range(first // per_shard, -(-last // per_shard)):
        if said := cells.fault(shard):
            raise ValueError(f"{microstructures}: shard {shard}: {said}; lspipe verify --repair makes it anew")
    return cells.arrays["phase"][first:last]


def count_samples(data: store.Store, shards: Sequence[int]) -> int:
    return sum(last - first for first, last in map(data.samples, shards))
