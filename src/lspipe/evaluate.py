"""Predictions against the truth: a row per microstructure, two examples with their iterates, a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.material import Isotropic
from lspipe.cell.solver import Solution
from lspipe.models.baseline import Baseline
from lspipe.models.localization import LocalizationModel
from lspipe.progress import progress
from lspipe.store import open_dataset

Fields = NDArray[np.floating]
BATCH = 64


def xx(solution: Solution) -> Fields:
    """ε_xx (N, nx, ny, nz)."""
    return solution.strain[:, solution.components.index("xx")]


def mase(predicted: Fields, truth: Fields, mean: float) -> Fields:
    """Mean absolute strain error in % per microstructure, (N,): 100·⟨|ε_xx − ε̂_xx|⟩/|ε̄_xx| for fields
    (N, nx, ny, nz) (Kelly & Kalidindi 2021)."""
    return 100 * np.abs(predicted - truth).mean(axis=(1, 2, 3)) / abs(mean)


def evaluate(
    model: LocalizationModel | Baseline, microstructures: Path, fields: Path
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Errors of a model over a test set, and its worst and median microstructure.

    The frame has a row per microstructure: mase, rmse, max_error (%, relative to ε̄_xx), and green,
    residual and bound where the model gives them; its attributes hold the number of ``parameters``.
    The examples hold ``phase``, ``truth``, and the ``iterates`` of ε_xx with their ``mase``.
    """
    phase, data = open_dataset(microstructures).phase, open_dataset(fields)
    materials = [Isotropic(**m) for m in data.attrs["materials"]]
    strain = data.attrs["macroscopic_strain"]
    parts = []
    with progress(f"evaluate on {fields.parent.name}", len(phase), "sample") as bar:
        for first in range(0, len(phase), BATCH):
            batch = slice(first, first + BATCH)
            truth = data.strain.sel(component="xx")[batch].values
            solution = model.predict(phase[batch].values, materials, strain)
            error = np.abs(xx(solution) - truth) / abs(strain[0]) * 100
            columns = {
                "sample": np.arange(first, first + len(truth)),
                "mase": mase(xx(solution), truth, strain[0]),
                "rmse": np.sqrt((error**2).mean(axis=(1, 2, 3))),
                "max_error": error.max(axis=(1, 2, 3)),
            }
            columns |= {
                name: value for name in ("green", "residual", "bound") if (value := getattr(solution, name)) is not None
            }
            parts.append(pd.DataFrame(columns))
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
    """A row for each of ``errors[case, predictor]``: MASE over the microstructures."""
    rows = []
    for (case, predictor), frame in errors.items():
        m = frame["mase"]
        row = {
            "case": case,
            "predictor": predictor,
            "mean": m.mean(),
            "std": m.std(),
            "median": m.median(),
            "p95": m.quantile(0.95),
            "max": m.max(),
        }
        rows.append(
            row
            | {
                "microstructures": len(m),
                "parameters": frame.attrs["parameters"],
                "green": frame["green"].mean() if "green" in frame else np.nan,
            }
        )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """The table for a reader: MASE as mean ± standard deviation."""
    shown = pd.DataFrame(
        {
            "case": table["case"],
            "predictor": table["predictor"],
            "MASE (%)": [f"{m:.3g} ± {s:.2g}" for m, s in zip(table["mean"], table["std"], strict=True)],
            **{name: [f"{x:.3g}" for x in table[name]] for name in ("median", "p95", "max")},
            "parameters": [f"{n:,}" if n else "–" for n in table["parameters"]],
            "Green applications": ["–" if np.isnan(g) else f"{g:.0f}" for g in table["green"]],
        }
    )
    note = (
        "Mean absolute error of ε_xx relative to its macroscopic value; mean ± standard deviation "
        f"over {table['microstructures'].iloc[0]} unseen microstructures."
    )
    return f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n"
