"""Predictions against the truth: errors of each microstructure after each pass, and the fields of a few."""

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
from lspipe.models.errors import shear, square
from lspipe.models.files import Model
from lspipe.models.localization import at_once
from lspipe.models.operations import operations
from lspipe.progress import progress
from lspipe.store import open_dataset
from lspipe.store.shards import open_pair
from lspipe.tables import final

SAMPLES = 8  # the first samples, whose fields every predictor leaves beside its worst and its median
KEPT = 2**22  # voxels that these have at most, where they are more than one
SLAB = 2**14  # voxels whose errors are measured at a time


def evaluate(model: Model, microstructures: Path, fields: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Errors of a model over a test set, and the fields of some microstructures.

    The frame has a row for each microstructure (``sample``) and number of ``passes``: the errors of ``errors_of``, the
    ``seconds`` and floating-point ``operations`` of the prediction, and where the model gives them ``green``
    (applications of K⁰⁻¹ that make the field), ``residual`` and ``bound``; and what the microstructure is:
    ``volume_fraction`` of phase 1 and, if it was generated, ``grain``, the geometric mean of its grain sizes in voxels.
    Its attributes hold the number of ``parameters``, the ``passes`` that the model makes by itself, the ``device``, and
    ``gpu_gb``, what it took of a card's memory. ValueError where model and fields do not belong together.

    The examples are what figures show: the ``first`` microstructures of the set, and those with the ``worst`` and the
    ``median`` error of this model, which the attributes name. The variables are ``phase``, its ``distance`` to another,
    ``truth``, and the ``iterates`` of ε_xx, with their ``mase``, up to the passes that the model makes by itself.
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
    # The solver takes a cell a thread; networks share a cell among the threads.
    threads = torch.get_num_threads() if isinstance(model, ConjugateGradients) and model.device == "cpu" else 1
    size = max(threads, at_once(model.device, grid))
    first = min(count, SAMPLES, max(1, KEPT // voxels))
    drawn = [passes for passes in model.counts if passes <= model.passes]
    kept: dict[int, list[NDArray[np.float32]]] = {}

    def predict(samples: slice, keep: Iterable[int]) -> Iterator[tuple[int, float, NDArray[np.integer], Solution]]:
        """Passes, seconds, phases and prediction; the iterates of samples to ``keep`` are kept."""
        phase = cells.phase[samples].values
        for passes, seconds, solution in model.iterates(phase, problem):
            for k in keep if passes in drawn else ():
                kept.setdefault(k, []).append(solution.strain[k - samples.start, 0].astype(np.float32))
            yield passes, seconds, phase, solution
            del solution  # the next one is computed without it in memory

    list(model.iterates(cells.phase[:1, :8, :8, :8].values, problem))  # to time no compilation
    cost = operations(model, (grid[0], grid[1], grid[2]), problem)
    parts = []
    with progress(f"evaluate on {fields}", count, "sample") as bar:
        for start in range(0, count, size):
            batch = slice(start, min(start + size, count))
            truth = data.strain[batch].values
            for passes, seconds, phase, solution in predict(batch, range(start, min(batch.stop, first))):
                columns: dict[str, Any] = {"sample": np.arange(start, batch.stop), "passes": passes}
                columns |= errors_of(solution, phase, truth, problem)
                columns |= {"seconds": seconds / len(phase), "operations": cost[passes]}
                if solution.bound is not None:
                    columns |= {"green": passes, "residual": solution.residual, "bound": solution.bound}
                parts.append(pd.DataFrame(columns))
                del solution
            bar.update(len(phase))
    errors = pd.concat(parts, ignore_index=True)
    sample = errors["sample"].to_numpy()
    errors["volume_fraction"] = cells.volume_fraction[:, 1].values[sample]
    if "design" in cells:
        errors["grain"] = np.prod(cells.design[:, :3].values, axis=1)[sample] ** (1 / 3)
    errors.attrs |= {"parameters": model.parameters, "passes": model.passes}
    errors.attrs |= {"device": device_name(model.device), "gpu_gb": peak(model.device)}

    ranked = final(errors).sort_values("mase")["sample"].tolist()
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
            "distance": (("example", "x", "y", "z"), np.stack([to_another_phase(p) for p in phase])),
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


def to_another_phase(phase: NDArray[np.integer]) -> NDArray[np.float32]:
    """Distance of each voxel (nx, ny, nz), in voxels, to the nearest one of another phase in the periodic cell; where
    there is none, infinite."""
    squared = np.full(phase.shape, np.inf, np.float32)
    for axis, n in enumerate(phase.shape):
        within = squared.copy()  # now along this axis too
        for j in range(1, n // 2 + 1):
            if j**2 >= within.max():
                break
            for shift in (j, -j):
                same = np.roll(phase, shift, axis) == phase
                np.minimum(within, np.where(same, np.roll(squared, shift, axis), 0) + np.float32(j**2), out=within)
        squared = within
    return np.sqrt(squared)


def errors_of(
    solution: Solution, phase: NDArray[np.integer], truth: NDArray[np.floating], problem: Problem
) -> dict[str, NDArray[np.floating]]:
    """Errors in %, each (N,), of predictions for cells (N, nx, ny, nz) of strain ``truth`` (N, strains, nx, ny, nz).

    Of ε_xx, relative to ε̄_xx: ``mase``, ``rmse``, ``max_error``; of its largest value in the cell: ``hot_spot``. Where
    there are all components: ``energy``, √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), and ``mean_stress``, ‖⟨Δσ⟩‖/‖⟨σ⟩‖, which is the error of
    C_eff:Ē.
    """
    physics, voxels = problem.physics, math.prod(phase.shape[1:])
    sums, peaks, energies, stresses = [], [], [], []
    for x in np.array_split(np.arange(phase.shape[1]), min(phase.shape[1], -(-phase.size // SLAB))):
        slab = slice(x[0], x[-1] + 1)
        field, whole = (torch.from_numpy(f[:, :, slab].astype(np.float64)) for f in (solution.strain, truth))
        found, exact = field[:, 0].flatten(1), whole[:, 0].flatten(1)
        difference = (found - exact).abs()
        sums.append(torch.stack([exact.sum(dim=1), difference.sum(dim=1), difference.square().sum(dim=1)]))
        peaks.append(torch.stack([f.abs().amax(dim=1) for f in (difference, found, exact)]))
        if solution.components == physics.components:
            cells = torch.from_numpy(phase[:, slab].astype(np.int64))
            pairs = [(f, problem.compute_stress(cells, f)) for f in (field - whole, whole)]
            energies.append(torch.stack([(f * s / shear(physics, f)).flatten(1).sum(dim=1) for f, s in pairs]))
            stresses.append(torch.stack([s.sum(dim=(2, 3, 4), keepdim=True) for _, s in pairs]))
    mean, absolute, squares = torch.stack(sums).sum(dim=0) / voxels
    largest, found, exact = torch.stack(peaks).amax(dim=0)
    errors = {"mase": absolute / mean.abs(), "rmse": squares.sqrt() / mean.abs(), "max_error": largest / mean.abs()}
    errors |= {"hot_spot": (found / exact - 1).abs()}
    if energies:
        off, whole = torch.stack(energies).sum(dim=0)
        errors["energy"] = (off / whole).sqrt()
        off, whole = (square(s, physics).flatten() for s in torch.stack(stresses).sum(dim=0))
        errors["mean_stress"] = (off / whole).sqrt()
    return {name: 100 * error.numpy() for name, error in errors.items()}
