"""Figures of load paths: stress–strain curves and plastic strain."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from lspipe.cell.physics import ELASTICITY
from lspipe.figures.fields import aspect, show, show_phase
from lspipe.figures.style import COLOURS, PAGE

MOST_ROWS, MOST_STEPS = 3, 4  # rows and columns of ``plastic``
BEYOND = 1.2  # The curve of a phase alone is cut off where it leaves the range of the microstructures by this factor.
SMALL = 0.1  # A mean below this part of the largest one, as where a load reverses, has no meaningful relative spread.
PRESCRIBED = 1e-3  # A quantity with a relative spread below this in each step is prescribed, and is not drawn.
# Thin lines in light yellow are hard to see.
FRACTIONS = ListedColormap(plt.get_cmap("viridis")(np.linspace(0, 0.9, 256)))


def curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the stress–strain curves of the microstructures, their mean and the phases alone, and the relative spread.

    The component is that of the largest macroscopic strain.
    """
    (table,) = tables.values()
    samples = table[table["sample"].notna()]
    component = find_component(samples[[f"E_{name}" for name in ELASTICITY.components]])
    names = [E, S] = [f"E_{component}", f"S_{component}"]
    table = table.assign(**{E: 100 * table[E]})
    samples = table[table["sample"].notna()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.0), width_ratios=(1.3, 1))
    draw_samples(left, samples, names)
    whole = samples[samples.groupby("sample")["converged"].transform("all")]
    whole = whole if len(whole) else samples[samples["converged"]]
    steps = whole.groupby("step")
    mean = steps[[*names, "von_mises"]].mean()
    draw_curve(left, mean[names], color="k", lw=1.6, label=f"mean of {whole['sample'].nunique()} microstructures")
    for (phase, rows), colour in zip(table.groupby("phase"), cycle(COLOURS[1::2]), strict=False):
        draw_curve(left, rows[names], color=colour, ls="--", label=f"phase {phase} alone")
    cut_off(left, samples[names])
    left.locator_params(axis="x", nbins=6)
    left.set(
        xlabel=f"macroscopic strain ε$_{{{component}}}$ (%)", ylabel=f"macroscopic stress σ$_{{{component}}}$ (GPa)"
    )
    lines = {
        S: (f"σ$_{{{component}}}$", "o-"),
        E: (f"ε$_{{{component}}}$", "^:"),
        "von_mises": ("von Mises stress", "s--"),
    }
    for name, (label, style) in lines.items():
        size, spread = mean[name].abs(), steps[name].std()
        if (spread > PRESCRIBED * size).any():
            relative = 100 * (spread / size).where(size > SMALL * size.max())
            right.plot(mean.index, relative, style, color="k", ms=2.5, lw=1, mfc="w", label=label)
    right.set(xlabel="step of the load path", ylabel="standard deviation / mean (%)", ylim=(0, None))
    right.locator_params(axis="x", integer=True)
    if right.lines:
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)  # Curves of cycles leave no room inside.
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def draw_samples(axes: Axes, samples: pd.DataFrame, names: list[str]) -> None:
    """Draw a curve for each microstructure, coloured by the volume fraction of phase 1 where it varies."""
    fraction = samples.get("f1", pd.Series(0.0, samples.index))
    colours = ScalarMappable(Normalize(fraction.min(), fraction.max()), FRACTIONS)
    for _, rows in samples.groupby("sample"):
        colour = colours.to_rgba(fraction[rows.index[0]]) if np.ptp(fraction) else "0.6"
        draw_curve(axes, rows[names], color=colour, lw=0.7)
        if not rows["converged"].all():
            ((x, y),) = np.vstack([(0, 0), rows.loc[rows["converged"], names]])[-1:]
            axes.plot(x, y, "x", color=colour, ms=4)
    if np.ptp(fraction):
        axes.figure.colorbar(colours, ax=axes, label="volume fraction of phase 1")


def draw_curve(axes: Axes, points: pd.DataFrame, **style: Any) -> None:
    """Draw a curve from the unloaded state."""
    axes.plot(*np.vstack([(0, 0), points]).T, **style)


def cut_off(axes: Axes, points: pd.DataFrame) -> None:
    """Narrow the limits of the axes to a little more than these points and the origin."""
    (x0, y0), (x1, y1) = BEYOND * np.minimum(points.min(), 0), BEYOND * np.maximum(points.max(), 0)
    left, right, bottom, top = axes.axis()
    axes.axis((max(left, x0), min(right, x1), max(bottom, y0), min(top, y1)))


def plastic(stores: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the phases and the accumulated plastic strain at kept steps, in the middle slice of the first
    microstructures that have reached one. All steps share one colour scale; voxels without plastic strain are grey."""
    (data,) = stores.values()
    component = find_component(data["mean_strain"])
    has_reached = data["converged"].isel(step=data["kept"]).values  # (sample, kept)
    samples = np.flatnonzero(has_reached.any(axis=1))[:MOST_ROWS]
    data = data.isel(sample=samples, kept=has_reached[samples].any(axis=0), z=data.sizes["z"] // 2)
    data = data.isel(kept=sorted({*np.linspace(0, data.sizes["kept"] - 1, MOST_STEPS).round().astype(int)}))
    strain, last = 100 * data["accumulated_plastic_strain"].values, int(data["phase"].max())
    rows, columns = strain.shape[:2]
    size = (PAGE * (columns + 1.3) / (MOST_STEPS + 1.3), 0.3 + 1.35 * rows)
    figure, grid = plt.subplots(rows, columns + 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    largest = max(np.nanmax(strain, initial=0), 1e-9)
    style: Any = {
        "cmap": plt.get_cmap("inferno").with_extremes(under="0.8", bad="w"),
        "norm": PowerNorm(0.5, 1e-3 * largest, largest),  # The first plastic strains are small.
        "aspect": aspect(data),
    }
    for k, axes in enumerate(grid):
        show_phase(axes[0], data.isel(sample=k), "" if k else "phase", last)
        axes[0].set_ylabel(f"sample {samples[k]}\ny (voxel)")
        for t, (panel, field) in enumerate(zip(axes[1:], strain[k], strict=True)):
            step = int(data["kept"][t])
            mean = float(100 * data["mean_strain"].isel(step=step).sel(component=component).mean())
            title = "" if k else f"step {step}, ε$_{{{component}}} = {mean:.3g}$%"
            image = show(panel, field, title, **style)
    for axes in grid[-1]:
        axes.set_xlabel("x (voxel)")
    ticks: Any = {"ticks": LogLocator(subs=(1, 5)), "format": "%g"}
    figure.colorbar(image, ax=grid, label="accumulated plastic strain (%)", extend="min", **ticks)
    return figure


def find_component(strain: ArrayLike) -> str:
    """Return the component with the largest macroscopic strain (…, 6), the first one where all are 0."""
    sizes = np.nan_to_num(np.abs(np.asarray(strain, float)))
    return ELASTICITY.components[np.unravel_index(sizes.argmax(), sizes.shape)[-1]]
