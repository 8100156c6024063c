"""The fields of one shard: which problems they can be of, and the task that solves and writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lspipe.cell.solver import solve_problem
from lspipe.store.cells import digest_cells, read_cells
from lspipe.store.shards import open_pair
from lspipe.workers import Report

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
    """Solve one shard, unless it is done, and return its receipt."""
    began = time.perf_counter()
    cells, data = open_pair(microstructures, path)
    first, last = data.samples(shard)
    digest = digest_cells(cells, first, last)
    if data.is_done(shard) and data.receipt(shard).get("phase") == digest:
        report(last - first)
        return data.receipt(shard)
    tol = data.attributes["tol"]
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    step = BATCH if device == "cpu" else last - first  # the solver cuts it to what a device has room for
    for i in range(first, last, step):
        phase, problem = read_cells(cells, slice(i, min(i + step, last)), data.problem)
        solution = solve_problem(phase, problem, tol=tol, device=device, warn=False)
        batch = slice(i - first, i - first + len(phase))
        for name, values in arrays.items():
            values[batch] = getattr(solution, name)
        converged[batch] = solution.converged
        report(len(phase))
    iterations, bound = arrays["iterations"], arrays["bound"].max()
    record = {
        "phase": digest,
        "iterations": {"min": int(iterations.min()), "mean": iterations.mean(), "max": int(iterations.max())},
        "residual_max": arrays["residual"].max(),
        "bound_max": bound if np.isfinite(bound) else None,  # JSON has no infinity, the bound of a cell with voids
        "not_converged": (first + np.flatnonzero(~converged)).tolist(),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return data.write(shard, arrays, record)
