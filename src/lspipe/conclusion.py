"""The conclusion from a table of errors, in one sentence for each case."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lspipe.config import BASELINE
from lspipe.load_path import explain_unreached

APPLICATIONS = 5  # Methods that use the Green operator are compared after this number of its applications.


def conclude(table: pd.DataFrame) -> str:
    """Return the conclusion from errors and times as text with one line for each case.

    A case has a line if it has a network to compare, or if it is a step of a load path that no microstructure has
    reached.

    Args:
        table: What ``lspipe.tables.table`` returns.
    """
    sentences = []
    for case, rows in table.groupby("case", sort=False):
        if not rows["microstructures"].any():
            sentences.append(f"{explain_unreached(f'At {case}', 'this step')}.")
        elif (networks := rows[(rows["predictor"] != BASELINE) & (rows["microstructures"] > 0)]).size:
            has_solver = BASELINE in rows["predictor"].values
            times = [compare_time(networks), name_unreached(networks)] if has_solver else []
            if clauses := [*filter(None, [*times, compare_green(rows)])]:
                sentences.append(f"At {case}, {'; '.join(clauses)}.")
    return "\n".join(sentences)


def compare_time(networks: pd.DataFrame) -> str:
    """State whether a network saves time against the solver (cg) at the same error, and after how many predictions."""
    compared = networks[networks["equal_ms"].notna()]
    if compared.empty:
        return ""
    if (slower := compared["ms"] >= compared["equal_ms"]).all():
        best = compared.loc[(compared["ms"] / compared["equal_ms"]).idxmin()]
        verdict = "use the solver, for cg reaches the error of every network in less time"
        if name_unreached(networks):
            verdict = "cg takes less time than every network whose error it reaches"
    else:
        best = compared.loc[compared.loc[~slower, "pays_after"].fillna(np.inf).idxmin()]
        number = f"{best['pays_after']:,.0f}" if np.isfinite(best["pays_after"]) else "an unknown number of"
        verdict = f"{best['predictor']} saves the time of its training after {number} predictions"
    return (
        f"{verdict} ({best['predictor']} has a MASE of {best['mean']:.3g}% in {format_time(best['ms'])}, "
        f"cg in {format_time(best['equal_ms'])})"
    )


def format_time(ms: float) -> str:
    return f"{float(f'{ms:.2g}'):g} ms"  # Two digits, but 280 ms instead of 2.8e+02 ms


def name_unreached(networks: pd.DataFrame) -> str:
    """Name the networks whose error the solver does not reach in the iterations of the evaluation."""
    reached = networks.loc[networks["equal_ms"].notna(), "predictor"]
    names = [name for name in networks["predictor"].unique() if name not in {*reached}]
    return f"cg does not reach the error of {' and '.join(names)}" if names else ""


def compare_green(rows: pd.DataFrame) -> str:
    """State the errors of the methods that apply the Green operator, after as many applications."""
    equal = rows[rows["green"] == APPLICATIONS]
    if set(equal["predictor"]) <= {BASELINE}:
        return ""
    means = [f"{row['predictor']} has a MASE of {row['mean']:.3g}%" for _, row in equal.iterrows()]
    return f"after {APPLICATIONS} applications of the Green operator, {' and '.join(means)}"
