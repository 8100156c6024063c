"""RLN-CG beside plain conjugate gradients, on problems that it was not trained on: docs/rln-cg.md.

    python benchmarks/study.py
    python benchmarks/study.py --compare results/study/models/*/seed0

Each problem changes one thing of a basic problem: the paper's microstructures at contrast 50 under a strain xx. The
folder of --out gets every measured number (study.parquet) and the two figures of docs/rln-cg.md. With --compare, it
gets the errors of the models of these folders and of cg instead (compared.parquet), and the table is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lspipe.cell.crystal import Cubic
from lspipe.cell.material import Isotropic
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem
from lspipe.figures.style import COLOURS, CURVES, PAGE, plain_log_ticks, save
from lspipe.microstructure import Polycrystal, generate
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.errors import mase
from lspipe.models.files import Model, load_model
from lspipe.models.rln_cg import RLNCG, RLNCGModel
from lspipe.progress import progress

GREEN = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ROUNDING = 3e-4  # error in energy norm, %, of fields in single precision


@dataclass(frozen=True)
class Trial:
    """Cells (N, nx, ny, nz) and the problem to solve on them; it differs from the basic trial in ``varied``."""

    varied: str
    value: str
    phase: NDArray[np.integer]
    problem: Problem


def materials(contrast: float, poisson: tuple[float, float] = (0.3, 0.3)) -> tuple[Isotropic, Isotropic]:
    return Isotropic(1.0, poisson[0]), Isotropic(contrast, poisson[1])


def trials(n: int, count: int) -> Iterator[Trial]:
    """Yield the basic trial and its variations, on ``count`` cells of n³ voxels where nothing else is stated."""
    phase = generate(count, n, 0, "test").phase
    basic = Problem(materials(50.0), (1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    for contrast in ("1/50", "2", "10", "50", "100", "1000"):
        yield Trial("contrast", contrast, phase, replace(basic, materials=materials(float(Fraction(contrast)))))
    for size in (n // 2, 2 * n):
        cells = generate(max(1, count // 4) if size > n else count, size, 0, "test").phase
        yield Trial("grid", f"{size}³", cells, basic)
    for value, cells in morphologies(n, count).items():
        yield Trial("microstructure", value, cells, basic)
    loads: dict[str, tuple[Any, Any]] = {
        "shear xy": ((0.0, 0.0, 0.0, 0.0, 0.0, 1.0), None),
        "hydrostatic": ((1.0, 1.0, 1.0, 0.0, 0.0, 0.0), None),
        "uniaxial stress": ((None,) * 6, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    }
    for value, (strain, stress) in loads.items():
        yield Trial("load", value, phase, replace(basic, strain=strain, stress=stress))
    yield Trial("Poisson's ratios", "0.45, 0.2", phase, replace(basic, materials=materials(50.0, (0.45, 0.2))))
    for scheme in ("full", "reduced"):
        yield Trial("element", scheme, phase, replace(basic, scheme=scheme))


def morphologies(n: int, count: int) -> dict[str, NDArray[np.uint8]]:
    """Make two-phase cells (count, n, n, n) of other kinds than the paper's; one cell where nothing is random."""
    rng = np.random.default_rng(0)
    x = (np.indices((n, n, n)) + 0.5) / n - 0.5
    seeds = rng.random((count, 40, 3))
    distance = np.abs(x[None, None] + 0.5 - seeds[..., None, None, None])
    distance = np.minimum(distance, 1 - distance)
    grains = np.square(distance).sum(axis=2).argmin(axis=1)
    return {
        "sphere": (np.square(x).sum(axis=0) < 0.3**2)[None].astype(np.uint8),
        "fibre": (np.square(x[:2]).sum(axis=0) < 0.35**2)[None].astype(np.uint8),
        "layers": (np.abs(x[0]) < 0.25)[None].astype(np.uint8),
        "grains": (grains % 2).astype(np.uint8),
        "noise": (rng.random((count, n, n, n)) < 0.5).astype(np.uint8),
    }


