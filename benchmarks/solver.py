"""Time and memory of ``lspipe.solve``, and of other solvers on the same microstructures where they are installed.

    FANS=path/to/FANS python benchmarks/solver.py --sizes 31 --json solver.json

A shared machine's speed changes by the minute. So the contestants take turns, a batch each, and what counts
is the ratio of their times in one turn; the table shows medians over the turns.

lspipe is timed as its users call it: operators, final fields and the check of the residual included. Of the
others only the conjugate gradients are timed (see peers.py). Each stops by its own rule at the same tolerance,
lspipe on the energy norm of the residual, the others on its Euclidean norm; lspipe then measures all of them by the
energy norm, and compares their strains.
"""

import argparse
import json
import os
import platform
import re
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
import peers
from tabulate import tabulate

import lspipe
from lspipe.cell.engine import build_operator
from lspipe.cell.physics import ELASTICITY
from lspipe.machine import cores

STRAIN = [1e-3, 0, 0, 0, 0, 0]
# Numbers of single precision that an iteration must move for a voxel if each step reads and writes each of its fields
# once, 3 numbers a node: three updates of vectors (9 each), K (7 with the phase), two inner products (6 each), K⁰⁻¹
# along three axes there and back (6 each) and its product with the symbol (6).
TRAFFIC = 3 * 9 + 7 + 2 * 6 + 6 * 6 + 6


class Case(NamedTuple):
    n: int
    contrast: float
    tol: float
    scheme: str
    code: str
    threads: int
    device: str = "cpu"


class Run(NamedTuple):
    seconds: float  # of the whole batch
    iterations: np.ndarray  # (N,)
    displacement: np.ndarray  # (N, 3, n, n, n)


def materials(contrast: float) -> list[lspipe.Isotropic]:
    return [lspipe.Isotropic(120.0, 0.3), lspipe.Isotropic(120.0 * contrast, 0.3)]


def moduli(case: Case) -> np.ndarray:
    """Bulk and shear moduli of the two phases."""
    return ELASTICITY.moduli(np.stack([m.stiffness for m in materials(case.contrast)]))


def run_lspipe(case: Case, phase: np.ndarray) -> Run:
    numba.set_num_threads(case.threads)
    build_operator.cache_clear()  # a batch pays for its operators
    start = perf_counter()
    arguments = {"scheme": case.scheme, "tol": case.tol, "device": case.device}
    solution = lspipe.solve(phase, materials(case.contrast), STRAIN, **arguments)
    return Run(perf_counter() - start, solution.iterations, solution.displacement)


def run_mugrid(case: Case, phase: np.ndarray) -> Run:
    return Run(*peers.run_mugrid(phase, *moduli(case), STRAIN, case.tol))


def run_fans(case: Case, phase: np.ndarray) -> Run:
    return Run(*peers.run_fans(os.environ["FANS"], phase, *moduli(case), STRAIN, case.tol))


RUN = {"lspipe": run_lspipe, "muGrid": run_mugrid, "FANS": run_fans}
PEERS = [*["muGrid"] * (find_spec("muGrid") is not None), *["FANS"] * ("FANS" in os.environ)]


def cases(args: argparse.Namespace, n: int, contrast: float, tol: float) -> list[Case]:
    """The contestants on the same microstructures."""
    own = [Case(n, contrast, tol, s, "lspipe", t) for s, t in product(args.schemes, args.threads)]
    own += [Case(n, contrast, tol, s, "lspipe", 1, d) for s, d in product(args.schemes, args.devices)]
    return own + [Case(n, contrast, tol, "full", peer, 1) for peer in PEERS if "full" in args.schemes]


def certify(case: Case, phase: np.ndarray, u: np.ndarray) -> lspipe.Solution:
    """What displacements ``u`` of any code are worth: energy norm of the residual, strain."""
    options = {"scheme": case.scheme, "start": u, "max_iterations": 0, "warn": False}
    return lspipe.solve(phase, materials(case.contrast), STRAIN, **options)


