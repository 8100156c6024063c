"""The look of all figures, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lspipe.files import write_bytes

COLUMN, PAGE = 3.5, 7.2  # widths in inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito
# The solver is black. Paul Tol's muted scheme continues the colours of Okabe and Ito where there are many seeds.
CURVES = ("#000000", *COLOURS, "#882255", "#44AA99", "#999933", "#AA4499", "#661100", "#DDCC77", "#332288", "#117733")
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
    """Write the figure to each file, in the format of its suffix, whole or not at all."""
    if layout := figure.get_layout_engine():  # once, not several times for each file
        layout.execute(figure)
        figure.set_layout_engine("none")
    for file in files:
        data = BytesIO()
        figure.savefig(data, format=file.suffix[1:])
        write_bytes(file, data.getbuffer())
    plt.close(figure)


def write_message(message: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = plt.figure(figsize=(PAGE, 1))
    figure.text(0.5, 0.5, fill(message, 100), ha="center", va="center", parse_math=False)
    return figure


def plain_log_ticks(axis: matplotlib.axis.Axis) -> None:
    """Label a logarithmic axis that spans one or two decades with numbers like 5 and 20."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
