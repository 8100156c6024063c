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
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.2  # widths in inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
PHASES = ListedColormap(["#f0f0f0", "#404040"])
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
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
        (line,) = left.plot(m["epoch"] + 1, m["train_loss"], label=name)
        left.plot(m["epoch"] + 1, m["valid_loss"], "o", ms=3, mfc="none", color=line.get_color())
        right.plot(m["epoch"] + 1, m["valid_mase"], "o-", ms=3, mfc="none", label=name)
    left.plot([], [], "k-", lw=1, label="training")
    left.plot([], [], "ko", ms=3, mfc="none", label="validation")
    left.set_ylabel("loss (% of ε̄$_{xx}$)")
    right.set_ylabel("validation MASE (%)")
    for axes in (left, right):
        axes.set(xlabel="epoch", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain_log_ticks(axes.yaxis)
    left.legend(ncols=2)
    return figure


def mase(networks: Mapping[str, pd.DataFrame], baselines: Mapping[str, pd.DataFrame]) -> Figure:
    """MASE over the test set: histogram of the networks, cumulative curves of every predictor."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6))
    top = max(f["mase"].max() for f in networks.values())
    for name, frame in networks.items():
        left.hist(frame["mase"], bins=np.linspace(0, 1.02 * top, 25), histtype="step", lw=1.2, label=name)
    left.set(xlabel="MASE (%)", ylabel="microstructures", xlim=(0, None))
    for frames, style in ((networks, "-"), (baselines, "--")):
        for name, frame in frames.items():
            right.plot(np.sort(frame["mase"]), np.arange(1, len(frame) + 1) / len(frame), style, lw=1.2, label=name)
    right.set(xscale="log", xlabel="MASE (%)", ylabel="fraction of microstructures", ylim=(0, 1))
    left.legend()
    right.legend()
    return figure


def slices(examples: xr.Dataset, name: str) -> Figure:
    """Phase, truth, prediction and absolute error in the slice through the worst voxel, for the worst
    and the median microstructure. Truth and prediction share one colour scale a row."""
    rows = examples.attrs["examples"]
    figure, grid = plt.subplots(len(rows), 4, figsize=(PAGE, 1.9 * len(rows)))
    for row, (label, axes) in enumerate(zip(rows, grid, strict=True)):
        example = examples.isel(example=row)
        truth, predicted = example["truth"].values * 1e3, example["iterates"].values[-1] * 1e3
        error = np.abs(predicted - truth)
        z = int(np.unravel_index(error.argmax(), error.shape)[2])
        low, high = (
            f(truth[..., z].min(), predicted[..., z].min())
            if f is min
            else f(truth[..., z].max(), predicted[..., z].max())
            for f in (min, max)
        )
        show(
            axes[0],
            example["phase"].values[..., z],
            f"{label}: sample {int(example['sample'])}, z = {z}",
            cmap=PHASES,
            vmin=0,
            vmax=1,
        )
        show(axes[1], truth[..., z], "truth", cmap="viridis", vmin=low, vmax=high)
        image = show(
            axes[2],
            predicted[..., z],
            f"{name}, MASE {float(example['mase'][-1]):.2f}%",
            cmap="viridis",
            vmin=low,
            vmax=high,
        )
        figure.colorbar(image, ax=axes[2], label="ε$_{xx}$ (10$^{-3}$)", shrink=0.85)
        image = show(axes[3], error[..., z], "|error|", cmap="magma", vmin=0)
        figure.colorbar(image, ax=axes[3], label="|Δε$_{xx}$| (10$^{-3}$)", shrink=0.85)
        axes[0].set_ylabel("y (voxel)")
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    return figure


def iterates(examples: xr.Dataset, name: str) -> Figure:
    """The median microstructure's iterates pass by pass, and their errors, each on one colour scale."""
    example = examples.isel(example=examples.attrs["examples"].index("median"))
    truth, passes = example["truth"].values * 1e3, example["iterates"].values * 1e3
    error = np.abs(passes - truth)
    z = int(np.unravel_index(error[-1].argmax(), error[-1].shape)[2])
    columns = len(passes) + 1
    figure, (top, bottom) = plt.subplots(2, columns, figsize=(PAGE, 3.2), squeeze=False)
    low, high = truth[..., z].min(), truth[..., z].max()
    for t in range(len(passes)):
        image = show(
            top[t],
            passes[t, ..., z],
            f"{name}, pass {t + 1}" if t == 0 else f"pass {t + 1}",
            cmap="viridis",
            vmin=low,
            vmax=high,
        )
        errors = show(
            bottom[t],
            error[t, ..., z],
            f"MASE {float(example['mase'][t]):.2f}%",
            cmap="magma",
            vmin=0,
            vmax=error[..., z].max(),
        )
        bottom[t].set_xlabel("x (voxel)")
    show(top[-1], truth[..., z], "truth", cmap="viridis", vmin=low, vmax=high)
    show(bottom[-1], example["phase"].values[..., z], "phase", cmap=PHASES, vmin=0, vmax=1)
    bottom[-1].set_xlabel("x (voxel)")
    figure.colorbar(image, ax=top, label="ε$_{xx}$ (10$^{-3}$)", shrink=0.9)
    figure.colorbar(errors, ax=bottom, label="|Δε$_{xx}$| (10$^{-3}$)", shrink=0.9)
    for axes in (top[0], bottom[0]):
        axes.set_ylabel("y (voxel)")
    return figure


def show(axes: Axes, field: np.ndarray, title: str, **options: Any) -> matplotlib.image.AxesImage:
    """A slice (x, y), x to the right and y up."""
    axes.set_title(title)
    axes.spines[:].set_visible(True)
    return axes.imshow(field.T, origin="lower", interpolation="nearest", **options)


def plain_log_ticks(axis: matplotlib.axis.Axis) -> None:
    """Numbers like 5 and 20 on a log axis that spans about a decade."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