def memory(case: Case, phase: np.ndarray) -> float:
    """MB that the process grows by at its peak (Linux only: NaN elsewhere). To be called in a fresh process."""
    status = Path("/proc/self/status")
    if case.code == "FANS":
        return float("nan")  # it runs in a process of its own
    RUN[case.code](case._replace(n=3), np.arange(27).reshape(1, 3, 3, 3) % 2)  # imports, compiled kernels
    if not status.exists():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = re.search(r"VmRSS:\s*(\d+)", status.read_text())
    RUN[case.code](case, phase)
    return (int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) - int(before[1])) / 1024


def of_bandwidth(case: Case, iterations_a_second: float) -> float:
    """Part of the device's memory bandwidth, as a copy reaches it, that TRAFFIC makes up (NaN on the CPU)."""
    if case.device == "cpu":
        return float("nan")
    import torch

    source = torch.zeros(2**28, device=case.device)
    times = []
    for _ in range(10):
        torch.cuda.synchronize(case.device)
        start = perf_counter()
        source.clone()
        torch.cuda.synchronize(case.device)
        times.append(perf_counter() - start)
    return 4 * TRAFFIC * case.n**3 * iterations_a_second / (2 * source.nbytes / median(times))


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
    rivals = {case.code: [r.seconds for r in runs[case]] for case in contestants if case.code in PEERS}
    records = []
    for case in contestants:
        seconds = [r.seconds for r in runs[case]]
        iterations, displacement = runs[case][-1][1:]
        ratios = {code: median(np.divide(theirs, seconds)) for code, theirs in rivals.items() if case.scheme == "full"}
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
                "of_bandwidth": of_bandwidth(case, iterations.sum() / median(seconds)),
                "ratios": ratios,
            }
        )
    return records


def disagreement(peer: str, contrast: float, count: int, n: int = 31, tol: float = 1e-6) -> float:
    """Mean |Δε_xx| / ε̄_xx between lspipe and a peer, both solved to ``tol``."""
    phase = lspipe.generate(count, n, 0, "test").phase
    case = Case(n, contrast, tol, "full", "lspipe", 1)
    a, b = (certify(case, phase, RUN[code](case, phase).displacement).strain[:, 0] for code in ("lspipe", peer))
    return float(np.abs(a - b).mean() / STRAIN[0])


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    packages = ["lspipe", "numpy", "numba", "scipy"] + ["muGrid"] * (find_spec("muGrid") is not None)
    return {
        "processor": name[1] if name else platform.processor(),
        "cores": cores(),
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
            "threads": r["threads"] if r["device"] == "cpu" else r["device"],
            "s a sample": f"{r['seconds']:.3g}",
            "samples a s": f"{r['samples_a_second']:.3g}",
            "iterations": f"{r['iterations']:.1f}",
            "ms an iteration": f"{r['ms_an_iteration']:.3g}",
            "residual": f"{r['residual']:.1e}",
            "peak MB": "" if np.isnan(r["peak_MB"]) else f"{r['peak_MB']:.0f}",
            **({"of bandwidth": f"{r['of_bandwidth']:.0%}"} if any(q["device"] != "cpu" for q in records) else {}),
            **{
                f"{peer}'s time / its time": f"{r['ratios'][peer]:.1f}" if peer in r["ratios"] else "" for peer in PEERS
            },
        }
        for r in records
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[31, 64, 128], help="voxels along an edge")
    parser.add_argument("--contrasts", type=float, nargs="+", default=[10, 50], help="of Young's moduli")
    parser.add_argument("--schemes", nargs="+", default=["full", "bbar"], help="the others run where 'full' does")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-4], help="relative residual")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of lspipe")
    parser.add_argument("--devices", nargs="*", default=[], help="CUDA devices to measure beside the CPU: cuda")
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
    report["disagreement"] = {f"{p} {c:g}": disagreement(p, c, 4) for p, c in product(PEERS, args.contrasts)}
    for case, difference in report["disagreement"].items():
        print(f"\nlspipe and {case} at 31³, full, both to 1e-6: mean |Δε_xx| / ε̄_xx = {difference:.1e}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
