"""Tables of the errors of `lspipe evaluate`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from lspipe.config import BASELINE
from lspipe.statistics import average_by_passes, ci95, count_until_paid, find_equal, select_passes

UNREACHED = "not reached"  # in place of the MASE
METRICS = (
    "rmse",
    "max_error",
    "hot_spot",
    "energy",
    "von_mises",
    "mean_stress",
    "effective",
    "residual",
    "bound",
    "green",
)
LEGEND = {
    "passes": "passes of a network, or iterations of the solver (cg), which is stopped early; after 0 iterations its "
    "field is the macroscopic one; at a step of a load path, the number of increments of cg from the beginning of the "
    "path and its relative residual (tol)",
    "MASE (%)": "mean absolute strain error, relative to the macroscopic strain: of ε_xx (conductors: ∂T/∂x) under a "
    "load along x alone, else the norm over all components that the predictor has; mean ± standard deviation over the "
    "microstructures",
    "± by seed": "standard deviation of the mean MASE over the training seeds",
    "median": "median MASE of the microstructures",
    "p95": "95th percentile of their MASE",
    "max": "largest MASE of a microstructure",
    "hot spot (%)": "error of the largest strain in the cell",
    "energy (%)": "error in the energy norm",
    "von Mises (%)": "mean absolute error of the von Mises stress, relative to its mean",
    "bound (%)": "upper bound on the energy error, computed without the ground truth; cells with voids have none",
    "mean stress (%)": "error of the mean stress (conductors: of the mean flux), all components",
    "effective (%)": "error of the effective stiffness along the load, E:⟨σ⟩ with the prescribed strain E",
    "interval (%)": "guaranteed relative width of the interval for the effective stiffness along the load, the square "
    "of the bound; its upper end is the energy of the field, whose error is second order for networks too",
    "90% below (%)": "MASE that the model states without the ground truth: 90 % of microstructures that are drawn like "
    "those of the validation set stay below; absent where that set has another number of voxels",
    "covered (%)": "part of the test microstructures that stay below it",
    "pays after": "predictions until the time of the training is saved, against the solver with the fewest iterations "
    "that reach the same mean MASE; never: these iterations take no longer than the network. Neither the training data "
    "nor the training of the model that a network starts from is counted",
    "Green": "applications of the Green operator",
    "GFLOP": "10⁹ floating-point operations per microstructure, counted for networks and estimated for the solver",
    "samples/s": "microstructures per second in this run",
}


def table(errors: Mapping[tuple[str, str], Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """Summarize errors over the microstructures.

    Args:
        errors: Tables of errors by case and predictor, one for each training seed.

    Returns:
        A row for each case, predictor and number of passes: MASE in %, averaged over the ``seeds``, with its spread
        over the microstructures; the means of the other errors; Green applications, parameters, floating-point
        operations and milliseconds per microstructure; the device and, for a card, the GB of its memory in use; the
        number of passes, or the name of the ``stage`` of the baseline on a load path. Where no microstructure has
        reached the step of the case, ``microstructures`` is 0, and the errors are NaN.
        ``mase_90`` is the mean of the MASE that the models state, and ``covered`` the part in % of the microstructures
        below it. ``equal_iterations`` and ``equal_ms`` are those of ``find_equal``, and ``pays_after`` is the number of
        ``count_until_paid``; NaN for the solver.
    """
    rows = []
    for (case, predictor), frames in errors.items():
        attributes = frames[0].attrs
        solver = errors.get((case, BASELINE)) if predictor != BASELINE else None
        trainings = [frame.attrs["training_seconds"] or np.nan for frame in frames]
        for passes in select_passes(frames[0]):
            part = pd.concat([select_passes(frame)[passes].assign(seed=k) for k, frame in enumerate(frames)])
            mase, seeds = (part.groupby(by)["mase"].mean() for by in ("sample", "seed"))
            row: dict[str, Any] = {"case": case, "predictor": predictor, "passes": passes, "microstructures": len(mase)}
            row |= {"seeds": len(seeds), "mean": mase.mean(), "std": mase.std(), "std_of_seeds": seeds.std()}
            row |= {"ci95": ci95(mase), "median": mase.median(), "p95": mase.quantile(0.95)}
            row |= {"max": part["mase"].max(), "parameters": attributes["parameters"]}
            row |= {name: part[name].mean() if name in part else np.nan for name in METRICS}
            has_interval = {"bound", "effective", "green"} <= {*part}
            row["interval"] = 100 * (part["bound"] ** 2).mean() if has_interval else np.nan
            stated = part.dropna(subset="mase_90") if "mase_90" in part else part.iloc[:0].assign(mase_90=np.nan)
            row |= {"mase_90": stated["mase_90"].mean(), "covered": 100 * (stated["mase"] <= stated["mase_90"]).mean()}
            row |= {"operations": part["operations"].mean(), "ms": 1e3 * part["seconds"].median()}
            row |= {"equal_iterations": np.nan, "equal_ms": np.nan, "training_seconds": np.mean(trainings)}
            if solver:
                equal = find_equal(average_by_passes(pd.concat(solver), "mase"), row["mean"])
                row |= dict(zip(("equal_iterations", "equal_ms"), equal, strict=True))
            row["pays_after"] = count_until_paid(row["training_seconds"], row["ms"], row["equal_ms"])
            row["stage"] = attributes["stages"][passes] if "stages" in attributes else str(passes)
            rows.append(row | {"device": attributes["device"], "gpu_gb": attributes["gpu_gb"]})
    return pd.DataFrame(rows)


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table for a reader: MASE as mean ± standard deviation, rounded numbers, the columns of LEGEND."""

    def number(x: float, digits: int = 3) -> str:
        return f"{x:.{digits}g}" if np.isfinite(x) else "–"

    counts = table["microstructures"]
    mase = table["mean"].map(number) + " ± " + table["std"].map(lambda x: number(x, 2))
    mase = mase.where(counts == counts.max(), mase + " (of " + counts.astype(str) + ")")
    columns = {
        "case": table["case"],
        "predictor": table["predictor"],
        "passes": table["stage"].where(counts > 0, "–"),
        "MASE (%)": mase.where(counts > 0, UNREACHED),
    }
    if (table["seeds"] > 1).any():
        columns["± by seed"] = table["std_of_seeds"].map(lambda x: number(x, 2))
    columns |= {
        "median": table["median"].map(number),
        "p95": table["p95"].map(number),
        "max": table["max"].map(number),
        "hot spot (%)": table["hot_spot"].map(number),
        "energy (%)": table["energy"].map(number),
        "von Mises (%)": table["von_mises"].map(number),
        "bound (%)": (100 * table["bound"]).map(number),
        "mean stress (%)": table["mean_stress"].map(number),
        "effective (%)": table["effective"].map(number),
        "interval (%)": table["interval"].map(number),
        "90% below (%)": table["mase_90"].map(number),
        "covered (%)": table["covered"].map(number),
        "pays after": ["never" if n == np.inf else f"{n:,.0f}" if np.isfinite(n) else "–" for n in table["pays_after"]],
        "parameters": [f"{n:,}" if n else "–" for n in table["parameters"]],
        "Green": table["green"].map(number),
        "GFLOP": (table["operations"] / 1e9).map(number),
        "samples/s": [f"{float(number(1e3 / x, 2)):,g}" if np.isfinite(x) else "–" for x in table["ms"]],
    }
    return pd.DataFrame(columns)


