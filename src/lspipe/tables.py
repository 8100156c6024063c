"""Errors of microstructures, as `evaluate` makes them → tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

SHOWN = (0, 1, 5, 10)  # passes that tables have of a solver


def final(errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of the number of passes that the model makes by itself."""
    return errors[errors["passes"] == errors.attrs["passes"]]


def shown(errors: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Rows by the numbers of passes that a table has: of a network its own, of a solver several."""
    counts = [k for k in SHOWN if k in set(errors["passes"])] if "green" in errors else [errors.attrs["passes"]]
    return {k: errors[errors["passes"] == k] for k in counts}


METRICS = ("mase", "rmse", "max_error", "hot_spot", "energy", "mean_stress", "residual", "bound")


def table(errors: Mapping[tuple[str, str], Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """A row for each of ``errors[case, predictor]``, which has a frame a training seed, and number of passes: MASE (%)
    over the microstructures, averaged over ``seeds``, and its spread over these, the means of the other errors, Green
    applications, parameters, floating-point operations and milliseconds for a microstructure, the device that took
    these, and the GB of its memory if it is a card."""
    rows = []
    for (case, predictor), frames in errors.items():
        attributes = frames[0].attrs
        for passes in shown(frames[0]):
            part = pd.concat([shown(frame)[passes].assign(seed=k) for k, frame in enumerate(frames)])
            m, seeds = (part.groupby(by)["mase"].mean() for by in ("sample", "seed"))
            row = {"case": case, "predictor": predictor, "passes": passes, "microstructures": len(m)}
            row |= {"seeds": len(seeds), "mean": m.mean(), "std": m.std(), "std_of_seeds": seeds.std()}
            row |= {"ci95": 1.96 * m.sem(), "median": m.median()}
            row |= {"p95": m.quantile(0.95), "max": part["mase"].max(), "parameters": attributes["parameters"]}
            row |= {name: part[name].mean() if name in part else np.nan for name in (*METRICS[1:], "green")}
            row |= {"operations": part["operations"].mean(), "ms": 1e3 * part["seconds"].median()}
            rows.append(row | {"device": attributes["device"], "gpu_gb": attributes["gpu_gb"]})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a reader: MASE as mean ± standard deviation, numbers rounded."""

    def number(x: float, digits: int = 3) -> str:
        return "–" if np.isnan(x) else f"{x:.{digits}g}"

    columns = {
        "case": table["case"],
        "predictor": table["predictor"],
        "passes": table["passes"],
        "MASE (%)": [f"{m:.3g} ± {number(s, 2)}" for m, s in zip(table["mean"], table["std"], strict=True)],
    }
    if (table["seeds"] > 1).any():
        columns["± by seed"] = table["std_of_seeds"].map(lambda x: number(x, 2))
    for name, title in (("median", "median"), ("p95", "p95"), ("max", "max"), ("hot_spot", "hot spot (%)")):
        columns[title] = table[name].map(number)
    columns |= {
        "energy (%)": table["energy"].map(number),
        "bound (%)": (100 * table["bound"]).map(number),
        "mean stress (%)": table["mean_stress"].map(number),
        "parameters": [f"{n:,}" if n else "–" for n in table["parameters"]],
        "Green": table["green"].map(number),
        "GFLOP each": (table["operations"] / 1e9).map(number),
        "samples/s": [f"{float(number(1e3 / x, 2)):,g}" for x in table["ms"]],
    }
    return pd.DataFrame(columns)


def note(table: pd.DataFrame) -> str:
    """What the numbers of the table are."""
    devices = table["device"].unique()
    return (
        f"Means over {table['microstructures'].iloc[0]} "
        "unseen microstructures. MASE: mean absolute error of ε_xx (of conductors: ∂T/∂x) relative to its "
        "macroscopic value, ± its standard deviation over these; p95, max: of the microstructures. Passes: of a "
        "network, or iterations of the solver (cg), which is stopped early; after 0 its field is the macroscopic "
        "one. Hot spot: error of the largest value in the cell. Energy: error in the energy norm; bound: what is "
        "known of it without the truth. Mean stress: its error (of conductors: of the mean flux), hence that of "
        "what is effective. The truth itself is solved to a tolerance. Green: applications of the Green operator "
        "that make the field. GFLOP each: 10⁹ floating-point operations that a microstructure takes, counted of "
        "networks (convolutions, as on a CPU) and estimated of the solver. samples/s: microstructures a second in "
        "this run, on "
        f"{', '.join(devices)}."
    )


def markdown(table: pd.DataFrame) -> str:
    return f"{readable(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n"


def html(table: pd.DataFrame) -> str:
    style = "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}"
    head = f'<!doctype html><meta charset="utf-8"><style>body{{font-family:sans-serif}}{style}</style>'
    return f"{head}{readable(table).to_html(index=False, border=0)}<p>{escape(note(table))}</p>\n"
