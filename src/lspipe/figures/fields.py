"""Figures of example fields. Each function takes the examples of each predictor, by its label."""

from __future__ import annotations

from collections.abc import Mapping
from colorsys import hsv_to_rgb
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lspipe.figures.style import CURVES, PAGE
from lspipe.statistics import average_by_distance, select_common, select_slice, select_slices

PHASES = LinearSegmentedColormap.from_list("phases", ["#f0f0f0", "#404040"])
# Hues in steps of the golden ratio: grains of near numbers have different colours.
GRAINS = ListedColormap([hsv_to_rgb(0.618034 * k % 1, 0.5, 0.65 + 0.35 * (k % 3 / 2)) for k in range(256)])
WIDEST = 5  # predictors in a row of ``comparison``
Examples = Mapping[str, xr.Dataset]


def gallery(predictors: Examples) -> Figure:
    """Draw the first five microstructures of the test set and their true strain, each in its middle slice."""
    examples = select_common(next(iter(predictors.values())).isel(example=slice(5)))
    count, middle = examples.sizes["example"], examples.sizes["z"] // 2
    figure, grid = plt.subplots(2, count, figsize=(PAGE, 3.2), sharex=True, sharey=True, squeeze=False)
    examples = examples.isel(z=middle)
    truth, last = examples["truth"].values, max(1, int(examples["phase"].max()))
    for k, (top, bottom) in enumerate(grid.T):
        show_phase(top, examples.isel(example=k), f"sample {k}", last)
        image = show(bottom, truth[k], "", aspect=aspect(examples), **colour_scale(truth))
        bottom.set_xlabel("x (voxel)")
    figure.colorbar(image, ax=grid[1], label=axis_labels(examples)[0])
    for axes in grid[:, 0]:
        axes.set_ylabel("y (voxel)")
    return figure


def slices(predictors: Examples) -> Figure:
    """Draw phase, truth, prediction and absolute error in the slice through the voxel with the largest error, for the
    worst and the median microstructure. Truth and prediction share one colour scale a row."""
    ((name, examples),) = predictors.items()
    strain, difference = axis_labels(examples)
    figure, grid = plt.subplots(2, 4, figsize=(PAGE, 3.6), sharex=True, sharey=True)
    for rank, axes in zip(("worst", "median"), grid, strict=True):
        example = select_slice(examples, rank)
        truth, prediction = example["truth"].values, example["iterates"].values[-1]
        scale = {"aspect": aspect(examples), **colour_scale(truth, prediction)}
        show_phase(axes[0], example, f"{rank}: {place(example)}")
        show(axes[1], truth, "truth", **scale)
        image = show(axes[2], prediction, f"{name}, MASE {example['mase'].values[-1]:.2g}%", **scale)
        figure.colorbar(image, ax=axes[2], label=strain, shrink=0.9)
        style: Any = {"cmap": "magma", "vmin": 0, "aspect": aspect(examples)}
        image = show(axes[3], example["error"].values[-1], "absolute error", **style)
        figure.colorbar(image, ax=axes[3], label=difference, shrink=0.9)
        axes[0].set_ylabel("y (voxel)")
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    return figure


