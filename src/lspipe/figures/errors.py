"""Tables of errors → figures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lspipe.config import BASELINE
from lspipe.figures.style import CURVES, PAGE, plain_log_ticks
from lspipe.tables import final, shown

Frames = Mapping[str, pd.DataFrame]  # by predictor


def learning_curves(metrics: Frames) -> Figure:
    """Training loss (line) and validation loss (markers), and validation MASE, by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6))
    for name, m in metrics.items():
        (line,) = left.plot(m["epoch"], m["train_loss"], label=name)
        left.plot(m["epoch"], m["valid_loss"], "o", ms=3, mfc="none", color=line.get_color())
        right.plot(m["epoch"], m["valid_mase"], "o-", ms=3, mfc="none", label=name)
    left.plot([], [], "k-", lw=1, label="training")
    left.plot([], [], "ko", ms=3, mfc="none", label="validation")
    left.set_ylabel("loss (%)")
    right.set_ylabel("validation MASE (%)")
    for axes in (left, right):
        axes.set(xlabel="epoch", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain_log_ticks(axes.yaxis)
    left.legend(ncols=2)
    return figure


def mase(errors: Frames) -> Figure:
    """MASE over the test set: histograms of the networks, cumulative curves of these and, dashed, of the solver after
    some numbers of iterations."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6))
    networks = {name: final(frame)["mase"] for name, frame in errors.items() if name != BASELINE}
    if not networks:
        raise ValueError("mase: needs the errors of a network")
    every = pd.concat(networks.values())
    bins = np.geomspace(0.98 * every[every > 0].min(), 1.02 * every.max(), 25)
    for name, values in networks.items():
        left.hist(values, bins=bins, histtype="step", lw=1.2, label=name)
        right.ecdf(values, lw=1.2, label=name)
    left.set(xscale="log", xlabel="MASE (%)", ylabel="microstructures")
    left.yaxis.get_major_locator().set_params(integer=True)
    stopped = shown(errors[BASELINE]) if BASELINE in errors else {}
    for grey, (passes, frame) in zip(np.linspace(0.75, 0, len(stopped)), stopped.items(), strict=True):
        right.ecdf(frame["mase"], lw=1.2, label=f"cg, {passes}", color=str(grey), ls="--")
    right.set(xscale="log", xlabel="MASE (%)", ylabel="fraction of microstructures", ylim=(0, 1))
    left.legend()
    right.legend()
    return figure


def convergence(errors: Frames) -> Figure:
    """MASE and energy error against Green applications and against time: means over the test set, with their 95%
    confidence. A network that makes no use of the Green operator is a level in the first."""
    figure, grid = plt.subplots(2, 2, figsize=(PAGE, 4.4), sharex="col", sharey="row")
    for (name, frame), colour in zip(errors.items(), cycle(CURVES), strict=False):
        for (left, right), metric in zip(grid, ("mase", "energy"), strict=True):
            if metric not in frame:
                continue
            by_pass = frame.groupby("passes")
            mean, half = by_pass[metric].mean(), 1.96 * by_pass[metric].sem()
            style = {"color": colour, "label": name, "marker": "o", "ms": 2.5}
            if "green" in frame:
                left.plot(mean.index, mean, **style)
                left.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.2, lw=0)
            else:
                left.axhline(mean.iloc[-1], color=colour, ls="--")
            right.plot(1e3 * by_pass["seconds"].median(), mean, **style)
    for axes, metric in zip(grid[:, 0], ("MASE (%)", "energy error (%)"), strict=True):
        axes.set(yscale="log", ylabel=metric)
    grid[1, 0].set(xlabel="applications of the Green operator")
    grid[1, 1].set(xlabel="time for a microstructure (ms)", xscale="log")
    plain_log_ticks(grid[1, 1].xaxis)
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def trends(errors: Frames) -> Figure:
    """MASE of each microstructure against its volume fraction of phase 1 and, if it was generated, its grain size."""
    sized = all("grain" in frame for frame in errors.values())
    figure, panels = plt.subplots(1, 1 + sized, figsize=(PAGE, 2.8), sharey=True, squeeze=False)
    quantities = ("volume_fraction", "grain")[: 1 + sized]
    labels = ("volume fraction of phase 1", "geometric mean of the grain sizes (voxels)")
    for axes, quantity, label in zip(panels[0], quantities, labels, strict=False):
        for (name, frame), colour in zip(errors.items(), cycle(CURVES), strict=False):
            rows = final(frame)
            axes.scatter(rows[quantity], rows["mase"], s=4, color=colour, lw=0, label=name, rasterized=True)
        axes.set(xlabel=label, yscale="log")
    panels[0, 0].set_ylabel("MASE (%)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, markerscale=2)
    return figure
