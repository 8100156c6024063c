"""Control variates for the mean effective stiffness C₁₁ of a population of microstructures.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/control_variates.py

A control variate X is cheap and correlates with the stiffness Y of ``lspipe.solve``. The mean of Y is estimated from
pairs (X, Y) of some microstructures and the mean of X over many more. The estimate is unbiased whatever X is. With the
correlation ρ and the cost w of X relative to Y, its variance at equal cost is smaller than that of plain Monte Carlo by
1/(√(1−ρ²) + √w ρ)². A value below 1 means that the control variate does not pay. Costs include the generation of the
microstructure. Several variates are combined by linear regression, of which ρ is the adjusted multiple correlation.
"""

import argparse
from time import perf_counter

import numpy as np
from tabulate import tabulate

import lspipe
from lspipe.cell.problem import Problem

E = 1e-3
COUNTS = {name: {"counts": (1, 2, 3)} for name in ("cg", "rln-cg")}  # passes; other networks yield all of theirs


def correlate(variates: list[np.ndarray], y: np.ndarray) -> float:
    """Return the adjusted multiple correlation of y with some variates."""
    A = np.stack([np.ones_like(y), *variates], axis=1)
    misfit = y - A @ np.linalg.lstsq(A, y, rcond=None)[0]
    share = (misfit @ misfit / (len(y) - A.shape[1])) / y.var(ddof=1)
    return float(np.sqrt(max(1 - share, 0)))


def gain(rho: float, w: float) -> float:
    """Return the factor by which the variance decreases at equal cost."""
    return (np.sqrt(1 - rho**2) + np.sqrt(w) * rho) ** -2


def measure(contrast: int, count: int, n: int) -> list[dict[str, object]]:
    """Return the rows of the table for one contrast."""
    materials = (lspipe.Isotropic(120.0, 0.3), lspipe.Isotropic(120.0 * contrast, 0.3))
    problem = Problem(materials, (E, 0, 0, 0, 0, 0))
    lspipe.generate(1, n, 0, "test")  # The imports are not measured.
    start = perf_counter()
    phases = lspipe.generate(count, n, 0, "test").phase
    generation = (perf_counter() - start) / count
    names = ["cg", "rln-cg", f"fln-c{contrast}", f"rln-c{contrast}"]
    models = {name: lspipe.load_model(name) for name in names}
    for name, model in models.items():  # Compilation is not measured.
        list(model.iterates(phases[:1], problem, **COUNTS.get(name, {})))
    lspipe.solve(phases[0], materials, problem.strain)

    y, seconds, x, times = [], [], {}, {}
    for phase in phases:
        start = perf_counter()
        y.append(lspipe.solve(phase, materials, problem.strain, tol=1e-4).stress[0, 0].mean() / E)
        seconds.append(perf_counter() - start)
        C11 = np.array([m.stiffness[0, 0] for m in materials])[phase]
        for name, model in models.items():
            for passes, spent, solution in model.iterates(phase[None], problem, **COUNTS.get(name, {})):
                if solution.stress is not None:
                    value = solution.stress[0, 0].mean() / E
                else:  # These networks predict ε_xx alone.
                    value = (C11 * solution.strain[0, 0]).mean() / E
                x.setdefault((name, passes), []).append(value)
                times.setdefault((name, passes), []).append(spent)
    truth, f = np.array(y), phases.mean(axis=(1, 2, 3))
    cost = np.median(seconds) + generation
    fractions = [f, f**2]
    rows = [("volume fraction", 0.0, [*fractions])]
    rows += [(f"{name}, passes: {k}", np.median(times[name, k]), [np.array(v)]) for (name, k), v in x.items()]
    table = []
    for name, spent, variates in rows:
        w = (spent + generation) / cost
        alone, joint = correlate(variates, truth), correlate([*fractions, *variates[:1]], truth)
        table.append(
            {
                "contrast": contrast,
                "control variate": name,
                "ms": f"{1e3 * spent:.3g}",
                "w": f"{w:.2g}",
                "ρ": f"{alone:.5f}",
                "gain": f"{gain(alone, w):.3g}",
                "ρ with volume fraction": f"{joint:.5f}" if spent else "",
                "gain with volume fraction": f"{gain(joint, w):.3g}" if spent else "",
            }
        )
    print(f"contrast {contrast}: {generation * 1e3:.3g} ms to generate, {np.median(seconds) * 1e3:.3g} ms to solve")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=96, help="microstructures")
    parser.add_argument("--n", type=int, default=31, help="voxels along an edge")
    parser.add_argument("--contrasts", type=int, nargs="+", default=[10, 50])
    options = parser.parse_args()
    rows = [row for contrast in options.contrasts for row in measure(contrast, options.count, options.n)]
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