def comparison(predictors: Examples) -> Figure:
    """Draw truth and all predictions of the hardest microstructure, and their absolute errors, in one slice.

    The strains share one colour scale, and so do the errors. A row has at most five predictors.
    """
    cuts = select_slices(predictors, "hardest")
    names, (some, *_) = [*cuts], cuts.values()
    strain, difference = axis_labels(some)
    rows = [names[i : i + WIDEST] for i in range(0, len(names), WIDEST)]
    columns = 1 + len(rows[0])
    size = (PAGE * (columns + 1) / (WIDEST + 2), 2.6 * len(rows))
    figure, grid = plt.subplots(2 * len(rows), columns, figsize=size, sharex=True, sharey=True)
    worst = max(1e-12, *(np.nanmax(cut["error"][-1]) for cut in cuts.values()))  # a logarithmic scale needs an error
    scale = {"aspect": aspect(some), **colour_scale(some["truth"].values)}
    style: Any = {"cmap": "magma", "norm": LogNorm(worst / 1e3, worst), "aspect": aspect(some)}
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (top, bottom) in zip(rows, grid.reshape(len(rows), 2, -1), strict=True):
        fields = show(top[0], some["truth"].values, "truth", **scale)
        show_phase(bottom[0], some, place(some).replace(", ", "\n"))
        for name, upper, lower in zip(row, top[1:], bottom[1:], strict=False):
            cut = cuts[name]
            show(upper, cut["iterates"].values[-1], name, **scale)
            error = cut["error"].values[-1].clip(worst / 1e3)
            errors = show(lower, error, f"MASE {cut['mase'].values[-1]:.2g}%", **style)
        figure.colorbar(fields, ax=top, label=strain, extend="both")
        figure.colorbar(errors, ax=bottom, label=difference, extend="min")
        top[0].set_ylabel("y (voxel)")
        bottom[0].set_ylabel("y (voxel)")
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    return figure


def iterates(predictors: Examples) -> Figure:
    """Draw the iterates of the median microstructure pass by pass, and their errors, each row on one colour scale."""
    ((name, examples),) = predictors.items()
    example = select_slice(examples, "median")
    passes, truth, error = example["pass"].values, example["truth"].values, example["error"].values
    width = PAGE * (len(passes) + 2) / 7
    figure, (top, bottom) = plt.subplots(2, len(passes) + 1, figsize=(width, 2.9), sharex=True, sharey=True)
    worst = max(np.nanmax(error), 1e-12)  # a logarithmic scale needs an error
    scale = {"aspect": aspect(examples), **colour_scale(truth)}
    style: Any = {"cmap": "magma", "norm": LogNorm(worst / 1e3, worst), "aspect": aspect(examples)}
    for t, count in enumerate(passes):
        fields = show(top[t], example["iterates"].values[t], f"{name}, pass {count}", **scale)
        title = f"MASE {example['mase'].values[t]:.2g}%"
        errors = show(bottom[t], error[t].clip(worst / 1e3), title, **style)
    show(top[-1], truth, "truth", **scale)
    show_phase(bottom[-1], example, place(example))
    strain, difference = axis_labels(examples)
    figure.colorbar(fields, ax=top, label=strain, extend="both")
    figure.colorbar(errors, ax=bottom, label=difference, extend="min")
    for axes in bottom:
        axes.set_xlabel("x (voxel)")
    for axes in (top[0], bottom[0]):
        axes.set_ylabel("y (voxel)")
    return figure


def density(predictors: Examples) -> Figure:
    """Draw predicted against true strain of the voxels of the common samples, by phase; brighter means more voxels."""
    ((name, examples),) = predictors.items()
    phase, truth, predicted = select_voxels(examples)
    phases, (strain, _) = np.unique(phase), axis_labels(examples)
    figure, panels = plt.subplots(1, len(phases), figsize=(PAGE / 2 * len(phases), 3), squeeze=False)
    for p, axes in zip(phases, panels[0], strict=True):
        x, y = truth[phase == p], predicted[phase == p]
        ends = np.quantile([x, y], [1e-4, 1 - 1e-4]) + np.array([-0.05, 0.05])
        grid: Any = {"bins": 80, "range": [ends, ends]}
        *_, image = axes.hist2d(x, y, norm=LogNorm(), rasterized=True, **grid)
        axes.plot(ends, ends, color="0.4", lw=0.8)
        axes.set(title=f"{name}, phase {p}", xlabel=f"true {strain}", ylabel=f"predicted {strain}", aspect="equal")
        figure.colorbar(image, ax=axes, label="number of voxels")
    return figure


