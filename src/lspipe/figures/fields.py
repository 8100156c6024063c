"""Example fields of `evaluate` → figures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lspipe.figures.style import CURVES, PAGE

PHASES = LinearSegmentedColormap.from_list("phases", ["#f0f0f0", "#404040"])
Examples = Mapping[str, xr.Dataset]  # by predictor


def labels(examples: xr.Dataset) -> tuple[str, str]:
    """Of the strain over its mean, and of its error."""
    symbol = examples.attrs["symbol"]
    return f"{symbol} / ⟨{symbol}⟩", f"|Δ{symbol}| / ⟨{symbol}⟩"


def gallery(of: Examples) -> Figure:
    """The first microstructures of the test set and their true strain, each in its middle slice."""
    examples = common(next(iter(of.values()))).isel(example=slice(5))
    count, middle = examples.sizes["example"], examples.sizes["z"] // 2
    figure, grid = plt.subplots(2, count, figsize=(PAGE, 3.2), sharex=True, sharey=True, squeeze=False)
    phase, truth = (examples[name].values[..., middle] for name in ("phase", "truth"))
    truth = truth / examples.attrs["macroscopic_strain"][0]
    for k, (top, bottom) in enumerate(grid.T):
        show_phase(top, phase[k], f"sample {k}", max(1, phase.max()))
        image = show(bottom, truth[k], "", **Example.scale(truth))
        bottom.set_xlabel("x (voxel)")
    figure.colorbar(image, ax=grid[1], label=labels(examples)[0])
    for axes in grid[:, 0]:
        axes.set_ylabel("y (voxel)")
    return figure


def slices(of: Examples) -> Figure:
    """Phase, truth, prediction and absolute error in the slice through the worst voxel, for the worst
    and the median microstructure. Truth and prediction share one colour scale a row."""
    ((name, examples),) = of.items()
    rows = ("worst", "median")
    figure, grid = plt.subplots(len(rows), 4, figsize=(PAGE, 1.8 * len(rows)), sharex=True, sharey=True)
    for rank, axes in zip(rows, grid, strict=True):
        example = Example(examples, rank)
        scale = example.scale(example.truth, example.iterates[-1])
        show_phase(axes[0], example.phase, f"{rank}: {example.place}")
        show(axes[1], example.truth, "truth", **scale)
        image = show(axes[2], example.iterates[-1], f"{name}, MASE {example.mase[-1]:.2g}%", **scale)
        figure.colorbar(image, ax=axes[2], label=labels(examples)[0], shrink=0.9)
        image = show(axes[3], example.error[-1], "absolute error", cmap="magma", vmin=0)
        figure.colorbar(image, ax=axes[3], label=labels(examples)[1], shrink=0.9)
        axes[0].set_ylabel("y (voxel)")
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    return figure


def iterates(of: Examples) -> Figure:
    """The median microstructure's iterates pass by pass, and their errors, each on one colour scale."""
    ((name, examples),) = of.items()
    example = Example(examples, "median")
    passes = len(example.iterates)
    width = PAGE * (passes + 2) / 7
    figure, (top, bottom) = plt.subplots(2, passes + 1, figsize=(width, 2.9), sharex=True, sharey=True)
    scale = example.scale(example.truth)
    for t in range(passes):
        fields = show(top[t], example.iterates[t], f"{name}, pass {example.passes[t]}", **scale)
        title = f"MASE {example.mase[t]:.2g}%"
        worst = max(example.error.max(), 1e-12)  # where nothing is wrong
        errors = show(
            bottom[t], example.error[t].clip(worst / 1e3), title, cmap="magma", norm=LogNorm(worst / 1e3, worst)
        )
    show(top[-1], example.truth, "truth", **scale)
    show_phase(bottom[-1], example.phase, example.place)
    figure.colorbar(fields, ax=top, label=labels(examples)[0], extend="both")
    figure.colorbar(errors, ax=bottom, label=labels(examples)[1], extend="min")
    for axes in bottom:
        axes.set_xlabel("x (voxel)")
    for axes in (top[0], bottom[0]):
        axes.set_ylabel("y (voxel)")
    return figure


def density(of: Examples) -> Figure:
    """Predicted against true strain of the voxels of the common samples, by phase; brighter: more voxels."""
    ((name, examples),) = of.items()
    phase, truth, predicted = flat(examples)
    phases, (strain, _) = np.unique(phase), labels(examples)
    figure, panels = plt.subplots(1, len(phases), figsize=(PAGE / 2 * len(phases), 3), squeeze=False)
    for p, axes in zip(phases, panels[0], strict=True):
        here = phase == p
        both = np.concatenate([truth[here], predicted[here]])
        ends = np.quantile(both, [1e-4, 1 - 1e-4]) + np.array([-0.05, 0.05])
        grid: Any = {"bins": 80, "range": [ends, ends]}
        *_, image = axes.hist2d(truth[here], predicted[here], norm=LogNorm(), rasterized=True, **grid)
        axes.plot(ends, ends, color="0.4", lw=0.8)
        axes.set(title=f"{name}, phase {p}", xlabel=f"true {strain}", ylabel=f"predicted {strain}", aspect="equal")
        figure.colorbar(image, ax=axes, label="voxels")
    return figure


