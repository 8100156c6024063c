"""Compare predictions with the ground truth: errors of each microstructure, and fields of a few for figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.errors import compute_errors
from lspipe.load_path import explain_unreached
from lspipe.loader import find_reached, read_domain
from lspipe.machine import device_name, peak
from lspipe.measure import choose_shown, is_thermal
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.domain import Domain, get_path, have_same_strain
from lspipe.models.files import Model
from lspipe.models.localization import LocalizationModel, at_once
from lspipe.models.operations import operations
from lspipe.models.path_baseline import PathBaseline
from lspipe.models.rln_cg import RLNCGModel
from lspipe.progress import progress
from lspipe.statistics import select_final
from lspipe.store import open_dataset
from lspipe.store.cells import find_materials, read_cells
from lspipe.store.shards import open_pair

SAMPLES = 8  # number of microstructures, from the first of the test set on, whose fields are kept
KEPT = 2**22  # Largest number of their voxels. One microstructure is always kept.
GRAIN = ("grain_x", "grain_y", "grain_z")  # parameters of microstructures: grain sizes in voxels


def evaluate(
    model: Model | PathBaseline,
    microstructures: Path,
    fields: Path,
    step: int | None = None,
    allow_empty: bool = False,
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Evaluate a model on a test set.

    Args:
        model: The model. ``ConjugateGradients`` becomes ``PathBaseline`` on a load path.
        microstructures: Store of the microstructures.
        fields: Store of their ground truth.
        step: The step of a load path whose fields are predicted, one of those that the store has kept. Microstructures
            that have not reached it are left out with a warning.
        allow_empty: Whether to warn and return empty results, whose attribute ``unreached`` says why, instead of
            raising an error where no microstructure has reached the step, or the network has learned other steps of
            the path alone.

    Returns:
        The errors and the examples.

        The errors are a table with a row for each microstructure (``sample``) and number of ``passes``. Its columns are
        those of ``compute_errors``; the ``seconds`` and floating-point ``operations`` of the prediction; ``green``, the
        number of Green applications without those for residual and bound, ``residual``, ``bound`` and ``mase_90`` of
        ``Solution`` where the model gives them; ``volume_fraction`` of phase 1 where there are two or more; and
        ``grain``, the geometric mean of the grain sizes in voxels, where these are parameters of the microstructures.
        Its attributes are the number of ``parameters``, the default number of ``passes``, ``training_seconds``, None
        where these are not known, the ``device``, and ``gpu_gb``, the peak memory in GB on a GPU; on a load path also
        the names of the ``stages`` of the baseline.

        The examples are the fields that figures show: those of the ``first`` microstructures, of the ones with the
        ``worst`` and the ``median`` error, and of the ``hardest`` one, whose true strain has the largest standard
        deviation. Attributes name them. The variables are the number ``phase`` of the
        material; ``crystal``, the number of the grain, of polycrystals; their ``distance`` to another phase or grain;
        ``truth`` and the ``iterates`` of one ``component`` with their ``mase``, up to the default number of passes; and
        the ``scale`` that figures divide them by.

    Raises:
        ValueError: Model, microstructures and fields do not belong together, or a store is incomplete, or no
            microstructure has reached the step, or the network has not learned it.
    """
    pair = open_pair(microstructures, fields)
    for store in pair:
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    problem = read_domain(*pair, step)
    strain = data.strain if step is None else data.strain.sel(kept=step)
    reached = find_reached(pair[1], step)
    if path := get_path(problem):
        if isinstance(model, RLNCGModel):
            raise ValueError(
                f"{fields}: holds a load path; rln-cg predicts linear problems only; use fln, rln-t or rln"
            )
        model = PathBaseline(path, problem.step) if isinstance(model, ConjugateGradients) else model
    model.check_labels(pair[0].attributes.get("labels"))
    message = explain_unlearned(fields, model, problem) if reached.size else explain_unreached(fields, f"step {step}")
    if message and not allow_empty:
        raise ValueError(message)
    if message:
        warnings.warn(message, stacklevel=2)
        return make_empty(model, message)
    if lost := sorted({*range(len(cells.phase))} - {*reached.tolist()}):
        warnings.warn(f"{fields}: left out samples {lost}, which have not reached step {step}", stacklevel=2)
    shown = choose_shown(problem)
    grid = cells.phase.shape[1:]
    # The solver solves one microstructure on each thread; a network uses all threads for one.
    is_solver = isinstance(model, ConjugateGradients | PathBaseline)
    threads = torch.get_num_threads() if is_solver and model.device == "cpu" else 1
    size = max(threads, at_once(model.device, grid))
    first = reached[: min(SAMPLES, max(1, KEPT // math.prod(grid)))].tolist()
    drawn = [passes for passes in model.counts if passes <= model.passes]
    kept: dict[int, list[NDArray[np.float32]]] = {}

    def predict(
        samples: Sequence[int], phase: NDArray[np.integer], joined: Problem, keep: Sequence[int]
    ) -> Iterator[tuple[int, float, Solution]]:
        """Yield passes, seconds and prediction of some samples, and keep the iterates of those in ``keep``."""
        for passes, seconds, solution in model.iterates(phase, joined):
            for i, k in enumerate(samples if passes in drawn else ()):
                if k in keep:
                    kept.setdefault(k, []).append(solution.strain[i, shown].astype(np.float32))
            yield passes, seconds, solution
            del solution  # frees its memory before the next one is computed

    # Compile before the clock runs. A network may need the whole cell; the solver compiles as well on a corner.
    edge = 8 if is_solver else max(grid)
    phase, joined = read_cells(pair[0], slice(0, 1), problem)
    list(model.iterates(phase[:, :edge, :edge, :edge], joined))
    cost = operations(model, (grid[0], grid[1], grid[2]), joined)
    parts, spreads = [], []
    with progress(f"evaluate on {fields}", len(reached), "sample") as bar:
        for start in range(0, len(reached), size):
            samples = reached[start : start + size].tolist()
            batch, within = slice(samples[0], samples[-1] + 1), np.array(samples) - samples[0]
            phase, joined = read_cells(pair[0], batch, problem)
            phase, truth = phase[within], strain[batch].values[within]
            spread = np.nanstd(truth[:, shown], axis=(1, 2, 3)) / abs(find_scales(truth[:, shown], problem))
            spreads += spread.tolist()
            for passes, seconds, solution in predict(samples, phase, joined, first):
                columns: dict[str, Any] = {"sample": samples, "passes": passes}
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
    if not isinstance(model, PathBaseline):
        # Other work on the machine only adds time, and fewer passes take no longer than more: the least counts.
        errors["seconds"] = errors[::-1].groupby("sample")["seconds"].cummin()  # aligned by its index
    sample = errors["sample"].to_numpy()
    if (fractions := cells.volume_fraction.values).shape[1] > 1:
        errors["volume_fraction"] = fractions[sample, 1]
    if {*GRAIN} <= {*pair[0].attributes.get("parameters", ())}:
        errors["grain"] = cells.design.sel(parameter=[*GRAIN]).prod("parameter").values[sample] ** (1 / 3)
    errors.attrs |= describe(model)
    if isinstance(model, PathBaseline):
        errors.attrs["stages"] = model.names

    ranked = select_final(errors).sort_values("mase")["sample"].tolist()
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2], "hardest": int(reached[np.nanargmax(spreads)])}
    for k in {*chosen.values()} - kept.keys():
        one = read_cells(pair[0], slice(k, k + 1), problem)
        any(passes == drawn[-1] for passes, *_ in predict([k], *one, [k]))
    named = chosen | {"first": first[-1] + 1, "passes": model.passes, "spacing": pair[0].spacing}
    return errors, build_examples(kept, errors, cells, strain[:, shown], problem, drawn).assign_attrs(named)


def build_examples(
    iterates: dict[int, list[NDArray[np.float32]]],
    errors: pd.DataFrame,
    cells: xr.Dataset,
    strain: xr.DataArray,
    problem: Problem,
    passes: list[int],
) -> xr.Dataset:
    """Return the examples of ``evaluate``, but for the attributes that name them.

    Args:
        iterates: The shown component of the strain (nx, ny, nz) after each of ``passes``, by sample. Each is removed
            when it is used, which frees memory.
        errors: The errors of all samples.
        cells: The microstructures.
        strain: The shown component of the true strain, (sample, x, y, z).
        problem: The problem that was solved.
        passes: The numbers of passes.
    """
    samples, shown = sorted(iterates), choose_shown(problem)
    some, truth = cells.isel(sample=samples), strain[samples].values
    arrays = {name: some[name].values for name in ("phase", "material") if name in some}
    voxels = ("example", "x", "y", "z")
    by_pass = errors.pivot(index="sample", columns="passes", values="mase").loc[samples, passes]
    symbol = f"{problem.physics.symbol}$_{{{problem.physics.components[shown]}}}$"
    examples = xr.Dataset(
        {
            "sample": ("example", samples),
            "phase": (voxels, find_materials(arrays)),
            "distance": (voxels, np.stack([compute_distances(p) for p in arrays["phase"]])),
            "truth": (voxels, truth),
            "iterates": (("example", "pass", "x", "y", "z"), np.stack([iterates.pop(k) for k in samples])),
            "scale": ("example", find_scales(truth, problem)),
            "mase": (("example", "pass"), by_pass.to_numpy()),
        },
        coords={"pass": passes},
        attrs={
            "component": problem.physics.components[shown],
            "symbol": symbol,
            "mean": f"⟨|{symbol}|⟩" if is_thermal(problem) else f"⟨{symbol}⟩",
        },
    )
    if "material" in arrays:
        examples["crystal"] = voxels, arrays["phase"]
    return examples


def explain_unlearned(fields: Path, model: Model | PathBaseline, problem: Domain) -> str:
    """Return the message that a network has learned only other steps of this load path, or an empty text."""
    if not isinstance(model, LocalizationModel) or not problem.path:
        return ""
    learned = [domain for domain in model.domains if domain.path == problem.path]
    if not learned or any(have_same_strain(problem, domain) for domain in learned):
        return ""
    steps = ", ".join(str(domain.step) for domain in learned)
    return (
        f"{fields}: the network has not learned step {problem.step} of the load path, but {steps}; train it with "
        "microstructures that reach the step"
    )


def make_empty(model: Model | PathBaseline, message: str) -> tuple[pd.DataFrame, xr.Dataset]:
    """Return the errors and the examples of no microstructure, with the reason as the attribute ``unreached``."""
    errors = pd.DataFrame(columns=["sample", "passes", "mase", "seconds", "operations"], dtype=float)
    errors.attrs = {"unreached": message, **describe(model)}
    nothing = ("example", np.empty(0, np.float32))
    return errors, xr.Dataset({"truth": nothing, "iterates": nothing}, attrs={"unreached": message})


def describe(model: Model | PathBaseline) -> dict[str, Any]:
    """Return the attributes of the errors of a model."""
    seconds = model.training_seconds if math.isfinite(model.training_seconds) else None
    attributes = {"parameters": model.parameters, "passes": model.passes, "training_seconds": seconds}
    return attributes | {"device": device_name(model.device), "gpu_gb": peak(model.device)}


def find_scales(truth: NDArray[np.floating], problem: Problem) -> NDArray[np.floating]:
    """Return the scale (N,) by which figures divide the shown component (N, nx, ny, nz) of the strain.

    It is the macroscopic value where that is prescribed, or the mean over the voxels without voids. Where temperature
    alone drives the fields, it is the mean of the absolute values.
    """
    if E := problem.strain[choose_shown(problem)]:
        return np.full(len(truth), E)
    return np.nanmean(np.abs(truth) if is_thermal(problem) else truth, axis=(1, 2, 3), dtype=np.float64)


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