def distributions(predictors: Examples) -> Figure:
    """Draw the distribution of the true and predicted strain over the voxels of the common samples, by phase."""
    voxels = {name: select_voxels(examples) for name, examples in predictors.items()}
    phase, truth, _ = next(iter(voxels.values()))
    phases, (strain, _) = np.unique(phase), axis_labels(next(iter(predictors.values())))
    figure, panels = plt.subplots(1, len(phases), figsize=(PAGE, 2.6), squeeze=False)
    for p, axes in zip(phases, panels[0], strict=True):
        inside = phase == p
        fields = {name: predicted[inside] for name, (*_, predicted) in voxels.items()}
        every = np.concatenate([truth[inside], *fields.values()])
        weights = np.full(inside.sum(), 1 / inside.sum())
        style: Any = {"bins": np.linspace(every.min(), every.max(), 60), "weights": weights}
        axes.hist(truth[inside], color="0.85", label="truth", **style)
        for (name, predicted), colour in zip(fields.items(), cycle(CURVES), strict=False):
            axes.hist(predicted, color=colour, lw=1, label=name, histtype="step", **style)
        axes.set(title=f"phase {p}", xlabel=strain, ylabel="fraction of voxels", yscale="log")
    panels[0, -1].legend()
    return figure


def interfaces(predictors: Examples) -> Figure:
    """Draw the mean absolute error of the voxels of the common samples against their distance to another phase."""
    figure, axes = plt.subplots(figsize=(PAGE / 2, 2.8))
    for (name, examples), colour in zip(predictors.items(), cycle(CURVES), strict=False):
        errors = average_by_distance(examples)
        axes.plot(errors.index, errors, "o-", ms=2.5, color=colour, label=name)
    other = "grain" if any("crystal" in examples for examples in predictors.values()) else "phase"
    axes.set(xlabel=f"distance to the nearest other {other} (voxels)", yscale="log")
    axes.set_ylabel(f"mean {axis_labels(examples)[1]} (%)")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    return figure


def axis_labels(examples: xr.Dataset) -> tuple[str, str]:
    """Return the labels of the strain over its scale, and of the error of this."""
    symbol, mean = examples.attrs["symbol"], examples.attrs["mean"]
    return f"{symbol} / {mean}", f"|Δ{symbol}| / {mean}"


def select_voxels(examples: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phase, truth and final prediction of the voxels of the common samples, as vectors without voids."""
    common = select_common(examples)
    predicted = common["iterates"].sel({"pass": examples.attrs["passes"]}).values
    phase, truth = common["phase"].values, common["truth"].values
    solid = np.isfinite(truth)
    return phase[solid], truth[solid], predicted[solid]


def place(example: xr.Dataset) -> str:
    return f"sample {int(example['sample'])}, z = {int(example['z'])}"


def colour_scale(*fields: np.ndarray) -> Any:
    """Return the options of one colour scale for several strain fields."""
    return {"cmap": "viridis", "vmin": min(map(np.nanmin, fields)), "vmax": max(map(np.nanmax, fields))}


def aspect(examples: xr.Dataset) -> float:
    """Return the height of a voxel over its width in a slice (x, y)."""
    x, y, _ = examples.attrs["spacing"]
    return y / x


def show(axes: Axes, field: np.ndarray, title: str, **options: Any) -> AxesImage:
    """Draw a slice (x, y), x to the right and y up."""
    axes.set_title(title)
    axes.set_axis_on()
    axes.spines[:].set_visible(True)
    axes.locator_params(nbins=4, integer=True)
    return axes.imshow(field.T, origin="lower", interpolation="nearest", **options)


def show_phase(axes: Axes, example: xr.Dataset, title: str, last: int = 1) -> None:
    """Draw the phases of a slice in greys, with phase ``last`` the darkest, or draw its grains in colours."""
    if "crystal" in example:
        style: Any = {"cmap": GRAINS, "vmin": 0, "vmax": 255}
        show(axes, example["crystal"].values % 256, title, aspect=aspect(example), **style)
    else:
        phase = example["phase"].values
        show(axes, phase, title, aspect=aspect(example), cmap=PHASES, vmin=0, vmax=max(last, phase.max()))
