"""Time and memory of ``lspipe.solve``, and of muGrid on the same microstructures where it is installed.

    python benchmarks/solver.py --sizes 31 --json solver.json

A shared machine's speed changes by the minute. So the contestants take turns, a batch each, and what counts
is the ratio of their times in one turn; the table shows medians over the turns.

lspipe is timed as its users call it: operators, final fields and the check of the residual included. Of
muGrid (fused HEX8 operator, Green preconditioner, one sample at a time) only the conjugate gradients are
timed. Each stops by its own rule at the same tolerance, lspipe on the energy norm of the residual, muGrid on
its Euclidean norm; lspipe then measures both by the energy norm, and compares their strains.
"""

import argparse
import json
import os
import platform
import re
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numba
import numpy as np
from tabulate import tabulate

import lspipe
from lspipe.cell.material import moduli
from lspipe.cell.operator import operator

STRAIN = [1e-3, 0, 0, 0, 0, 0]


class Case(NamedTuple):
    n: int
    contrast: float
    tol: float
    scheme: str
    code: str
    threads: int


class Run(NamedTuple):
    seconds: float  # of the whole batch
    iterations: np.ndarray  # (N,)
    displacement: np.ndarray  # (N, 3, n, n, n)


def materials(contrast: float) -> list[lspipe.Isotropic]:
    return [lspipe.Isotropic(120.0, 0.3), lspipe.Isotropic(120.0 * contrast, 0.3)]


def run_lspipe(case: Case, phase: np.ndarray) -> Run:
    numba.set_num_threads(case.threads)
    operator.cache_clear()  # a batch pays for its operators
    start = perf_counter()
    solution = lspipe.solve(phase, materials(case.contrast), STRAIN, scheme=case.scheme, tol=case.tol)
    return Run(perf_counter() - start, solution.iterations, solution.displacement)


def run_mugrid(case: Case, phase: np.ndarray) -> Run:
    import muGrid
    from muGrid.Preconditioners import make_reference_stiffness_preconditioner
    from muGrid.Solvers import conjugate_gradients

    bulk, shear = moduli(np.stack([m.stiffness for m in materials(case.contrast)]))
    lame = np.array([bulk - 2 / 3 * shear, shear])  # λ and μ of the two phases
    spacing = [1.0, 1.0, 1.0]
    stiffness = muGrid.IsotropicStiffnessOperator3D(spacing)
    engine = muGrid.FFTEngine([case.n] * 3, ghosts=stiffness)
    lambda0, mu0 = (lame.min(axis=1) + lame.max(axis=1)) / 2
    green = make_reference_stiffness_preconditioner(
        engine, element=muGrid.FEMElement.q1, grid_spacing=spacing, lambda_ref=lambda0, mu_ref=mu0
    )
    fields = [engine.real_space_field(name) for name in ("lambda", "mu")]
    b, u = (engine.real_space_field(name, (3,)) for name in ("b", "u"))

    def apply(x, y):
        engine.communicate_ghosts(x)
        stiffness.apply(x, *fields, y)

    seconds, iterations, displacement = 0.0, [], []
    for cell in phase:
        for field, values in zip(fields, lame, strict=True):
            field.p[...] = values[cell]
            engine.communicate_ghosts(field)
        stiffness.apply_macro_rhs(*(f._cpp for f in fields), [STRAIN[0], *[0.0] * 8], b._cpp)
        b.p[...] *= -1
        u.set_zero()
        history = []
        start = perf_counter()
        conjugate_gradients(
            engine.communicator,
            engine.real_space_collection,
            b,
            u,
            apply,
            green,
            rtol=case.tol,
            callback=lambda i, _, history=history: history.append(i),
        )
        seconds += perf_counter() - start
        iterations.append(history[-1])
        displacement.append(np.array(u.p))
    return Run(seconds, np.array(iterations), np.stack(displacement))


RUN = {"lspipe": run_lspipe, "muGrid": run_mugrid}


def cases(args: argparse.Namespace, n: int, contrast: float, tol: float) -> list[Case]:
    """The contestants on the same microstructures."""
    own = [Case(n, contrast, tol, s, "lspipe", t) for s, t in product(args.schemes, args.threads)]
    peer = [Case(n, contrast, tol, "full", "muGrid", 1)]
    return own + (peer if "full" in args.schemes and find_spec("muGrid") else [])


def certify(case: Case, phase: np.ndarray, u: np.ndarray) -> lspipe.Solution:
    """What displacements ``u`` of any code are worth: energy norm of the residual, strain."""
    with warnings.catch_warnings(action="ignore"):
        return lspipe.solve(phase, materials(case.contrast), STRAIN, scheme=case.scheme, start=u, max_iterations=0)


