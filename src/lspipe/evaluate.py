"""Compare predictions with the ground truth: errors of each microstructure, and fields of a few for figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.physics import ELASTICITY, find_von_mises
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.loader import read_domain
from lspipe.machine import device_name, peak
from lspipe.measure import choose_shown, count_measured, is_thermal, prescribed_size
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.domain import get_path
from lspipe.models.files import Model
from lspipe.models.localization import at_once
from lspipe.models.operations import operations
from lspipe.models.path_baseline import PathBaseline
from lspipe.models.rln_cg import RLNCGModel
from lspipe.progress import progress
from lspipe.statistics import select_final
from lspipe.store import open_dataset
from lspipe.store.cells import find_materials, read_cells
from lspipe.store.shards import open_pair

SAMPLES = 8  # first microstructures of the test set whose fields are kept
KEPT = 2**22  # most voxels of these; one microstructure is always kept
GRAIN = ("grain_x", "grain_y", "grain_z")  # parameters of microstructures: grain sizes in voxels
CARRIES = 1e-8  # least work of a cell, relative to that of the uniform strain, that is not rounding
SLAB = 2**13  # voxels whose errors are computed at a time


def evaluate(
    model: Model | PathBaseline, microstructures: Path, fields: Path, step: int | None = None
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Evaluate a model on a test set.

    Args:
        model: The model. ``ConjugateGradients`` becomes ``PathBaseline`` on a load path.
        microstructures: Store of the microstructures.
        fields: Store of their ground truth.
        step: The step of a load path whose fields are predicted, one of those that the store has kept.

    Returns:
        The errors and the examples.

        The errors are a table with a row for each microstructure (``sample``) and number of ``passes``. Its columns are
        those of ``compute_errors``; the ``seconds`` and floating-point ``operations`` of the prediction; ``green``, the
        number of Green applications, ``residual``, ``bound`` and ``mase_90`` of ``Solution`` where the model gives
        them; ``volume_fraction`` of phase 1 where there are two or more; and ``grain``, the geometric mean of the grain
        sizes in voxels, where these are parameters of the microstructures. Its attributes are the number of
        ``parameters``, the default number of ``passes``, ``training_seconds``, None where these are not known, the
        ``device``, and ``gpu_gb``, the peak memory in GB on a GPU; on a load path also the names of the ``stages`` of
        the baseline.

        The examples are the fields that figures show: those of the ``first`` microstructures, of the ones with the
        ``worst`` and the ``median`` error, and of the ``hardest`` one, whose true strain has the largest standard
        deviation. Attributes name them. The variables are the number ``phase`` of the
        material; ``crystal``, the number of the grain, of polycrystals; their ``distance`` to another phase or grain;
        ``truth`` and the ``iterates`` of one ``component`` with their ``mase``, up to the default number of passes; and
        the ``scale`` that figures divide them by.

    Raises:
        ValueError: Model, microstructures and fields do not belong together, or a store is incomplete.
    """
    pair = open_pair(microstructures, fields)
    for store in pair:
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    problem = read_domain(*pair, step)
    strain = data.strain if step is None else data.strain.sel(kept=step)
    physics = problem.physics
    if path := get_path(problem):
        if isinstance(model, RLNCGModel):
            raise ValueError(f"{fields}: holds a load path; rln-cg predicts linear problems alone")
        model = PathBaseline(path, problem.step) if isinstance(model, ConjugateGradients) else model
    model.check_labels(pair[0].attributes.get("labels"))
    shown = choose_shown(problem)
    count, *grid = cells.phase.shape
    # The solver solves one microstructure on each thread; a network uses all threads for one.
    is_solver = isinstance(model, ConjugateGradients | PathBaseline)
    threads = torch.get_num_threads() if is_solver and model.device == "cpu" else 1
    size = max(threads, at_once(model.device, grid))
    first = min(count, SAMPLES, max(1, KEPT // math.prod(grid)))
    drawn = [passes for passes in model.counts if passes <= model.passes]
    kept: dict[int, list[NDArray[np.float32]]] = {}

    def predict(
        samples: slice, phase: NDArray[np.integer], joined: Problem, keep: Iterable[int]
    ) -> Iterator[tuple[int, float, Solution]]:
        """Yield passes, seconds and prediction of some samples, and keep the iterates of those in ``keep``."""
        for passes, seconds, solution in model.iterates(phase, joined):
            for k in keep if passes in drawn else ():
                kept.setdefault(k, []).append(solution.strain[k - samples.start, shown].astype(np.float32))
            yield passes, seconds, solution
            del solution  # frees its memory before the next one is computed

    # Compile before the clock runs. A network may need the whole cell; the solver compiles as well on a corner.
    edge = 8 if is_solver else max(grid)
    phase, joined = read_cells(pair[0], slice(0, 1), problem)
    list(model.iterates(phase[:, :edge, :edge, :edge], joined))
    cost = operations(model, (grid[0], grid[1], grid[2]), joined)
    parts, spreads, lost = [], [], []
    with progress(f"evaluate on {fields}", count, "sample") as bar:
        for start in range(0, count, size):
            batch = slice(start, min(start + size, count))
            phase, joined = read_cells(pair[0], batch, problem)
            truth = strain[batch].values
            lost += (start + np.flatnonzero(np.isnan(truth[:, shown]).all(axis=(1, 2, 3)))).tolist()
            spreads += (
                np.nanstd(truth[:, shown], axis=(1, 2, 3)) / abs(find_scales(truth[:, shown], problem))
            ).tolist()
            for passes, seconds, solution in predict(batch, phase, joined, range(start, min(batch.stop, first))):
                columns: dict[str, Any] = {"sample": np.arange(start, batch.stop), "passes": passes}
                columns |= compute_errors(solution, phase, truth, joined)
                columns |= {"seconds": seconds / len(phase), "operations": cost[passes]}
                known = {name: getattr(solution, name) for name in ("residual", "bound", "mase_90")}
                columns |= {name: values for name, values in known.items() if values is not None}
                if solution.green is not None:
                    columns["green"] = solution.green if path else passes
                parts.append(pd.DataFrame(columns))
                del solution
            bar.update(len(phase))
    errors = pd.concat(parts, ignore_index=True)
    if lost:  # on the way of a load path
        if len(lost) == count:
            raise ValueError(f"{fields}: no microstructure has reached step {step}; make the increments smaller")
        warnings.warn(f"{fields}: left out samples {lost}, which have not reached step {step}", stacklevel=2)
        errors = errors[~errors["sample"].isin(lost)].reset_index(drop=True)
        kept = {k: fields_of_one for k, fields_of_one in kept.items() if k not in lost}
    if not isinstance(model, PathBaseline):
        # Other work on the machine only adds time, and fewer passes take no longer than more: the least counts.
        errors["seconds"] = errors[::-1].groupby("sample")["seconds"].cummin()  # aligned by its index
    sample = errors["sample"].to_numpy()
    if (fractions := cells.volume_fraction.values).shape[1] > 1:
        errors["volume_fraction"] = fractions[sample, 1]
    if {*GRAIN} <= {*pair[0].attributes.get("parameters", ())}:
        errors["grain"] = cells.design.sel(parameter=[*GRAIN]).prod("parameter").values[sample] ** (1 / 3)
    errors.attrs |= {"parameters": model.parameters, "passes": model.passes}
    errors.attrs["training_seconds"] = model.training_seconds if math.isfinite(model.training_seconds) else None
    errors.attrs |= {"device": device_name(model.device), "gpu_gb": peak(model.device)}
    if isinstance(model, PathBaseline):
        errors.attrs["stages"] = model.names

    ranked = select_final(errors).sort_values("mase")["sample"].tolist()
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2], "hardest": int(np.nanargmax(spreads))}
    for k in {*chosen.values()} - kept.keys():
        one = slice(k, k + 1)
        any(passes == drawn[-1] for passes, *_ in predict(one, *read_cells(pair[0], one, problem), [k]))
    samples = sorted(kept)
    some = cells.isel(sample=samples)
    arrays = {name: some[name].values for name in ("phase", "material") if name in some}
    voxels = ("example", "x", "y", "z")
    truth = strain[samples, shown].values
    by_pass = errors.pivot(index="sample", columns="passes", values="mase").loc[samples, drawn]
    examples = xr.Dataset(
        {
            "sample": ("example", samples),
            "phase": (voxels, find_materials(arrays)),
            "distance": (voxels, np.stack([compute_distances(p) for p in arrays["phase"]])),
            "truth": (voxels, truth),
            "iterates": (("example", "pass", "x", "y", "z"), np.stack([kept.pop(k) for k in samples])),
            "scale": ("example", find_scales(truth, problem)),
            "mase": (("example", "pass"), by_pass.to_numpy()),
        },
        coords={"pass": drawn},
        attrs={
            **chosen,
            "first": sum(k < first for k in samples),
            "passes": model.passes,
            "component": physics.components[shown],
            "symbol": (symbol := f"{physics.symbol}$_{{{physics.components[shown]}}}$"),
            "mean": f"⟨|{symbol}|⟩" if is_thermal(problem) else f"⟨{symbol}⟩",
            "spacing": pair[0].spacing,
        },
    )
    if "material" in arrays:
        examples["crystal"] = voxels, arrays["phase"]
    return errors, examples


