"""What to conclude from a table of errors, in a sentence for each case."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lspipe.config import BASELINE

APPLICATIONS = 5  # of the Green operator, after which methods that use it are compared


def conclude(table: pd.DataFrame) -> str:
    """Return what errors and times mean for a user: a line with one sentence for each case with a network.

    Args:
        table: What ``lspipe.tables.table`` returns.
    """
    sentences = []
    for case, rows in table.groupby("case", sort=False):
        if (networks := rows[rows["predictor"] != BASELINE]).size:
            clauses = [compare_time(networks), compare_green(rows)]
            sentences.append(f"At {case}, {'; '.join(filter(None, clauses))}.")
    return "\n".join(sentences)


def compare_time(networks: pd.DataFrame) -> str:
    """Say whether a network saves time against the solver (cg) with the same error, and after how many predictions."""
    compared = networks[networks["equal_ms"].notna()]
    if compared.empty:
        best = networks.loc[networks["mean"].idxmin()]
        return f"{best['predictor']} has the lowest error, a MASE of {best['mean']:.3g}%, which cg does not reach"
    if (slower := compared["ms"] >= compared["equal_ms"]).all():
        nearest = compared.loc[(compared["ms"] / compared["equal_ms"]).idxmin()]
        times = f"{nearest['ms']:.2g} ms for a MASE of {nearest['mean']:.3g}%, cg {nearest['equal_ms']:.2g} ms"
        return f"use the solver: every network takes longer to its error than cg ({nearest['predictor']} {times})"
    best = compared.loc[compared.loc[~slower, "pays_after"].fillna(np.inf).idxmin()]
    number = f"{best['pays_after']:,.0f}" if np.isfinite(best["pays_after"]) else "an unknown number of"
    times = f"{best['ms']:.2g} ms for a MASE of {best['mean']:.3g}%, cg {best['equal_ms']:.2g} ms"
    return f"{best['predictor']} saves the time of its training after {number} predictions ({times})"


def compare_green(rows: pd.DataFrame) -> str:
    """State the errors of the methods that apply the Green operator, after as many applications."""
    equal = rows[rows["green"] == APPLICATIONS]
    if set(equal["predictor"]) <= {BASELINE}:
        return ""
    means = [f"{row['predictor']} has a MASE of {row['mean']:.3g}%" for _, row in equal.iterrows()]
    return f"after {APPLICATIONS} applications of the Green operator, {' and '.join(means)}"
