"""Figures of tables of errors. Each function takes one table for each predictor, by its label."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lspipe.config import BASELINE
from lspipe.figures.style import CURVES, PAGE, plain_log_ticks
from lspipe.statistics import average_by_passes, select_final, select_passes

Tables = Mapping[str, pd.DataFrame]


def learning_curves(metrics: Tables) -> Figure:
    """Draw training loss (lines), validation loss (markers) and validation MASE by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6), sharex=True)
    for name, m in metrics.items():
        (line,) = left.plot(m["epoch"], m["train_loss"], marker="." if len(m) == 1 else "", label=name)
        epochs = m.dropna(subset="valid_mase")
        left.plot(epochs["epoch"], epochs["valid_loss"], "o", ms=3, mfc="none", color=line.get_color())
        right.plot(epochs["epoch"], epochs["valid_mase"], "o-", ms=3, mfc="none", label=name)
    left.plot([], [], "k-", lw=1, label="training")
    left.plot([], [], "ko", ms=3, mfc="none", label="validation")
    left.set_ylabel("loss (%)")
    right.set_ylabel("validation MASE (%)")
    for axes in (left, right):
        axes.set(xlabel="epoch", xlim=(0, None), yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain_log_ticks(axes.yaxis)
    left.legend(ncols=2)
    return figure


def mase(errors: Tables) -> Figure:
    """Draw MASE over the test set: histograms of the networks, and cumulative curves of these and of the solver.

    Without networks, the histogram is that of the solver.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6))
    shown = {name: table for name, table in errors.items() if name != BASELINE} or errors
    networks = {name: select_final(table)["mase"] for name, table in shown.items()}
    every = pd.concat(networks.values())
    bins = np.geomspace(0.98 * every[every > 0].min(), 1.02 * every.max(), 25)
    for name, values in networks.items():
        left.hist(values, bins=bins, histtype="step", lw=1.2, label=name)
        right.ecdf(values, lw=1.2, label=name)
    left.set(xscale="log", xlabel="MASE (%)", ylabel="number of microstructures")
    if bins[-1] < 5 * bins[0]:
        left.set_xscale("linear")
        left.locator_params(axis="x", nbins=4)
    elif bins[-1] < 100 * bins[0]:
        plain_log_ticks(left.xaxis)
    left.yaxis.get_major_locator().set_params(integer=True)
    stopped = select_passes(errors[BASELINE]) if BASELINE in errors else {}
    for grey, (count, table) in zip(np.linspace(0.75, 0, len(stopped)), stopped.items(), strict=True):
        stage = table.attrs["stages"][count] if "stages" in table.attrs else f"{count} iteration{'s' * (count != 1)}"
        right.ecdf(table["mase"], lw=1.2, label=f"{BASELINE}, {stage}", color=str(grey), ls="--")
    right.set(xscale="log", xlabel="MASE (%)", ylabel="fraction of microstructures", ylim=(0, 1))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def convergence(errors: Tables) -> Figure:
    """Draw MASE and energy error against Green applications, with the 95% confidence band, and against time.

    A network that does not use the Green operator is a dashed level on the left.
    """
    names = {"mase": "MASE (%)", "energy": "energy error (%)"}
    metrics = [metric for metric in names if any(metric in table for table in errors.values())]
    size = (PAGE, 0.4 + 2 * len(metrics))
    figure, grid = plt.subplots(len(metrics), 2, figsize=size, sharex="col", sharey="row", squeeze=False)
    for (name, table), colour in zip(errors.items(), cycle(CURVES), strict=False):
        style = {"color": colour, "label": name, "marker": "o", "ms": 2.5}
        for (left, right), metric in zip(grid, metrics, strict=True):
            if metric not in table:
                continue
            rows = average_by_passes(table, metric)
            if "green" in table:
                left.plot(rows["green"], rows["mean"], **style)
                band = (rows["mean"] - rows["ci95"], rows["mean"] + rows["ci95"])
                left.fill_between(rows["green"], *band, color=colour, alpha=0.2, lw=0)
            else:
                left.axhline(rows["mean"].iloc[-1], color=colour, ls="--")
            right.plot(rows["ms"], rows["mean"], **style)
    for axes, metric in zip(grid[:, 0], metrics, strict=True):
        axes.set(yscale="log", ylabel=names[metric])
    grid[-1, 0].set(xlabel="applications of the Green operator")
    grid[-1, 1].set(xlabel="time per microstructure (ms)", xscale="log")
    plain_log_ticks(grid[-1, 1].xaxis)
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def trends(errors: Tables) -> Figure:
    """Draw the MASE of each microstructure against its volume fraction and its grain size, where the tables have them.

    Raises:
        ValueError: The tables have neither, as of polycrystals of one material.
    """
    labels = {
        "volume_fraction": "volume fraction of phase 1",
        "grain": "geometric mean of the grain sizes (voxels)",
    }
    quantities = {name: text for name, text in labels.items() if all(name in table for table in errors.values())}
    if not quantities:
        raise ValueError("trends: needs errors with volume_fraction or grain; cells of one material have neither")
    figure, panels = plt.subplots(1, len(quantities), figsize=(PAGE, 2.8), sharey=True, squeeze=False)
    for axes, (quantity, label) in zip(panels[0], quantities.items(), strict=True):
        for (name, table), colour in zip(errors.items(), cycle(CURVES), strict=False):
            rows = select_final(table)
            axes.scatter(rows[quantity], rows["mase"], s=4, color=colour, lw=0, label=name, rasterized=True)
        axes.set(xlabel=label, yscale="log")
    panels[0, 0].set_ylabel("MASE (%)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, markerscale=2)
    return figure
