"""Predictions against the truth: errors of each microstructure after each pass, fields of a few, a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.material import Isotropic, stiffnesses
from lspipe.cell.solver import Solution
from lspipe.models.errors import energy, mase, square, stress
from lspipe.models.files import Model
from lspipe.progress import progress
from lspipe.store import open_dataset, open_pair

BATCH = 16  # each is timed: many say more than one
SAMPLES = 8  # whose fields every predictor leaves, beside its worst and its median
SHOWN = (0, 1, 5, 10)  # passes that the table has of a solver


def evaluate(model: Model, microstructures: Path, fields: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Errors of a model over a test set, and the fields of some microstructures.

    The frame has a row for each microstructure (``sample``) and number of ``passes``: the errors of ``errors_of``, the
    ``seconds`` of the prediction, and where the model gives them ``green`` (applications of K⁰⁻¹ that make the field),
    ``residual`` and ``bound``. Its attributes hold the number of ``parameters`` and the ``passes`` that the model makes
    by itself. ValueError where model and fields do not belong together.

    The examples are the worst and the median microstructure of this model, and the first ones of the set: ``phase``,
    ``truth``, and the ``iterates`` of ε_xx with their ``mase``.
    """
    for store in open_pair(microstructures, fields):
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    model = model.under(data.attrs["scheme"])
    materials = [Isotropic(**m) for m in data.attrs["materials"]]
    strain = data.attrs["macroscopic_strain"]
    if strain[0] == 0:
        raise ValueError(f"{fields}: macroscopic_strain xx = 0: errors are relative to it")

    def predict(phase: NDArray[np.integer], passes: int) -> Solution:
        return model.predict(phase, materials, strain, passes=passes)

    predict(cells.phase[:1].values, model.passes)  # what only the first call pays is not timed
    parts = []
    with progress(f"evaluate on {fields}", cells.sizes["sample"], "sample") as bar:
        for first in range(0, cells.sizes["sample"], BATCH):
            batch = slice(first, first + BATCH)
            phase, truth = cells.phase[batch].values, data.strain[batch].values
            for passes in model.counts:
                began = time.perf_counter()
                solution = predict(phase, passes)
                seconds = (time.perf_counter() - began) / len(phase)
                columns: dict[str, Any] = {"sample": np.arange(first, first + len(phase)), "passes": passes}
                columns |= errors_of(solution, phase, truth, stiffnesses(materials)) | {"seconds": seconds}
                if solution.bound is not None:
                    columns |= {"green": passes, "residual": solution.residual, "bound": solution.bound}
                parts.append(pd.DataFrame(columns))
            bar.update(len(phase))
    errors = pd.concat(parts, ignore_index=True)
    errors.attrs |= {"parameters": model.parameters, "passes": model.passes}

    ranked = final(errors).sort_values("mase")["sample"].to_numpy()
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    chosen |= {f"sample {k}": k for k in range(min(SAMPLES, len(ranked)))}
    samples = [int(k) for k in chosen.values()]
    phase, truth = cells.phase[samples].values, data.strain[samples].sel(component=["xx"]).values
    iterates = [xx(predict(phase, passes)) for passes in model.counts]
    by_pass = [mase(torch.from_numpy(i), torch.from_numpy(truth)) for i in iterates]
    examples = xr.Dataset(
        {
            "sample": ("example", samples),
            "phase": (("example", "x", "y", "z"), phase),
            "truth": (("example", "x", "y", "z"), truth[:, 0]),
            "iterates": (("example", "pass", "x", "y", "z"), np.concatenate(iterates, axis=1).astype(np.float32)),
            "mase": (("example", "pass"), np.stack(by_pass, axis=1)),
        },
        coords={"pass": list(model.counts)},
        attrs={"examples": list(chosen), "passes": model.passes, "macroscopic_strain": strain},
    )
    return errors, examples


def xx(solution: Solution) -> NDArray[np.floating]:
    """ε_xx (N, 1, nx, ny, nz)."""
    return solution.strain[:, [solution.components.index("xx")]]