def unseen(n: int, count: int) -> Iterator[Trial]:
    """Yield the problems of config/study.yaml, and others that its networks have not seen."""
    crystals = generate(count, n, 0, "test", generator=Polycrystal(grains=20))
    for trial in trials(n, count):
        if trial.value in ("10", "50", f"{2 * n}³", "sphere", "shear xy"):
            yield trial
        if trial.value == "50":
            yield replace(trial, value="200", problem=replace(trial.problem, materials=materials(200.0)))
            copper = replace(trial.problem, materials=(Cubic(168.4, 121.4, 75.4),))
            assert crystals.material is not None
            assert crystals.orientation is not None
            phase, joined = copper.join_grains(crystals.phase, crystals.material, crystals.orientation)
            yield Trial("microstructure", "polycrystal", phase, joined)


def compare(models: Mapping[str, Model], trials: Sequence[Trial]) -> pd.DataFrame:
    """Measure models on the problems that they serve.

    Returns:
        Rows like those of ``study``, where ``at`` is the number of passes. The quantity energy is missing for networks
        that predict one component. Problems that a model refuses have no rows.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        truth = solve_problem(trial.phase, trial.problem, tol=1e-6).strain.astype(np.float64)
        for name, model in models.items():
            with suppress(ValueError):
                for passes, _, solution in model.iterates(trial.phase, trial.problem):
                    rows += measure(trial, truth, solution.strain, {"method": name, "at": passes})
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def measure(trial: Trial, truth: Any, strain: Any, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the columns of ``study`` for the errors mase and energy of a strain (N, components, nx, ny, nz), in %."""
    row = {"varied": trial.varied, "problem": trial.value, "sample": np.arange(len(truth))} | row
    fields = (torch.from_numpy(field).double() for field in (strain, truth[:, : strain.shape[1]]))
    yield row | {"quantity": "mase", "value": mase(*fields, trial.problem).numpy()}
    if strain.shape == truth.shape:
        off, size = (trial.problem.compute_energy(trial.phase, field) for field in (strain - truth, truth))
        yield row | {"quantity": "energy", "value": 100 * np.sqrt(off / size)}


def unlearned() -> RLNCGModel:
    """Make RLN-CG with S = D⁻¹, which shows what the iteration gives without learning."""
    network = RLNCG()
    h: Any = network.h.bias
    with torch.no_grad():
        h.zero_()[:3] = 1.0
    return RLNCGModel(network)


def study(model: RLNCGModel, trials: Sequence[Trial]) -> pd.DataFrame:
    """Measure three methods on every problem: cg, S = D⁻¹ and rln-cg.

    Returns:
        A row for each problem, ``method``, ``sample``, ``quantity`` and ``at``, with its ``value``. The quantities
        mase and energy are errors in % after ``at`` Green applications. The quantity iterations is the number of Green
        applications until the residual falls below ``at``; the method "5 of rln-cg, then cg" has this quantity too.
    """
    methods: dict[str, Any] = {"cg": ConjugateGradients(), "S = D⁻¹": unlearned(), "rln-cg": model}
    rows: list[dict[str, Any]] = []
    with progress("study", len(trials), "problem") as bar:
        for trial in trials:
            phase, problem = trial.phase, trial.problem
            truth = solve_problem(phase, problem, tol=1e-8).strain.astype(np.float64)
            row = {"varied": trial.varied, "problem": trial.value, "sample": np.arange(len(phase))}
            for name, method in methods.items():
                for green, _, solution in method.iterates(phase, problem, counts=GREEN):
                    rows += measure(trial, truth, solution.strain, {"method": name, "at": green})
                ways = {name: None} if name != "rln-cg" else {name: None, "5 of rln-cg, then cg": 5}
                for tol in TOLERANCES if trial.varied == "contrast" else ():
                    for way, passes in ways.items():
                        value = method.predict_problem(phase, problem, passes=passes, tol=tol).iterations
                        rows.append(row | {"method": way, "quantity": "iterations", "at": tol, "value": value})
            bar.update()
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def gains(study: pd.DataFrame) -> pd.DataFrame:
    """How many times smaller than that of plain conjugate gradients the error in energy norm is.

    Args:
        study: Rows as ``study`` returns them.

    Returns:
        A row for each problem (``varied``, ``problem``), Green applications ``at`` and method: the geometric mean over
        the cells in column ``gain``. It is NaN where both errors are rounding in single precision.
    """
    rows = study[study["quantity"] == "energy"]
    rows = rows.assign(value=np.log(rows["value"].clip(lower=ROUNDING)))
    errors = np.exp(rows.groupby(["varied", "problem", "at", "method"], sort=False)["value"].mean().unstack())
    cg = errors.pop("cg")
    above_rounding = errors.gt(1.001 * ROUNDING).apply(lambda column: column | (cg > 1.001 * ROUNDING))
    return (
        (1 / errors).mul(cg, axis="index").where(above_rounding).stack(future_stack=True).rename("gain").reset_index()
    )