def explain_columns(table: pd.DataFrame, columns: Collection[str]) -> str:
    """Return the meaning of the columns, in one paragraph."""
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in LEGEND.items() if name in columns)
    devices = ", ".join(table["device"].unique())
    counts = sorted({*table["microstructures"]})
    if 0 in counts:
        meanings += f"; {UNREACHED}: no microstructure of the test or of the training has reached this step of the path"
    reached = [count for count in counts if count]
    if len(reached) > 1:
        meanings += "; of n: the mean is over n microstructures, on a load path those that have reached the step"
    if reached:
        numbers = " to ".join(map(str, sorted({reached[0], reached[-1]})))
        meanings = f"Means over {numbers} microstructures that no network was trained on. {meanings}"
    return f"{meanings}. The ground truth is itself solved to a tolerance. Device: {devices}."


def markdown(table: pd.DataFrame) -> str:
    readable = format_table(table)
    return f"{readable.to_markdown(index=False, disable_numparse=True)}\n\n{explain_columns(table, [*readable])}\n"


def html(table: pd.DataFrame) -> str:
    style = "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}"
    head = f'<!doctype html><meta charset="utf-8"><style>body{{font-family:sans-serif}}{style}</style>'
    readable = format_table(table)
    return f"{head}{readable.to_html(index=False, border=0)}<p>{escape(explain_columns(table, [*readable]))}</p>\n"