def memory(case: Case, phase: np.ndarray) -> float:
    """MB that the process grows by at its peak (Linux only: NaN elsewhere). To be called in a fresh process."""
    status = Path("/proc/self/status")
    RUN[case.code](case._replace(n=3), phase[:, :3, :3, :3])  # imports, compiled kernels
    if not status.exists():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = re.search(r"VmRSS:\s*(\d+)", status.read_text())
    RUN[case.code](case, phase)
    return (int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) - int(before[1])) / 1024


def fresh(function, *args):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *args).result()


def measure(contestants: list[Case], phase: np.ndarray, turns: int) -> list[dict]:
    """One record a contestant."""
    for case in contestants:
        RUN[case.code](case, phase[:1])  # compiled kernels are loaded, caches are warm
    runs = {case: [] for case in contestants}
    for _, case in product(range(turns), contestants):
        runs[case].append(RUN[case.code](case, phase))
    peer = [[r.seconds for r in runs[case]] for case in contestants if case.code == "muGrid"]
    records = []
    for case in contestants:
        seconds = [r.seconds for r in runs[case]]
        iterations, displacement = runs[case][-1][1:]
        ratios = [p / s for p, s in zip(peer[0], seconds, strict=True)] if peer and case.scheme == "full" else []
        records.append(
            {
                **case._asdict(),
                "samples": len(phase),
                "seconds_a_batch": seconds,
                "seconds": median(seconds) / len(phase),
                "samples_a_second": len(phase) / median(seconds),
                "iterations": float(iterations.mean()),
                "ms_an_iteration": 1e3 * median(seconds) / float(iterations.sum()),
                "residual": float(certify(case, phase, displacement).residual.max()),
                "peak_MB": fresh(memory, case, phase[: case.threads]),
                "times_muGrid": median(ratios) if ratios else None,
            }
        )
    return records


def disagreement(contrast: float, count: int, n: int = 31, tol: float = 1e-6) -> float:
    """Mean |Δε_xx| / ε̄_xx between lspipe and muGrid, both solved to ``tol``."""
    phase = lspipe.generate(count, n, 0, "test").phase
    case = Case(n, contrast, tol, "full", "lspipe", 1)
    a, b = (certify(case, phase, RUN[code](case, phase).displacement).strain[:, 0] for code in RUN)
    return float(np.abs(a - b).mean() / STRAIN[0])


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    packages = ["lspipe", "numpy", "numba", "scipy"] + ["muGrid"] * (find_spec("muGrid") is not None)
    return {
        "processor": name[1] if name else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{p: version(p) for p in packages},
    }


def table(records: list[dict]) -> str:
    rows = [
        {
            "n": r["n"],
            "contrast": f"{r['contrast']:g}",
            "tol": f"{r['tol']:g}",
            "scheme": r["scheme"],
            "code": r["code"],
            "threads": r["threads"],
            "s a sample": f"{r['seconds']:.3g}",
            "samples a s": f"{r['samples_a_second']:.3g}",
            "iterations": f"{r['iterations']:.1f}",
            "ms an iteration": f"{r['ms_an_iteration']:.3g}",
            "residual": f"{r['residual']:.1e}",
            "peak MB": f"{r['peak_MB']:.0f}",
            "muGrid's time / its time": f"{r['times_muGrid']:.1f}" if r["times_muGrid"] else "",
        }
        for r in records
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[31, 64, 128], help="voxels along an edge")
    parser.add_argument("--contrasts", type=float, nargs="+", default=[10, 50], help="of Young's moduli")
    parser.add_argument("--schemes", nargs="+", default=["full", "bbar"], help="muGrid runs where 'full' does")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-4], help="relative residual")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of lspipe")
    parser.add_argument("--count", type=int, default=16, help="samples a batch at 31 voxels; fewer where larger")
    parser.add_argument("--turns", type=int, default=5, help="of the contestants, a batch each")
    parser.add_argument("--json", type=Path, help="writes every measurement there")
    args = parser.parse_args()

    report = {"machine": machine(), "load_before": os.getloadavg(), "records": []}
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for n, contrast, tol in product(args.sizes, args.contrasts, args.tolerances):
        count = max(*args.threads, round(args.count * (31 / n) ** 3))
        phase = lspipe.generate(count, n, 0, "test").phase
        report["records"] += measure(cases(args, n, contrast, tol), phase, args.turns)
        print(f"{n}³, contrast {contrast:g}, tolerance {tol:g}: done", flush=True)
    report["load_after"] = os.getloadavg()
    print(f"load {report['load_before'][0]:.1f} before, {report['load_after'][0]:.1f} after\n")
    print(table(report["records"]))
    if find_spec("muGrid"):
        report["disagreement"] = {c: disagreement(c, 4) for c in args.contrasts}
        print("\nlspipe and muGrid at 31³, full, both to 1e-6:")
        for contrast, difference in report["disagreement"].items():
            print(f"contrast {contrast:g}: mean |Δε_xx| / ε̄_xx = {difference:.1e}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
