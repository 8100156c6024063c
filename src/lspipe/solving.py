"""The fields of one shard: which problems they can be of, and the task that solves and writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lspipe.cell.solver import solve_problem
from lspipe.images.strain import read_strain
from lspipe.store import Store
from lspipe.store.cells import digest_cells, open_images, read_cells
from lspipe.store.shards import open_pair
from lspipe.workers import Report

MEAN = 1e-2  # by which the mean of a published strain may differ from the load: the files hold single precision
BATCH = 8  # samples solved at once: besides its shard, a worker holds what the solver needs for so many


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
def solve_shard(path: Path, microstructures: Path, device: str, shard: int, report: Report) -> dict[str, Any]:
    """Make one shard, unless it is done, and return its receipt."""
    began = time.perf_counter()
    cells, data = open_pair(microstructures, path)
    first, last = data.samples(shard)
    digest = digest_cells(cells, first, last)
    if data.is_done(shard) and data.receipt(shard).get("phase") == digest:
        report(last - first)
        return data.receipt(shard)
    make = import_fields if "truth" in data.attributes else partial(solve_samples, device=device)
    arrays, converged = make(cells, data, first, last, report)
    iterations = arrays["iterations"]
    record = {
        "phase": digest,
        "iterations": {"min": int(iterations.min()), "mean": iterations.mean(), "max": int(iterations.max())},
        "residual_max": finite(arrays["residual"].max()),
        "bound_max": finite(arrays["bound"].max()),
        "not_converged": (first + np.flatnonzero(~converged)).tolist(),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return data.write(shard, arrays, record)


Fields = tuple[dict[str, np.ndarray], np.ndarray]  # arrays of a shard by name, and which samples have converged


def solve_samples(cells: Store, data: Store, first: int, last: int, report: Report, device: str) -> Fields:
    """Solve samples first … last − 1."""
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    step = BATCH if device == "cpu" else last - first  # the solver cuts it to what a device has room for
    for i in range(first, last, step):
        phase, problem = read_cells(cells, slice(i, min(i + step, last)), data.problem)
        solution = solve_problem(phase, problem, tol=data.attributes["tol"], device=device, warn=False)
        batch = slice(i - first, i - first + len(phase))
        for name, values in arrays.items():
            values[batch] = getattr(solution, name)
        converged[batch] = solution.converged
        report(len(phase))
    return arrays, converged


def import_fields(cells: Store, data: Store, first: int, last: int, report: Report) -> Fields:
    """Read the published strain of samples first … last − 1, which has no residual and no bound.

    Raises:
        ValueError: The files do not belong to the images, or their mean strain is not that of the problem.
    """
    count = last - first
    numbers = cells.attributes["image_numbers"][first:last]
    strain = read_strain(data.resolve_files("truth_path"), open_images(cells), numbers)
    mean, prescribed = strain[:, 0].mean(axis=(1, 2, 3), dtype=np.float64), data.problem.strain[0]
    if prescribed is not None and (wrong := np.flatnonzero(np.abs(mean - prescribed) > MEAN * abs(prescribed))).size:
        raise ValueError(
            f"{data.attributes['truth_path'][0]}: the mean strain of image {numbers[wrong[0]]} is {mean[wrong[0]]:g}; "
            f"must be the load, {prescribed:g}"
        )
    report(count)
    unknown = np.full(count, np.nan)
    arrays = {"strain": strain, "iterations": np.zeros(count, np.int32), "residual": unknown, "bound": unknown}
    return arrays, np.ones(count, dtype=bool)


def finite(value: float) -> float | None:
    """Return a number for JSON, which has no infinity, the bound of a cell with voids, and no NaN."""
    return float(value) if np.isfinite(value) else None