def find_scales(truth: NDArray[np.floating], problem: Problem) -> NDArray[np.floating]:
    """Return what figures divide the shown component (N, nx, ny, nz) of the strain by, (N,).

    It is the macroscopic value where that is prescribed, or the mean over the voxels without voids. Where temperature
    alone drives the fields, it is the mean of the absolute values.
    """
    if E := problem.strain[choose_shown(problem)]:
        return np.full(len(truth), E)
    return np.nanmean(np.abs(truth) if is_thermal(problem) else truth, axis=(1, 2, 3), dtype=np.float64)


def find_uniform_work(phase: NDArray[np.integer], problem: Problem) -> NDArray[np.floating]:
    """Return the sum of E:C:E over the voxels, (N,), for the prescribed strain; 0 without voids or if one is free."""
    E, _, free = problem.load
    if free.any() or problem.stiffnesses.any(axis=(1, 2)).all():
        return np.zeros(len(phase))
    return (problem.stiffnesses @ E @ E)[phase].sum(axis=(1, 2, 3))


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
    """Compute the errors of predictions over the voxels that are not voids.

    Args:
        solution: Predictions for N microstructures.
        phase: (N, nx, ny, nz).
        truth: Strain (N, strains, nx, ny, nz).
        problem: The problem that was solved.

    Returns:
        Errors in %, each (N,), with the norm ‖ε‖ of the components that ``count_measured`` states. ``mase`` is
        ⟨‖Δε‖⟩/‖⟨ε⟩‖, ``rmse`` √⟨‖Δε‖²⟩/‖⟨ε⟩‖ and ``max_error`` max ‖Δε‖/‖⟨ε⟩‖; ``hot_spot`` is the relative error of
        max ‖ε‖. Where prediction and truth have all components, there are also ``energy``, √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), and
        ``mean_stress``, ‖⟨C:Δε⟩‖/‖⟨σ⟩‖, which is the error of the effective stiffness applied to the load. ⟨ε⟩ is the
        prescribed strain where there is one. Where temperature alone drives the fields, errors are relative to ⟨‖ε‖⟩
        and ⟨‖σ‖⟩. Of elastic materials there is also ``von_mises``, ⟨|Δσ_vM|⟩/⟨σ_vM⟩ for the von Mises stress. Errors
        of energy and stress are NaN for a cell whose solid does not carry the prescribed strain. There are none at a
        step of a load path, where the strain alone does not give the stress.
        Where strain alone drives the fields, ``effective`` is |E:⟨C:Δε⟩|/E:⟨σ⟩ for the prescribed strain E, the error
        of the effective stiffness along the load.
    """
    weights = 1 / problem.physics.tensor_factors  # a tensor shear counts twice in a norm
    measured = count_measured(problem, len(solution.components))
    is_solid = np.any(problem.stiffnesses, axis=(1, 2))
    # Published strain may lack components. At a step of a load path, the strain alone does not give the stress.
    knows_all = solution.components == problem.physics.components and not np.isnan(truth[:, -1]).all()
    knows_stress = knows_all and not get_path(problem)

    def norm(field: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the norm (N, …) of a tensor field (N, components, …)."""
        return np.sqrt(np.einsum("nc...,c->n...", np.square(field), weights[: field.shape[1]]))

    def total(field: NDArray[np.floating]) -> NDArray[np.floating]:
        return field.sum(axis=(-3, -2, -1))

    parts: list[dict[str, NDArray[np.floating]]] = []
    peaks = []
    for x in np.array_split(np.arange(phase.shape[1]), min(phase.shape[1], -(-phase.size // SLAB))):
        slab = slice(x[0], x[-1] + 1)
        cut = phase[:, slab]
        strain, exact = (problem.fill_voids(cut, f[:, :, slab].astype(np.float64)) for f in (solution.strain, truth))
        off, *sizes = (norm(f[:, :measured]) for f in (strain - exact[:, : strain.shape[1]], strain, exact))
        part = {"voxels": total(is_solid[cut]), "mean": total(exact[:, :measured]), "size": total(sizes[1])}
        part |= {"off": total(off), "off squared": total(off**2)}
        peaks.append([f.max(axis=(1, 2, 3)) for f in (off, *sizes)])
        if knows_stress:
            pair = strain - exact, exact
            linear = [problem.apply_stiffness(cut, f) for f in pair]
            works = [problem.compute_work(s, f) for s, f in zip(linear, pair, strict=True)]
            stress = problem.compute_stress(cut, exact) if problem.temperature else linear[1]
            part |= {"work off": works[0], "work": works[1]}
            part |= {"stress off": total(linear[0]), "stress": total(stress), "stress size": total(norm(stress))}
            if problem.physics is ELASTICITY:
                sizes = [find_von_mises(s.swapaxes(0, 1)) for s in (stress + linear[0], stress)]
                part |= {"von Mises off": total(abs(sizes[0] - sizes[1])), "von Mises": total(sizes[1])}
        parts.append(part)
    sums = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    largest, predicted, exact = np.max(peaks, axis=0)
    scale: Any = (sums["size"] if is_thermal(problem) else norm(sums["mean"])) / sums["voxels"]
    scale = prescribed_size(problem, measured) or scale
    errors = {
        "mase": sums["off"] / sums["voxels"] / scale,
        "rmse": np.sqrt(sums["off squared"] / sums["voxels"]) / scale,
    }
    errors |= {"max_error": largest / scale, "hot_spot": np.abs(predicted / exact - 1)}
    if "work" in sums:
        carries = sums["work"] > CARRIES * find_uniform_work(phase, problem)
        errors["energy"] = np.where(carries, np.sqrt(sums["work off"] / sums["work"]), np.nan)
        stress = sums["stress size"] if is_thermal(problem) else norm(sums["stress"])
        errors["mean_stress"] = np.where(carries, norm(sums["stress off"]) / stress, np.nan)
        if "von Mises" in sums:
            errors["von_mises"] = np.where(carries, sums["von Mises off"] / sums["von Mises"], np.nan)
        E, S, _ = problem.load
        if E.any() and not S.any() and not problem.temperature:
            errors["effective"] = np.where(carries, np.abs(sums["stress off"] @ E / (sums["stress"] @ E)), np.nan)
    return {name: 100 * error for name, error in errors.items()}
