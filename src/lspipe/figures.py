"""Tables and example fields → figures. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.2  # widths in inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito
CURVES = ("#000000", *COLOURS)  # the solver in black, and then as elsewhere
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}
plt.rcParams.update(STYLE)


def save(figure: Figure, files: Iterable[Path]) -> None:
    """The figure in each file, in the format of its suffix."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
    plt.close(figure)


def learning_curves(metrics: Mapping[str, pd.DataFrame]) -> Figure:
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


def mase(networks: Mapping[str, pd.DataFrame], baseline: Mapping[int, pd.DataFrame]) -> Figure:
    """MASE over the test set: histogram of the networks, cumulative curves of these and of the solver stopped early."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6))
    every = pd.concat([f["mase"] for f in networks.values()])
    bins = np.geomspace(0.98 * every[every > 0].min(), 1.02 * every.max(), 25)
    for name, frame in networks.items():
        left.hist(frame["mase"], bins=bins, histtype="step", lw=1.2, label=name)
    left.set(xscale="log", xlabel="MASE (%)", ylabel="microstructures")
    left.yaxis.get_major_locator().set_params(integer=True)
    for name, frame in networks.items():
        right.ecdf(frame["mase"], lw=1.2, label=name)
    for grey, (passes, frame) in zip(np.linspace(0.75, 0, len(baseline)), baseline.items(), strict=True):
        right.ecdf(frame["mase"], lw=1.2, label=f"cg, {passes}", color=str(grey), ls="--")
    right.set(xscale="log", xlabel="MASE (%)", ylabel="fraction of microstructures", ylim=(0, 1))
    left.legend()
    right.legend()
    return figure


def convergence(errors: Mapping[str, pd.DataFrame]) -> Figure:
    """MASE and energy error against Green applications and against time: means over the test set, with their 95%
    confidence. A network that makes no use of the Green operator is a level in the first."""
    figure, grid = plt.subplots(2, 2, figsize=(PAGE, 4.4), sharex="col", sharey="row")
    for (name, frame), colour in zip(errors.items(), CURVES, strict=False):
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
    grid[0, 1].legend()
    return figure


def slices(examples: xr.Dataset, name: str) -> Figure:
    """Phase, truth, prediction and absolute error in the slice through the worst voxel, for the worst
    and the median microstructure. Truth and prediction share one colour scale a row."""
    rows = ("worst", "median")
    figure, grid = plt.subplots(len(rows), 4, figsize=(PAGE, 1.8 * len(rows)), sharex=True, sharey=True)
    for rank, axes in zip(rows, grid, strict=True):
        example = Example(examples, rank)
        scale = example.scale(example.truth, example.iterates[-1])
        show(axes[0], example.phase, f"{rank}: {example.place}", **PHASES)
        show(axes[1], example.truth, "truth", **scale)
        image = show(axes[2], example.iterates[-1], f"{name}, MASE {example.mase[-1]:.2f}%", **scale)
        figure.colorbar(image, ax=axes[2], label=STRAIN, shrink=0.9)
        image = show(axes[3], example.error[-1], "absolute error", cmap="magma", vmin=0)
        figure.colorbar(image, ax=axes[3], label=ERROR, shrink=0.9)
        axes[0].set_ylabel("y (voxel)")
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    return figure


def iterates(examples: xr.Dataset, name: str) -> Figure:
    """The median microstructure's iterates pass by pass, and their errors, each on one colour scale."""
    example = Example(examples, "median")
    passes = len(example.iterates)
    width = PAGE * (passes + 2) / 7
    figure, (top, bottom) = plt.subplots(2, passes + 1, figsize=(width, 2.9), sharex=True, sharey=True)
    scale = example.scale(example.truth)
    for t in range(passes):
        fields = show(top[t], example.iterates[t], f"{name}, pass {example.passes[t]}", **scale)
        title = f"MASE {example.mase[t]:.2f}%"
        worst = max(example.error.max(), 1e-12)  # where nothing is wrong
        errors = show(bottom[t], example.error[t], title, cmap="magma", norm=LogNorm(worst / 1e3, worst))
    show(top[-1], example.truth, "truth", **scale)
    show(bottom[-1], example.phase, example.place, **PHASES)
    figure.colorbar(fields, ax=top, label=STRAIN, extend="both")
    figure.colorbar(errors, ax=bottom, label=ERROR, extend="min")
    for axes in bottom:
        axes.set_xlabel("x (voxel)")
    for axes in (top[0], bottom[0]):
        axes.set_ylabel("y (voxel)")
    return figure


STRAIN, ERROR = "ε$_{xx}$ / ε̄$_{xx}$", "|Δε$_{xx}$| / ε̄$_{xx}$"
PHASES: Any = {"cmap": ListedColormap(["#f0f0f0", "#404040"]), "vmin": 0, "vmax": 1}


class Example:
    """One example of `evaluate` in the slice of constant z through its worst voxel, relative to ε̄_xx."""

    def __init__(self, examples: xr.Dataset, name: str) -> None:
        example = examples.isel(example=examples.attrs["examples"].index(name))
        example = example.sel({"pass": example["pass"] <= example.attrs["passes"]})
        mean = example.attrs["macroscopic_strain"][0]
        truth, iterates = example["truth"].values / mean, example["iterates"].values / mean
        error = np.abs(iterates - truth)
        self.z = int(np.unravel_index(error[-1].argmax(), truth.shape)[2])
        self.truth, self.iterates, self.error = truth[..., self.z], iterates[..., self.z], error[..., self.z]
        self.phase, self.passes = example["phase"].values[..., self.z], example["pass"].values
        self.place, self.mase = f"sample {int(example['sample'])}, z = {self.z}", example["mase"].values

    @staticmethod
    def scale(*fields: np.ndarray) -> Any:
        """One colour scale for several strain fields."""
        return {"cmap": "viridis", "vmin": min(f.min() for f in fields), "vmax": max(f.max() for f in fields)}


def show(axes: Axes, field: np.ndarray, title: str, **options: Any) -> matplotlib.image.AxesImage:
    """A slice (x, y), x to the right and y up."""
    axes.set_title(title)
    axes.spines[:].set_visible(True)
    axes.locator_params(nbins=4, integer=True)
    return axes.imshow(field.T, origin="lower", interpolation="nearest", **options)


def plain_log_ticks(axis: matplotlib.axis.Axis) -> None:
    """Numbers like 5 and 20 on a log axis that spans one or two decades."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