def distributions(of: Examples) -> Figure:
    """Distribution of the strain over the voxels of the common samples, by phase: the truth and every prediction."""
    voxels = {name: flat(examples) for name, examples in of.items()}
    phase, truth, _ = next(iter(voxels.values()))
    phases, (strain, _) = np.unique(phase), labels(next(iter(of.values())))
    figure, panels = plt.subplots(1, len(phases), figsize=(PAGE, 2.6), squeeze=False)
    for p, axes in zip(phases, panels[0], strict=True):
        here = phase == p
        every = np.concatenate([truth[here], *(predicted[here] for *_, predicted in voxels.values())])
        style: Any = {"bins": np.linspace(every.min(), every.max(), 60), "weights": np.full(here.sum(), 1 / here.sum())}
        axes.hist(truth[here], color="0.85", label="truth", **style)
        for (name, (*_, predicted)), colour in zip(voxels.items(), cycle(CURVES), strict=False):
            axes.hist(predicted[here], color=colour, lw=1, label=name, histtype="step", **style)
        axes.set(title=f"phase {p}", xlabel=strain, ylabel="fraction of voxels", yscale="log")
    panels[0, -1].legend()
    return figure


def interfaces(of: Examples) -> Figure:
    """Mean absolute error of the voxels of the common samples against their distance to the next voxel of another
    phase."""
    figure, axes = plt.subplots(figsize=(PAGE / 2, 2.8))
    for (name, examples), colour in zip(of.items(), cycle(CURVES), strict=False):
        _, truth, predicted = flat(examples)
        distance, error = common(examples)["distance"].values.ravel(), np.abs(predicted - truth)
        near = np.isfinite(distance)
        voxels = np.rint(distance[near]).astype(int)
        count = np.bincount(voxels)
        mean = np.bincount(voxels, error[near]) / np.maximum(count, 1)
        (known,) = np.nonzero(count >= 20)  # fewer say little
        axes.plot(known, 100 * mean[known], "o-", ms=2.5, color=colour, label=name)
    axes.set(xlabel="distance to the next voxel of another phase (voxels)", yscale="log")
    axes.set_ylabel(f"mean {labels(examples)[1]} (%)")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    return figure


def common(examples: xr.Dataset) -> xr.Dataset:
    """The first samples of the set, which every predictor leaves."""
    return examples.isel(example=examples["sample"].values < examples.attrs["first"])


def flat(examples: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase, truth and prediction of the voxels of the common samples, strains over ε̄_xx."""
    shared, mean = common(examples), examples.attrs["macroscopic_strain"][0]
    predicted = shared["iterates"].sel({"pass": examples.attrs["passes"]})
    return shared["phase"].values.ravel(), shared["truth"].values.ravel() / mean, predicted.values.ravel() / mean


class Example:
    """The ``worst`` or the ``median`` example in the slice of constant z through its worst voxel, relative to ε̄_xx."""

    def __init__(self, examples: xr.Dataset, rank: str) -> None:
        example = examples.isel(example=examples["sample"].values.tolist().index(examples.attrs[rank]))
        mean = example.attrs["macroscopic_strain"][0]
        worst = np.abs(example["iterates"][-1].values - example["truth"].values).argmax()
        self.z = int(np.unravel_index(worst, example["truth"].shape)[2])
        example = example.isel(z=self.z)
        self.truth, self.iterates = example["truth"].values / mean, example["iterates"].values / mean
        self.error = np.abs(self.iterates - self.truth)
        self.phase, self.passes = example["phase"].values, example["pass"].values
        self.place, self.mase = f"sample {int(example['sample'])}, z = {self.z}", example["mase"].values

    @staticmethod
    def scale(*fields: np.ndarray) -> Any:
        """One colour scale for several strain fields."""
        return {"cmap": "viridis", "vmin": min(f.min() for f in fields), "vmax": max(f.max() for f in fields)}


def show(axes: Axes, field: np.ndarray, title: str, **options: Any) -> AxesImage:
    """A slice (x, y), x to the right and y up."""
    axes.set_title(title)
    axes.spines[:].set_visible(True)
    axes.locator_params(nbins=4, integer=True)
    return axes.imshow(field.T, origin="lower", interpolation="nearest", **options)


def show_phase(axes: Axes, phase: np.ndarray, title: str, last: int = 1) -> None:
    """The phases of a slice, the ``last`` one of the cell the darkest."""
    show(axes, phase, title, cmap=PHASES, vmin=0, vmax=max(last, phase.max()))