def draw_gains(study: pd.DataFrame) -> Figure:
    """Draw the gain of each problem after 2, 5 and 10 Green applications. A gain off the scale is at its edge."""
    rows = gains(study)
    labels = list(rows[["varied", "problem"]].drop_duplicates().agg(" ".join, axis="columns"))
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, 4.2), sharex=True, sharey=True)
    y, edges = -np.arange(len(labels)), (0.3, 100)
    for axes, green in zip(panels, (2, 5, 10), strict=True):
        for method, face in (("rln-cg", COLOURS[0]), ("S = D⁻¹", "white")):
            gain = rows[(rows["at"] == green) & (rows["method"] == method)]["gain"].clip(*edges)
            axes.plot(gain, y, "o", ms=4, color=COLOURS[0], mfc=face, label=method, clip_on=False)
        axes.axvline(1, color="0.6", lw=0.8, zorder=0)
        axes.set(title=f"{green} Green applications", xscale="log", xlim=edges)
        axes.grid(axis="y", color="0.9", lw=0.5)
        plain_log_ticks(axes.xaxis)
    panels[0].set_yticks(y, labels)
    panels[1].set_xlabel("energy error of cg / energy error of the method (right of 1: better than cg)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def draw_tolerances(study: pd.DataFrame) -> Figure:
    """Draw the Green applications that a residual takes, by contrast: means over the cells."""
    counts = study[study["quantity"] == "iterations"]
    contrasts = ("10", "50", "100", "1000")
    figure, panels = plt.subplots(1, len(contrasts), figsize=(PAGE, 2.4))
    for axes, contrast in zip(panels, contrasts, strict=True):
        methods = counts[counts["problem"] == contrast].groupby("method", sort=False)
        for (method, rows), colour in zip(methods, CURVES, strict=False):
            mean = rows.groupby("at")["value"].mean()
            axes.plot(mean.index, mean, "o-", ms=2.5, color=colour, label=method)
        axes.set(title=f"contrast {contrast}", xscale="log", xlabel="relative residual", ylim=(0, None))
        axes.invert_xaxis()
    panels[0].set_ylabel("Green applications")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="rln-cg", help="folder of a trained rln-cg; default: the shipped weights")
    parser.add_argument("--n", type=int, default=31, help="voxels along an edge")
    parser.add_argument("--count", type=int, default=8, help="microstructures of each problem")
    parser.add_argument("--out", type=Path, default=Path("results/study"), help="folder to write")
    parser.add_argument("--compare", nargs="+", default=[], metavar="FOLDER", help="folders of trained models")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.compare:
        models = {name: load_model(name) for name in ["cg", *args.compare]}
        rows = compare(models, list(unseen(args.n, args.count)))
        rows.to_parquet(args.out / "compared.parquet")
        columns = ["quantity", "varied", "problem"]
        print(
            rows.pivot_table(index=["method", "at"], columns=columns, values="value", sort=False).round(2).to_string()
        )
        return
    model = load_model(args.model)
    if not isinstance(model, RLNCGModel):
        parser.error(f"--model {args.model}: must be a trained rln-cg")
    rows = study(model, list(trials(args.n, args.count)))
    rows.to_parquet(args.out / "study.parquet")
    save(draw_gains(rows), [args.out / "gains.png"])
    save(draw_tolerances(rows), [args.out / "tolerances.png"])


if __name__ == "__main__":
    main()
