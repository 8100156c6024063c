"""Check and measure lspipe on a CUDA card: ``make gpu``. No measurement begins after six minutes.

The script runs the tests of CUDA, measures the solver and the training, and prints one table. The share of the solver
is that of the memory bandwidth, as a copy reaches it. The share of a training is that of the arithmetic rate, as a
product of large matrices reaches it in the same precision. See solver.py and training.py.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import torch
from tabulate import tabulate

LIMIT = 360.0  # seconds after which no more rates are measured
TESTS = Path(__file__).parents[1] / "tests/test_cuda.py"


def solver_rows() -> Iterator[dict]:
    """Yield the rates of the solver for cells of growing size."""
    import solver

    for n, count in ((31, 256), (64, 32), (128, 4)):
        phase = solver.lspipe.generate(count, n, 0, "test").phase
        (record,) = solver.measure([solver.Case(n, 10.0, 1e-4, "bbar", "lspipe", 1, "cuda")], phase, turns=3)
        rate, share = record["samples_a_second"], record["of_bandwidth"]
        yield row("solver, contrast 10, tolerance 1e-4", n, count, "float32", f"{rate:.3g}", f"{share:.0%}")


def training_rows() -> Iterator[dict]:
    """Yield the rates of the training of the paper's networks, with the paper's batch."""
    import training

    args = argparse.Namespace(n=31, device="cuda", variants=["tf32", "bf16"], turns=5)
    for architecture in ("fln", "rln-t", "rln"):
        for measured in training.measure(args, architecture, 32, 1):
            code, _, precision = measured["code"].partition(" ")
            what = f"training of {architecture}" + ", straightforward code" * (code == "straightforward")
            yield row(what, 31, 32, precision or "float32", measured["samples a s"], measured["of the ceiling"])


def row(what: str, n: int, batch: int, precision: str, rate: str, share: str) -> dict:
    return {"what": what, "voxels": f"{n}³", "batch": batch, "precision": precision, "samples/s": rate, "share": share}


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: PyTorch finds no CUDA card; run it on a machine with one")
    began, rows = monotonic(), []
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", TESTS], check=False, timeout=LIMIT)
    for measured in (solver_rows(), training_rows()):
        while monotonic() < began + LIMIT and (measured_row := next(measured, None)):
            rows.append(measured_row)
            print(*measured_row.values(), flush=True)
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    print(f"\n{torch.cuda.get_device_name()}, {memory:.0f} GB, torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
