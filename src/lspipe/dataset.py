"""Microstructures and their strain fields, computed in batches by Dask and written shard by shard."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask
import numba
import numpy as np

from lspipe import __version__, store
from lspipe.cell.arguments import check_load, check_scheme
from lspipe.cell.material import VOIGT, Isotropic
from lspipe.cell.solver import NotConverged, Solution, solve
from lspipe.microstructure import DESIGN, generate
from lspipe.progress import progress

BATCH = 8  # samples a Dask task solves; a shard of results is held in memory until it is written


def write_microstructures(path: Path, *, count: int, n: int, seed: int, split: str, per_shard: int) -> None:
    """Generates the split into a new microstructure store."""
    generate(0, n, seed, split)  # refuses bad arguments before anything is written
    if count < 1 or per_shard < 1:
        raise ValueError(f"count = {count}, samples per shard = {per_shard}: must be at least 1")
    sizes = {"sample": count, "x": n, "y": n, "z": n, "material": 2, "parameter": len(DESIGN)}
    attributes = {"split": split, "root_seed": seed, "parameters": DESIGN, "axes": "x, y, z in array order"}
    store.create(path, store.PHASE, sizes, per_shard, attributes)
    with progress(f"microstructures {split}", count, "sample") as bar:
        for first in range(0, count, per_shard):
            made = generate(min(per_shard, count - first), n, seed, split, first)
            fraction = made.phase.mean(axis=(1, 2, 3))
            fractions = np.column_stack([1 - fraction, fraction])
            arrays = {
                "phase": made.phase,
                "volume_fraction": fractions,
                "seed": made.seed,
                "design": made.design,
            }
            store.write(path, first, arrays, per_shard)
            bar.update(len(made.phase))


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
    """A new, empty field store for these microstructures: all that ``solve_fields`` needs to know."""
    check_load(strain)
    check_scheme(scheme, tol)
    if any(m.young == 0 for m in materials):
        raise ValueError("young = 0: must be positive, for a network cannot learn the strain in a void")
    cells = store.open_dataset(microstructures)
    sizes = {str(k): v for k, v in cells.sizes.items()}
    attributes = {
        "microstructures": store.identity(cells),
        "components": VOIGT,
        "shear": "tensor",
        "macroscopic_strain": strain,
        "materials": [asdict(m) for m in materials],
        "units": {"young": "GPa", "strain": "1"},
        "scheme": scheme,
        "tol": tol,
        "samples_per_shard": per_shard,
    }
    store.create(path, store.FIELDS, sizes | {"component": len(VOIGT)}, per_shard, attributes)


def solve_fields(path: Path, microstructures: Path, *, first_shard: int, shards: int, workers: int) -> dict[str, Any]:
    """Solves shards first_shard … first_shard + shards − 1 of a field store; returns their receipt.

    Dask runs batches and then the writing of their shard on ``workers`` threads (the kernels release
    the GIL); memory holds the shards in work, not the data set. Samples that miss the tolerance are
    stored and named in the receipt.
    """
    began = time.perf_counter()
    cells, data = store.open_pair(microstructures, path)
    phase, attributes = cells.phase, data.attrs
    per_shard, strain, scheme, tol = (
        attributes[k] for k in ("samples_per_shard", "macroscopic_strain", "scheme", "tol")
    )
    materials = [Isotropic(**m) for m in attributes["materials"]]
    start, stop = first_shard * per_shard, min((first_shard + shards) * per_shard, len(phase))
    if not 0 <= start < stop:
        raise ValueError(f"first shard = {first_shard}: {path} has shards 0 to {-(-len(phase) // per_shard) - 1}")

    with (
        progress(f"solve {path}", stop - start, "sample") as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", NotConverged)

        @dask.delayed
        def solve_batch(first: int, last: int) -> Solution:
            numba.set_num_threads(1)
            solution = solve(phase[first:last].values, materials, strain, scheme=scheme, tol=tol)
            bar.update(last - first)
            return solution

        @dask.delayed
        def write_shard(first: int, batches: list[Solution]) -> dict[str, np.ndarray]:
            arrays = {
                name: np.concatenate([getattr(s, name) for s in batches]) for name in (*store.FIELDS, "converged")
            }
            converged = arrays.pop("converged")
            store.write(path, first, arrays, per_shard)
            del arrays["strain"]
            return arrays | {"converged": converged}

        def shard(first: int) -> Any:
            last = min(first + per_shard, stop)
            return write_shard(first, [solve_batch(i, min(i + BATCH, last)) for i in range(first, last, BATCH)])

        parts = dask.compute(*map(shard, range(start, stop, per_shard)), scheduler="threads", num_workers=workers)

    done = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    late = (start + np.flatnonzero(~done["converged"])).tolist()
    if late:
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return {
        "samples": [start, stop],
        "shards": [first_shard, -(-stop // per_shard)],
        "iterations": {
            "min": int(done["iterations"].min()),
            "mean": float(done["iterations"].mean()),
            "max": int(done["iterations"].max()),
        },
        "residual_max": float(done["residual"].max()),
        "bound_max": float(done["bound"].max()),
        "not_converged": late,
        "seconds": round(time.perf_counter() - began, 3),
        "lspipe": __version__,
    }
