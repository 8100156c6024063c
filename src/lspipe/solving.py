"""The task that solves and writes one shard of fields, of load paths or of effective properties."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.bounds import bounds_problem
from lspipe.cell.expansion import compute_effective_expansion
from lspipe.cell.homogenize import homogenize_problem
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem
from lspipe.images.strain import read_strain
from lspipe.path_solving import finite, solve_paths
from lspipe.store import Store
from lspipe.store.cells import digest_cells, open_images, read_cells
from lspipe.store.shards import SOLVED, open_pair
from lspipe.workers import Report

MEAN = 1e-2  # Largest relative difference of the mean of a published strain from the load. Files have single precision.
EXPANSION = 1e-6  # largest relative residual of the solution for the effective expansion
MEASURES = ("residual", "bound", "gap")  # arrays whose largest value is in the receipt
BATCH = 8  # Samples that are solved at once. Besides its shard, a worker holds the data of the solver for them.


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
    cells, data = open_pair(microstructures, path, SOLVED)
    first, last = data.samples(shard)
    digest = digest_cells(cells, first, last)
    if data.is_done(shard) and data.receipt(shard).get("phase") == digest:
        shutil.rmtree(data.partial(shard), ignore_errors=True)
        report(last - first)
        return data.receipt(shard)
    arrays: Mapping[str, np.ndarray]
    if data.has_paths:
        arrays, record = solve_paths(cells, data, shard, digest, device, report)
    else:
        make = import_fields if "truth" in data.attributes else partial(solve_samples, device=device)
        arrays, converged = make(cells, data, first, last, report)
        late = (first + np.flatnonzero(~converged)).tolist()
        record = {"not_converged": late, "seconds": round(time.perf_counter() - began, 3)}
    iterations = arrays["iterations"]
    record |= {
        "phase": digest,
        "iterations": {"min": int(iterations.min()), "mean": iterations.mean(), "max": int(iterations.max())},
        # fmax skips the NaN of steps that a path did not reach.
        **{f"{name}_max": finite(np.fmax.reduce(arrays[name], axis=None)) for name in MEASURES if name in arrays},
    }
    receipt = data.write(shard, arrays, record)
    shutil.rmtree(data.partial(shard), ignore_errors=True)
    return receipt


Solved = tuple[Mapping[str, np.ndarray], np.ndarray]  # arrays of samples by name, and which samples have converged


def solve_samples(cells: Store, data: Store, first: int, last: int, report: Report, device: str) -> Solved:
    """Solve samples first … last − 1 for what the store holds."""
    compute = compute_fields if "strain" in data.arrays else compute_effective
    arrays = {name: np.empty((last - first, *a.shape[1:]), a.dtype) for name, a in data.arrays.items()}
    converged = np.empty(last - first, dtype=bool)
    step = BATCH if device == "cpu" else last - first  # The solver divides it into batches that fit the device.
    for i in range(first, last, step):
        phase, problem = read_cells(cells, slice(i, min(i + step, last)), data.problem)
        batch = slice(i - first, i - first + len(phase))
        results, converged[batch] = compute(phase, problem, data.attributes["tol"], device)
        for name, values in arrays.items():
            values[batch] = results[name]
        report(len(phase))
    return arrays, converged


def compute_fields(phase: NDArray[np.integer], problem: Problem, tol: float, device: str) -> Solved:
    """Return the fields of some samples."""
    solution = solve_problem(phase, problem, tol=tol, device=device, warn=False)
    assert solution.converged is not None
    return vars(solution), solution.converged


def compute_effective(phase: NDArray[np.integer], problem: Problem, tol: float, device: str) -> Solved:
    """Return the effective properties of some samples, with the bounds that their volume fractions give."""
    began = time.perf_counter()
    effective = homogenize_problem(phase, problem, tol=tol, device=device, warn=False)
    expansion = np.full((len(phase), len(problem.strain)), np.nan)
    if any(m.expansion_strain.any() for m in problem.materials):
        expansion = compute_effective_expansion(phase, problem, tol=min(tol, EXPANSION), device=device, warn=False)
    seconds = (time.perf_counter() - began) / len(phase)
    any_cell = bounds_problem(phase, problem)
    isotropic = bounds_problem(phase, problem, random_orientations=problem.grains is not None)
    unknown = np.full_like(effective.stiffness, np.nan)
    values = {
        **vars(effective),
        **{"reuss": any_cell.reuss, "voigt": any_cell.voigt},
        "hs_lower": unknown if isotropic.lower is None else isotropic.lower,
        "hs_upper": unknown if isotropic.upper is None else isotropic.upper,
        **{"expansion": expansion, "seconds": np.full(len(phase), seconds)},
    }
    return values, effective.converged


def import_fields(cells: Store, data: Store, first: int, last: int, report: Report) -> Solved:
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
