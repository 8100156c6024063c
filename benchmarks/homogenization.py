"""Iterations, time and error of ``lspipe.homogenize`` beside six separate solutions of ``lspipe.solve``.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/homogenization.py

The six solutions have the relative residual 1e-6, and their mean stresses are the columns of the stiffness. The two
methods take turns on each microstructure, and the ratio of their times is the median over the microstructures. The
error is the largest difference of an entry, relative to C₁₁, from homogenize with a gap of 1e-10.
"""

import argparse
from itertools import product
from statistics import median
from time import perf_counter

import numpy as np
from tabulate import tabulate

import lspipe


def solve_six(phase: np.ndarray, materials: list[lspipe.Isotropic]) -> tuple[np.ndarray, float]:
    """Return the stiffness (6, 6) from the mean stress under each unit strain, and the mean number of iterations."""
    loads = np.diag([1, 1, 1, 0.5, 0.5, 0.5])
    solutions = [lspipe.solve(phase, materials, load, tol=1e-6, max_iterations=2000) for load in loads]
    stiffness = np.stack([s.stress[0].mean(axis=(1, 2, 3)) for s in solutions], axis=1)
    return (stiffness + stiffness.T) / 2, float(np.mean([s.iterations for s in solutions]))


def homogenize(phase: np.ndarray, materials: list[lspipe.Isotropic]) -> tuple[np.ndarray, float]:
    """Return the stiffness (6, 6) with a guaranteed gap of 1e-3, and the number of iterations for each unit strain."""
    effective = lspipe.homogenize(phase, materials, max_iterations=2000)
    return effective.stiffness[0], float(effective.iterations[0])


METHODS = {"six solutions": solve_six, "homogenize": homogenize}


def measure(n: int, contrast: float, count: int, turns: int) -> dict[str, object]:
    """Return a row of the table."""
    materials = [lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(contrast, 0.3)]
    iterations, seconds, errors = ({name: [] for name in METHODS} for _ in range(3))
    for phase in lspipe.generate(count, n, 0, "test").phase:
        exact = lspipe.homogenize(phase, materials, tol=1e-10, max_iterations=2000).stiffness[0]
        for _, (name, run) in product(range(turns), METHODS.items()):
            start = perf_counter()
            stiffness, passes = run(phase, materials)
            seconds[name].append(perf_counter() - start)
            iterations[name].append(passes)
            errors[name].append(np.abs(stiffness - exact).max() / exact[0, 0])
    row: dict[str, object] = {"voxels": f"{n}³", "contrast": f"{contrast:g}"}
    for name in METHODS:
        row[f"{name}: iterations"] = f"{np.mean(iterations[name]):.1f}"
        row[f"{name}: s"] = f"{median(seconds[name]):.3g}"
        row[f"{name}: error"] = f"{max(errors[name]):.0e}"
    former, ours = METHODS
    row["iterations, ratio"] = f"{np.mean(iterations[ours]) / np.mean(iterations[former]):.2f}"
    row["time, ratio"] = f"{median(np.divide(seconds[ours], seconds[former])):.2f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[31, 64], help="voxels along an edge")
    parser.add_argument("--contrasts", type=float, nargs="+", default=[10, 50, 1000], help="of Young's moduli")
    parser.add_argument("--count", type=int, default=8, help="microstructures of 31³ voxels; fewer where larger")
    parser.add_argument("--turns", type=int, default=3, help="runs of each method on each microstructure")
    args = parser.parse_args()
    rows = [
        measure(n, contrast, max(2, round(args.count * (31 / n) ** 3)), args.turns)
        for n, contrast in product(args.sizes, args.contrasts)
    ]
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
