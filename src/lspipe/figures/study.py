"""What `lspipe study` measured → figures."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lspipe.figures.style import COLOURS, CURVES, PAGE, plain_log_ticks

ROUNDING = 3e-4  # % of error in energy norm, that of fields in single precision


def gains(studies: Mapping[str, pd.DataFrame]) -> Figure:
    """For each problem of a study, by how much the error in energy norm is below that of plain conjugate gradients
    after as many Green applications: with the learned S, and with S = D⁻¹. Geometric means over the cells; where both
    are rounding in single precision there is no gain to be seen, and what is off the scale is at its edge."""
    (study,) = studies.values()
    energy = study[study["quantity"] == "energy"].assign(value=lambda rows: np.log(rows["value"].clip(lower=ROUNDING)))
    mean = energy.groupby(["method", "varied", "problem", "at"], sort=False)["value"].mean()
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, 4.2), sharex=True, sharey=True)
    labels = list(mean["cg"].index.droplevel("at").unique())
    y, edges = -np.arange(len(labels)), (0.3, 100)
    for axes, green in zip(panels, (2, 5, 10), strict=True):
        for method, face in (("rln-cg", COLOURS[0]), ("S = D⁻¹", "white")):
            errors = [mean[name].xs(green, level="at")[labels] for name in ("cg", method)]
            gain = np.exp(errors[0] - errors[1]).where(np.maximum(*errors) > np.log(ROUNDING))
            axes.plot(gain.clip(*edges), y, "o", ms=4, color=COLOURS[0], mfc=face, label=method, clip_on=False)
        axes.axvline(1, color="0.6", lw=0.8, zorder=0)
        axes.set(title=f"{green} Green applications", xscale="log", xlim=edges)
        axes.grid(axis="y", color="0.9", lw=0.5)
        plain_log_ticks(axes.xaxis)
    panels[0].set_yticks(y, [f"{varied} {problem}" for varied, problem in labels])
    panels[1].set_xlabel("energy error of cg / energy error (right of 1: better than cg)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def tolerances(studies: Mapping[str, pd.DataFrame]) -> Figure:
    """Green applications that a residual takes, by contrast: means over the cells."""
    (study,) = studies.values()
    counts = study[study["quantity"] == "iterations"]
    contrasts = ("10", "50", "100", "1000")
    figure, panels = plt.subplots(1, len(contrasts), figsize=(PAGE, 2.4))
    for axes, contrast in zip(panels, contrasts, strict=True):
        for (method, rows), colour in zip(
            counts[counts["problem"] == contrast].groupby("method", sort=False), CURVES, strict=False
        ):
            mean = rows.groupby("at")["value"].mean()
            axes.plot(mean.index, mean, "o-", ms=2.5, color=colour, label=method)
        axes.set(title=f"contrast {contrast}", xscale="log", xlabel="relative residual", ylim=(0, None))
        axes.invert_xaxis()
    panels[0].set_ylabel("Green applications")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
