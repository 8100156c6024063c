"""Predictions against the truth: a row per microstructure, two examples with their iterates, a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.material import Isotropic
from lspipe.cell.solver import Solution
from lspipe.models.files import Model
from lspipe.progress import progress
from lspipe.store import open_dataset, open_pair

Fields = NDArray[np.floating]
BATCH = 64


def xx(solution: Solution) -> Fields:
    """ε_xx (N, nx, ny, nz)."""
    return solution.strain[:, solution.components.index("xx")]


def mase(predicted: Fields, truth: Fields, mean: float) -> Fields:
    """Mean absolute strain error in % per microstructure, (N,): 100·⟨|ε_xx − ε̂_xx|⟩/|ε̄_xx| for fields
    (N, nx, ny, nz) (Kelly & Kalidindi 2021)."""
    return 100 * np.abs(predicted - truth).mean(axis=(1, 2, 3)) / abs(mean)


def evaluate(model: Model, microstructures: Path, fields: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Errors of a model over a test set, and its worst and median microstructure.

    The frame has a row per microstructure: mase, rmse, max_error (%, relative to ε̄_xx), the seconds of the
    prediction, and iterations, residual and bound where the model gives them; its attributes hold the
    number of ``parameters``. ValueError where model and fields do not belong together.
    The examples hold ``phase``, ``truth``, and the ``iterates`` of ε_xx with their ``mase``.
    """
    for store in open_pair(microstructures, fields):
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    phase = cells.phase
    model = model.under(data.attrs["scheme"])
    materials = [Isotropic(**m) for m in data.attrs["materials"]]
    strain = data.attrs["macroscopic_strain"]
    if strain[0] == 0:
        raise ValueError(f"{fields}: macroscopic_strain xx = 0: errors are relative to it")
    model.predict(phase[:1].values, materials, strain)  # what only the first call pays is not timed
    parts = []
    with progress(f"evaluate on {fields}", len(phase), "sample") as bar:
        for first in range(0, len(phase), BATCH):
            batch = slice(first, first + BATCH)
            truth = data.strain.sel(component="xx")[batch].values
            began = time.perf_counter()
            solution = model.predict(phase[batch].values, materials, strain)
            seconds = (time.perf_counter() - began) / len(truth)
            error = 100 * np.abs(xx(solution) - truth) / abs(strain[0])
            columns = {
                "sample": np.arange(first, first + len(truth)),
                "mase": mase(xx(solution), truth, strain[0]),
                "rmse": np.sqrt((error**2).mean(axis=(1, 2, 3))),
                "max_error": error.max(axis=(1, 2, 3)),
                "seconds": seconds,
            }
            given = {name: getattr(solution, name) for name in ("iterations", "residual", "bound")}
            parts.append(pd.DataFrame(columns | {name: value for name, value in given.items() if value is not None}))
            bar.update(len(truth))
    errors = pd.concat(parts, ignore_index=True)
    errors.attrs["parameters"] = model.parameters

    ranked = errors.sort_values("mase").index.to_numpy()
    chosen = [int(ranked[-1]), int(ranked[len(ranked) // 2])]
    shown = phase[chosen].values
    truth = data.strain.sel(component="xx")[chosen].values
    iterates = np.stack([xx(s) for s in model.iterates(shown, materials, strain)], axis=1)
    by_pass = np.stack([mase(iterates[:, t], truth, strain[0]) for t in range(iterates.shape[1])], axis=1)
    examples = xr.Dataset(
        {
            "sample": ("example", chosen),
            "phase": (("example", "x", "y", "z"), shown),
            "truth": (("example", "x", "y", "z"), truth),
            "iterates": (("example", "pass", "x", "y", "z"), iterates.astype(np.float32)),
            "mase": (("example", "pass"), by_pass),
        },
        attrs={"examples": ["worst", "median"], "macroscopic_strain": strain},
    )
    return errors, examples


def table(errors: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """A row for each of ``errors[case, predictor]``: MASE (%) over the microstructures, number of parameters,
    iterations of the solver and milliseconds for a microstructure."""
    rows = []
    for (case, predictor), frame in errors.items():
        m = frame["mase"]
        row = {"case": case, "predictor": predictor, "mean": m.mean(), "std": m.std(), "median": m.median()}
        row |= {"p95": m.quantile(0.95), "max": m.max(), "microstructures": len(m)}
        row |= {"parameters": frame.attrs["parameters"], "ms": 1e3 * frame["seconds"].mean()}
        rows.append(row | {"iterations": frame["iterations"].mean() if "iterations" in frame else np.nan})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a reader: MASE as mean ± standard deviation, numbers rounded."""
    columns = {
        "case": table["case"],
        "predictor": table["predictor"],
        "MASE (%)": [f"{m:.3g} ± {s:.2g}" for m, s in zip(table["mean"], table["std"], strict=True)],
        **{name: [f"{x:.3g}" for x in table[name]] for name in ("median", "p95", "max")},
        "parameters": [f"{n:,}" if n else "–" for n in table["parameters"]],
        "Green applications": ["–" if np.isnan(n) else f"{n:.0f}" for n in table["iterations"]],
        "ms each": [f"{x:.2g}" for x in table["ms"]],
    }
    return pd.DataFrame(columns)


def note(table: pd.DataFrame) -> str:
    """What the numbers of the table are."""
    return (
        "MASE: mean absolute error of ε_xx relative to its macroscopic value; mean ± standard deviation over "
        f"{table['microstructures'].iloc[0]} unseen microstructures. Green applications: those that make the "
        "field; its residual takes one more. ms each: time for a microstructure in this run, on its share of the cores."
    )


def markdown(table: pd.DataFrame) -> str:
    return f"{readable(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n"


def html(table: pd.DataFrame) -> str:
    style = "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}"
    head = f'<!doctype html><meta charset="utf-8"><style>body{{font-family:sans-serif}}{style}</style>'
    return f"{head}{readable(table).to_html(index=False, border=0)}<p>{note(table)}</p>\n"
