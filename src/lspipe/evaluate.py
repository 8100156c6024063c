"""Compare predictions with the ground truth: errors of each microstructure, and fields of a few for figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.machine import device_name, peak
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.files import Model
from lspipe.models.localization import at_once
from lspipe.models.operations import operations
from lspipe.progress import progress
from lspipe.statistics import select_final
from lspipe.store import open_dataset
from lspipe.store.shards import open_pair

SAMPLES = 8  # first microstructures of the test set whose fields are kept
KEPT = 2**22  # most voxels of these; one microstructure is always kept
SLAB = 2**13  # voxels whose errors are computed at a time


def evaluate(model: Model, microstructures: Path, fields: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Evaluate a model on a test set.

    Args:
        model: The model.
        microstructures: Store of the microstructures.
        fields: Store of their ground truth.

    Returns:
        The errors and the examples.

        The errors are a table with a row for each microstructure (``sample``) and number of ``passes``. Its columns are
        those of ``compute_errors``; the ``seconds`` and floating-point ``operations`` of the prediction; ``green``, the
        number of Green applications, ``residual`` and ``bound`` where the model gives them; ``volume_fraction`` of
        phase 1; and ``grain``, the geometric mean of the grain sizes in voxels, of generated microstructures. Its
        attributes are the number of ``parameters``, the default number of ``passes``, the ``device``, and ``gpu_gb``,
        the peak memory in GB on a GPU.

        The examples are the fields that figures show: those of the ``first`` microstructures and of the ones with the
        ``worst`` and the ``median`` error, which the attributes name. The variables are ``phase``, its ``distance`` to
        another phase, ``truth``, and the ``iterates`` of ε_xx with their ``mase``, up to the default number of passes.

    Raises:
        ValueError: Model, microstructures and fields do not belong together, or a store is incomplete.
    """
    pair = open_pair(microstructures, fields)
    for store in pair:
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    problem = pair[1].problem
    physics = problem.physics
    model.check_labels(pair[0].attributes.get("labels"))
    if problem.strain[0] == 0:
        raise ValueError(f"{fields}: macroscopic_strain {physics.components[0]} = 0: errors are relative to it")
    count, *grid = cells.phase.shape
    voxels = math.prod(grid)
    # The solver solves one microstructure on each thread; a network uses all threads for one.
    threads = torch.get_num_threads() if isinstance(model, ConjugateGradients) and model.device == "cpu" else 1
    size = max(threads, at_once(model.device, grid))
    first = min(count, SAMPLES, max(1, KEPT // voxels))
    drawn = [passes for passes in model.counts if passes <= model.passes]
    kept: dict[int, list[NDArray[np.float32]]] = {}

    def predict(samples: slice, keep: Iterable[int]) -> Iterator[tuple[int, float, NDArray[np.integer], Solution]]:
        """Yield passes, seconds, phases and prediction of some samples, and keep the iterates of those in ``keep``."""
        phase = cells.phase[samples].values
        for passes, seconds, solution in model.iterates(phase, problem):
            for k in keep if passes in drawn else ():
                kept.setdefault(k, []).append(solution.strain[k - samples.start, 0].astype(np.float32))
            yield passes, seconds, phase, solution
            del solution  # frees its memory before the next one is computed

    # Compile before the clock runs. A network may need the whole cell; the solver compiles as well on a corner.
    edge = 8 if isinstance(model, ConjugateGradients) else max(grid)
    list(model.iterates(cells.phase[:1, :edge, :edge, :edge].values, problem))
    cost = operations(model, (grid[0], grid[1], grid[2]), problem)
    parts = []
    with progress(f"evaluate on {fields}", count, "sample") as bar:
        for start in range(0, count, size):
            batch = slice(start, min(start + size, count))
            truth = data.strain[batch].values
            for passes, seconds, phase, solution in predict(batch, range(start, min(batch.stop, first))):
                columns: dict[str, Any] = {"sample": np.arange(start, batch.stop), "passes": passes}
                columns |= compute_errors(solution, phase, truth, problem)
                columns |= {"seconds": seconds / len(phase), "operations": cost[passes]}
                if solution.bound is not None:
                    columns |= {"green": passes, "residual": solution.residual, "bound": solution.bound}
                parts.append(pd.DataFrame(columns))
                del solution
            bar.update(len(phase))
    errors = pd.concat(parts, ignore_index=True)
    # Other work on the machine only adds time, and fewer passes take no longer than more: the least of these counts.
    errors["seconds"] = errors[::-1].groupby("sample")["seconds"].cummin()  # aligned by its index
    sample = errors["sample"].to_numpy()
    errors["volume_fraction"] = cells.volume_fraction[:, 1].values[sample]
    if "design" in cells:
        errors["grain"] = np.prod(cells.design[:, :3].values, axis=1)[sample] ** (1 / 3)
    errors.attrs |= {"parameters": model.parameters, "passes": model.passes}
    errors.attrs |= {"device": device_name(model.device), "gpu_gb": peak(model.device)}

    ranked = select_final(errors).sort_values("mase")["sample"].tolist()
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    for k in {*chosen.values()} - kept.keys():
        any(passes == drawn[-1] for passes, *_ in predict(slice(k, k + 1), [k]))
    samples = sorted(kept)
    phase = cells.phase[samples].values
    by_pass = errors.pivot(index="sample", columns="passes", values="mase").loc[samples, drawn]
    examples = xr.Dataset(
        {
            "sample": ("example", samples),
            "phase": (("example", "x", "y", "z"), phase),
            "distance": (("example", "x", "y", "z"), np.stack([compute_distances(p) for p in phase])),
            "truth": (("example", "x", "y", "z"), data.strain[samples, 0].values),
            "iterates": (("example", "pass", "x", "y", "z"), np.stack([kept.pop(k) for k in samples])),
            "mase": (("example", "pass"), by_pass.to_numpy()),
        },
        coords={"pass": drawn},
        attrs={
            **chosen,
            "first": first,
            "passes": model.passes,
            "macroscopic_strain": problem.strain,
            "symbol": f"{physics.symbol}$_{{{physics.components[0]}}}$",
        },
    )
    return errors, examples


def compute_distances(phase: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return the distance of each voxel (nx, ny, nz) to the nearest voxel of another phase in the periodic cell.

    The unit is a voxel. The distance is infinite in a cell of one phase.
    """
    squared = np.full(phase.shape, np.inf, np.float32)
    for axis, n in enumerate(phase.shape):
        within = squared.copy()  # least squared distance, with steps along this axis too
        for j in range(1, n // 2 + 1):
            if j**2 >= within.max():
                break
            for shift in (j, -j):
                same = np.roll(phase, shift, axis) == phase
                np.minimum(within, np.where(same, np.roll(squared, shift, axis), 0) + np.float32(j**2), out=within)
        squared = within
    return np.sqrt(squared)


def compute_errors(
    solution: Solution, phase: NDArray[np.integer], truth: NDArray[np.floating], problem: Problem
) -> dict[str, NDArray[np.floating]]:
    """Compute the errors of predictions.

    Args:
        solution: Predictions for N microstructures.
        phase: (N, nx, ny, nz).
        truth: Strain (N, strains, nx, ny, nz).
        problem: The problem that was solved.

    Returns:
        Errors in %, each (N,). ``mase``, ``rmse`` and ``max_error`` are those of ε_xx relative to its mean;
        ``hot_spot`` is the relative error of its largest value. A prediction of all components also has ``energy``,
        √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), and ``mean_stress``, ‖⟨Δσ⟩‖/‖⟨σ⟩‖, which is the error of the effective stiffness applied
        to the load.
    """
    physics, voxels = problem.physics, math.prod(phase.shape[1:])
    weights = 1 / physics.tensor_factors  # a tensor shear counts twice in a norm
    sums, peaks, energies, stresses = [], [], [], []
    for x in np.array_split(np.arange(phase.shape[1]), min(phase.shape[1], -(-phase.size // SLAB))):
        slab = slice(x[0], x[-1] + 1)
        strain, exact = (f[:, :, slab].astype(np.float64) for f in (solution.strain, truth))
        fields = [f[:, 0].reshape(len(f), -1) for f in (strain, exact)]
        difference = np.abs(fields[0] - fields[1])
        sums.append([fields[1].sum(axis=1), difference.sum(axis=1), np.square(difference).sum(axis=1)])
        peaks.append([np.abs(f).max(axis=1) for f in (difference, *fields)])
        if solution.components == physics.components:
            pair = strain - exact, exact
            stress = [problem.compute_stress(phase[:, slab], f) for f in pair]
            energies.append([problem.compute_work(s, f) for s, f in zip(stress, pair, strict=True)])
            stresses.append([s.sum(axis=(2, 3, 4)) for s in stress])
    mean, absolute, squares = np.sum(sums, axis=0) / voxels
    largest, predicted, exact = np.max(peaks, axis=0)
    errors = {"mase": absolute / np.abs(mean), "rmse": np.sqrt(squares) / np.abs(mean)}
    errors |= {"max_error": largest / np.abs(mean), "hot_spot": np.abs(predicted / exact - 1)}
    if energies:
        wrong, whole = np.sum(energies, axis=0)
        errors["energy"] = np.sqrt(wrong / whole)
        wrong, whole = (np.square(s) @ weights for s in np.sum(stresses, axis=0))
        errors["mean_stress"] = np.sqrt(wrong / whole)
    return {name: 100 * error for name, error in errors.items()}
