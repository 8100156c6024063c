"""Figures of effective properties."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lspipe.figures.style import COLOURS, CURVES, PAGE
from lspipe.statistics import average_by_passes

NAMES = {
    "K": "bulk modulus K (GPa)",
    "G": "shear modulus G (GPa)",
    "k": "mean conductivity k (W/(m K))",
}
ROUNDING = 1e-6  # rounding in %, of the mean of a strain in single precision
VOIDS = 1.0  # gap of a cell with voids, which has no lower bound


def effective(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the isotropic moduli of each microstructure with their guaranteed intervals, and the bounds by volume
    fraction. Cells of one material are drawn in the order of their modulus."""
    (table,) = tables.values()
    names = [name for name in NAMES if name in table]
    # A modulus for which Voigt and Reuss coincide, as K of cubic crystals, is left out if there is another one.
    names = [n for n in names if not np.allclose(table[f"{n}_reuss"], table[f"{n}_voigt"])] or names
    figure, panels = plt.subplots(1, len(names), figsize=(PAGE / 2 * len(names), 3.0), squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        if "f1" in table:
            rows = table.sort_values("f1")
            x, label = rows["f1"], "volume fraction of phase 1"
        else:
            rows = table.sort_values(name)
            x, label = pd.Series(np.arange(len(rows)), rows.index), "microstructures in the order of the modulus"
        draw_bounds(axes, x, rows, name)
        draw_intervals(axes, x, rows, name)
        axes.set(xlabel=label, ylabel=NAMES[name])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def draw_bounds(axes: Axes, x: pd.Series, rows: pd.DataFrame, name: str) -> None:
    """Shade the range between the bounds that follow from the volume fractions."""
    for low, high, label, shade in (
        ("reuss", "voigt", "Voigt, Reuss", "0.9"),
        ("hs_low", "hs_high", "Hashin–Shtrikman", "0.75"),
    ):
        if f"{name}_{low}" in rows:
            axes.fill_between(x, rows[f"{name}_{low}"], rows[f"{name}_{high}"], color=shade, lw=1.5, label=label)


def draw_intervals(axes: Axes, x: pd.Series, rows: pd.DataFrame, name: str) -> None:
    """Draw each modulus with its guaranteed interval, or where there is no lower bound with a downward triangle."""
    has_voids = rows["gap"] >= VOIDS
    value, low, high = (rows.loc[~has_voids, f"{name}{suffix}"] for suffix in ("", "_low", "_high"))
    style: Any = {"color": COLOURS[0], "ms": 2.5, "ls": ""}
    if len(value):
        error = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        axes.errorbar(
            x[~has_voids], value, error, marker="o", elinewidth=1, capsize=1.5, label="microstructure", **style
        )
    if has_voids.any():
        upper = rows.loc[has_voids, f"{name}_high"]
        axes.plot(x[has_voids], upper, marker="v", label="microstructure with voids: upper bound", **style)


def effective_errors(errors: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the errors of the effective stiffness along the load, and of the mean stress, against Green applications.

    The guaranteed relative width of the interval for the effective stiffness is dashed. A network that does not use the
    Green operator is a dotted level.

    Raises:
        ValueError: No table has errors of the stress, as at a step of a load path.
    """
    if not any({"effective", "mean_stress"} & {*table} for table in errors.values()):
        raise ValueError("effective_errors: needs errors of the stress, which steps of load paths do not have")
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.9), sharex=True, sharey=True)
    for (name, table), colour in zip(errors.items(), cycle(CURVES), strict=False):
        for axes, metric in zip(panels, ("effective", "mean_stress"), strict=True):
            if metric not in table or not (mean := average_by_passes(table, metric)["mean"]).gt(0).any():
                continue
            if "green" in table:
                axes.plot(mean.index, mean, marker="o", ms=2.5, color=colour, label=name)
            else:
                axes.axhline(mean.iloc[-1], color=colour, ls=":", label=name)
        if {"bound", "effective", "green"} <= {*table} and np.isfinite(table["bound"]).any():
            width = (100 * table["bound"] ** 2).groupby(table["passes"]).mean()
            width = width[(width < 100) & (width > ROUNDING)]  # A wider interval tells nothing.
            panels[0].plot(width.index, width, color=colour, ls="--", label=f"{name}, guaranteed interval")
    panels[0].set(title="effective stiffness along the load", ylabel="mean error (%)", yscale="log")
    panels[1].set(title="all components of the mean stress")
    for axes in panels:
        axes.set_xlabel("applications of the Green operator")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure
