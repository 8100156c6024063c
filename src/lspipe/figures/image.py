"""Figure of an image of a microstructure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lspipe.figures.fields import GRAINS
from lspipe.figures.style import COLOURS, PAGE

PANELS = ((2, 0, 1), (1, 0, 2), (0, 1, 2))  # axis across the slice, to the right and upwards
MOST_IN_LEGEND = 8
EDGE = COLOURS[1]  # colour of the edges of blocks


def draw_slices(
    slices: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    unit: str = "",
    block: Sequence[int] | None = None,
    kind: str = "label",
) -> Figure:
    """Draw slices through the middle of an image, each on one scale of length along both axes.

    Args:
        slices: Slices across x, y and z by their titles: (y, z), (x, z) and (x, y).
        spacing: Edge lengths of a voxel.
        unit: Unit of length.
        block: Number of voxels of a block along x, y, z, whose edges are drawn.
        kind: Kind of the values: label, phase, grain or grey value.
    """
    (titles, fields), panels = zip(*slices.items(), strict=True), [p for p in PANELS if _is_slice(slices, p)]
    values = np.unique(np.concatenate([field.ravel() for field in fields]))
    labels = values.tolist() if len(values) <= MOST_IN_LEGEND and kind != "grain" else []
    figure, grid = plt.subplots(1, len(panels), figsize=(PAGE, 2.9), squeeze=False)
    for axes, (across, right, up) in zip(grid[0], panels, strict=True):
        field = fields[across]
        style: Any = {"cmap": "gray", "vmin": values[0], "vmax": values[-1]}
        if kind == "grain":
            field, style = field % 256, {"cmap": GRAINS, "vmin": 0, "vmax": 255}
        elif labels:
            field = np.searchsorted(values, field)
            style = {"cmap": ListedColormap(_colours(len(labels))), "vmin": 0}
            style["vmax"] = max(len(labels) - 1, 1)
        lengths = [n * spacing[axis] for n, axis in zip(field.shape, (right, up), strict=True)]
        extent: Any = (0, lengths[0], 0, lengths[1])
        image = axes.imshow(field.T, origin="lower", interpolation="nearest", extent=extent, **style)
        axes.spines[:].set_visible(True)
        axes.set(title=titles[across], xlabel=_name("xyz"[right], unit), ylabel=_name("xyz"[up], unit))
        axes.locator_params(nbins=4)
        if block is not None:
            _draw_blocks(axes, lengths, [block[axis] * spacing[axis] for axis in (right, up)])
    if labels:
        patches = [Patch(fc=c, ec="0.5", label=f"{v:g}") for c, v in zip(_colours(len(labels)), labels, strict=True)]
        figure.legend(handles=patches, title=kind, loc="outside lower center", ncols=len(labels))
    elif kind != "grain":
        figure.colorbar(image, ax=grid[0].tolist(), label=kind, location="bottom", shrink=0.5, aspect=40)
    return figure


def _is_slice(slices: Mapping[str, np.ndarray], panel: tuple[int, int, int]) -> bool:
    """Whether the slice has more than one voxel along both axes; an image of one layer has a single such slice."""
    return min([*slices.values()][panel[0]].shape) > 1


def _name(axis: str, unit: str) -> str:
    return f"{axis} ({unit})" if unit else axis


def _colours(count: int) -> list[str]:
    return ["#f0f0f0", "#404040"][:count] if count <= 2 else ["#f0f0f0", "#404040", *COLOURS][:count]


def _draw_blocks(axes: Axes, lengths: Sequence[float], edges: Sequence[float]) -> None:
    """Draw the edges of the blocks that fit into a slice."""
    (width, height), (b, h) = lengths, edges
    columns, rows = int(width / b + 1e-9), int(height / h + 1e-9)
    axes.vlines(b * np.arange(columns + 1), 0, h * rows, color=EDGE, lw=0.5)
    axes.hlines(h * np.arange(rows + 1), 0, b * columns, color=EDGE, lw=0.5)
