"""What RLN-CG is worth beside plain conjugate gradients, far from what it was trained on too.

One thing at a time is changed of a basic problem: the paper's microstructures at contrast 50 under a strain ε̄_xx.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lspipe.cell.material import Isotropic
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.microstructure import generate
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.errors import mase
from lspipe.models.rln_cg import RLNCG, RLNCGModel
from lspipe.progress import progress

GREEN = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
XX = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Trial:
    """``varied``: what sets it apart from the basic one, and ``value``: how."""

    varied: str
    value: str
    phase: NDArray[np.integer]
    contrast: float = 50.0
    poisson: tuple[float, float] = (0.3, 0.3)
    strain: tuple[float | None, ...] = XX
    stress: tuple[float | None, ...] | None = None
    scheme: str = "bbar"

    @property
    def problem(self) -> Problem:
        soft, stiff = self.poisson
        return Problem((Isotropic(1.0, soft), Isotropic(self.contrast, stiff)), self.strain, self.stress, self.scheme)


def problems(n: int, count: int) -> Iterator[Trial]:
    """The basic problem and its variations, on ``count`` cells of n³ voxels where nothing else is said."""
    basic = Trial("contrast", "50", generate(count, n, 0, "test").phase)
    for contrast in ("1/50", "2", "10", "50", "100", "1000"):
        yield replace(basic, value=contrast, contrast=float(Fraction(contrast)))
    for size in (n // 2, 2 * n):
        cells = generate(max(1, count // 4) if size > n else count, size, 0, "test").phase
        yield replace(basic, varied="grid", value=f"{size}³", phase=cells)
    for value, cells in morphologies(n, count).items():
        yield replace(basic, varied="microstructure", value=value, phase=cells)
    loads: dict[str, tuple[Any, Any]] = {
        "shear xy": ((0.0, 0.0, 0.0, 0.0, 0.0, 1.0), None),
        "hydrostatic": ((1.0, 1.0, 1.0, 0.0, 0.0, 0.0), None),
        "uniaxial stress": ((None,) * 6, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    }
    for value, (strain, stress) in loads.items():
        yield replace(basic, varied="load", value=value, strain=strain, stress=stress)
    yield replace(basic, varied="Poisson's ratios", value="0.45, 0.2", poisson=(0.45, 0.2))
    for scheme in ("full", "reduced"):
        yield replace(basic, varied="element", value=scheme, scheme=scheme)


def morphologies(n: int, count: int) -> dict[str, NDArray[np.uint8]]:
    """Two-phase cells (count, n, n, n) of other kinds than the paper's; of those that leave nothing to chance, one."""
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


def unlearned() -> RLNCGModel:
    """RLN-CG with S = D⁻¹: what taking turns gives without learning."""
    network = RLNCG()
    h: Any = network.h.bias
    with torch.no_grad():
        h.zero_()[:3] = 1.0
    return RLNCGModel(network)


def study(model: RLNCGModel, n: int, count: int) -> pd.DataFrame:
    """Rows for each problem, ``method`` (cg, S = D⁻¹, rln-cg) and ``sample``.

    Of ``quantity`` mase and energy: the error in %, as ``value``, after the Green applications ``at``. Of iterations:
    the Green applications, as ``value``, that bring the residual down to ``at``; with five passes and then plain
    conjugate gradients too.
    """
    methods: dict[str, Any] = {"cg": ConjugateGradients(), "S = D⁻¹": unlearned(), "rln-cg": model}
    rows: list[dict[str, Any]] = []
    todo = list(problems(n, count))
    with progress("study", len(todo), "problem") as bar:
        for trial in todo:
            phase, problem = trial.phase, trial.problem
            cells = torch.from_numpy(phase.astype(np.int64))
            truth = torch.from_numpy(ConjugateGradients().predict_problem(phase, problem, tol=1e-8).strain)
            whole = problem.compute_energy(cells, truth)
            row = {"varied": trial.varied, "problem": trial.value, "sample": np.arange(len(cells))}
            for name, method in methods.items():
                for green, _, solution in method.iterates(phase, problem, counts=GREEN):
                    found = torch.from_numpy(solution.strain)
                    relative = (problem.compute_energy(cells, found - truth) / whole).sqrt()
                    for quantity, value in (("mase", mase(found, truth, ELASTICITY)), ("energy", 100 * relative)):
                        rows.append(row | {"method": name, "quantity": quantity, "at": green, "value": value.numpy()})
                ways = {name: None} if name != "rln-cg" else {name: None, "5 of rln-cg, then cg": 5}
                for tol in TOLERANCES if trial.varied == "contrast" else ():
                    for way, passes in ways.items():
                        value = method.predict_problem(phase, problem, passes=passes, tol=tol).iterations
                        rows.append(row | {"method": way, "quantity": "iterations", "at": tol, "value": value})
            bar.update()
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)
