"""Measure RLN-CG on polycrystals of copper, beside plain conjugate gradients.

    python benchmarks/polycrystal.py

The table gives the error in the energy norm in %, after that many Green applications: the geometric mean over unseen
microstructures.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from study import unlearned
from tabulate import tabulate

import lspipe
from lspipe.cell.solver import solve_problem
from lspipe.loader import Samples
from lspipe.machine import cores
from lspipe.microstructure import Polycrystal
from lspipe.models.domain import Domain, load_scale
from lspipe.train import train

COPPER = Domain((lspipe.Cubic(168.4, 121.4, 75.4),), (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0))  # GPa
GREEN = (1, 2, 3, 5)


def solved(split: str, count: int, n: int, grains: int) -> tuple[Samples, Domain]:
    cells = lspipe.generate(count, n, 0, split, generator=Polycrystal(grains))
    phase, problem = COPPER.join_grains(cells.phase, cells.material, cells.orientation)
    y = solve_problem(phase, problem, tol=1e-6).strain / load_scale(problem)
    arrays = cells.phase, y.astype(np.float32), cells.material, cells.orientation
    return Samples(*map(torch.from_numpy, arrays)), COPPER


def errors(model, samples: Samples) -> list[float]:
    phase, problem = (part if isinstance(part, Domain) else part.numpy() for part in samples.join(COPPER))
    exact = samples.y.double().numpy() * load_scale(problem)
    whole, found = problem.compute_energy(phase, exact), []
    for passes in GREEN:
        strain = model.predict_problem(phase, problem, passes=passes).strain
        ratio = problem.compute_energy(phase, strain - exact) / whole
        found.append(100 * np.exp(np.log(ratio).mean() / 2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--grains", type=int, default=20)
    parser.add_argument("--count", type=int, default=32, help="microstructures to train on")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    print(f"{cores()} cores; {args.count} cells of {args.n}³, {args.grains} grains, {args.epochs} epochs")
    sets = {split: solved(split, count, args.n, args.grains) for split, count in (("train", args.count), ("valid", 8))}
    test, _ = solved("test", 16, args.n, args.grains)
    recipe = {"architecture": "rln-cg", "seed": 0, "batch": 4, "learning_rate": 5e-3, "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), [sets["train"]], [sets["valid"]], epochs=args.epochs, **recipe)
        models = {
            "CG": lspipe.load_model("cg"),
            "S = D⁻¹": unlearned(),
            "RLN-CG, weights of the package": lspipe.load_model("rln-cg"),
            "RLN-CG, trained on polycrystals": lspipe.load_model(folder),
        }
    rows = [(name, *errors(model, test)) for name, model in models.items()]
    print(tabulate(rows, ["", *map(str, GREEN)], "pipe", floatfmt=".3g"))


if __name__ == "__main__":
    main()