def errors_of(
    solution: Solution, phase: NDArray[np.integer], truth: NDArray[np.floating], C: NDArray[np.floating]
) -> dict[str, NDArray[np.floating]]:
    """Errors in %, each (N,), of predictions for cells (N, nx, ny, nz) whose strain is ``truth`` (N, 6, nx, ny, nz).

    Of ε_xx, relative to ε̄_xx: ``mase``, ``rmse``, ``max_error``; of its largest value in the cell: ``hot_spot``. Where
    there are all components: ``energy``, √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), and ``mean_stress``, ‖⟨Δσ⟩‖/‖⟨σ⟩‖, which is the error of
    C_eff:Ē.
    """
    found, exact = (torch.from_numpy(f.astype(np.float64)) for f in (xx(solution), truth[:, :1]))
    relative = ((found - exact) / exact.mean(dim=(1, 2, 3, 4), keepdim=True)).abs().flatten(1)
    peaks = [f.abs().flatten(1).amax(dim=1) for f in (found, exact)]
    errors = {"mase": mase(found, exact), "rmse": 100 * relative.square().mean(dim=1).sqrt()}
    errors |= {"max_error": 100 * relative.amax(dim=1), "hot_spot": 100 * (peaks[0] / peaks[1] - 1).abs()}
    if len(solution.components) == 6:
        cells, moduli = torch.from_numpy(phase.astype(np.int64)), torch.from_numpy(C)
        field, whole = (torch.from_numpy(f.astype(np.float64)) for f in (solution.strain, truth))
        errors["energy"] = 100 * (energy(cells, moduli, field - whole) / energy(cells, moduli, whole)).sqrt()
        sigma, exact = (
            square(stress(cells, moduli, f).mean(dim=(2, 3, 4), keepdim=True)) for f in (field - whole, whole)
        )
        errors["mean_stress"] = 100 * (sigma / exact).sqrt().flatten()
    return {name: error.numpy() for name, error in errors.items()}


def final(errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of the number of passes that the model makes by itself."""
    return errors[errors["passes"] == errors.attrs["passes"]]


def shown(errors: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Rows by the numbers of passes that a table has: of a network its own, of a solver several."""
    counts = [k for k in SHOWN if k in set(errors["passes"])] if "green" in errors else [errors.attrs["passes"]]
    return {k: errors[errors["passes"] == k] for k in counts}


METRICS = ("mase", "rmse", "max_error", "hot_spot", "energy", "mean_stress", "residual", "bound")


def table(errors: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """A row for each of ``errors[case, predictor]`` and number of passes: MASE (%) over the microstructures, the means
    of the other errors, Green applications, parameters and milliseconds for a microstructure."""
    rows = []
    for (case, predictor), frame in errors.items():
        for passes, part in shown(frame).items():
            m = part["mase"]
            row = {"case": case, "predictor": predictor, "passes": passes, "microstructures": len(m)}
            row |= {"mean": m.mean(), "std": m.std(), "ci95": 1.96 * m.sem(), "median": m.median()}
            row |= {"p95": m.quantile(0.95), "max": m.max(), "parameters": frame.attrs["parameters"]}
            row |= {name: part[name].mean() if name in part else np.nan for name in (*METRICS[1:], "green")}
            rows.append(row | {"ms": 1e3 * part["seconds"].median()})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a reader: MASE as mean ± standard deviation, numbers rounded."""

    def number(x: float, digits: int = 3) -> str:
        return "–" if np.isnan(x) else f"{x:.{digits}g}"

    columns = {
        "case": table["case"],
        "predictor": table["predictor"],
        "passes": table["passes"],
        "MASE (%)": [f"{m:.3g} ± {s:.2g}" for m, s in zip(table["mean"], table["std"], strict=True)],
    }
    for name, title in (("median", "median"), ("p95", "p95"), ("max", "max"), ("hot_spot", "hot spot (%)")):
        columns[title] = table[name].map(number)
    columns |= {
        "energy (%)": table["energy"].map(number),
        "bound (%)": (100 * table["bound"]).map(number),
        "mean stress (%)": table["mean_stress"].map(number),
        "parameters": [f"{n:,}" if n else "–" for n in table["parameters"]],
        "Green": table["green"].map(number),
        "ms each": [number(x, 2) for x in table["ms"]],
    }
    return pd.DataFrame(columns)


def note(table: pd.DataFrame) -> str:
    """What the numbers of the table are."""
    return (
        f"Means over {table['microstructures'].iloc[0]} unseen microstructures. MASE: mean absolute error of ε_xx "
        "relative to its macroscopic value, ± its standard deviation. Hot spot: error of the largest ε_xx of the cell. "
        "Energy: error of the strain in the energy norm; bound: what is known of it without the truth. Mean stress: "
        "its error, hence that of the effective stiffness. cg: the solver stopped early; after 0 passes it is the "
        "macroscopic strain. Green: applications of the Green operator that make the field. ms each: time for a "
        "microstructure in this run, on its share of the cores."
    )


def markdown(table: pd.DataFrame) -> str:
    return f"{readable(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n"


def html(table: pd.DataFrame) -> str:
    style = "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}"
    head = f'<!doctype html><meta charset="utf-8"><style>body{{font-family:sans-serif}}{style}</style>'
    return f"{head}{readable(table).to_html(index=False, border=0)}<p>{note(table)}</p>\n"
