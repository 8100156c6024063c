"""Processor time of conduction beside elasticity, for an unknown: `python benchmarks/physics.py`.

Both solve the same microstructures, contrast 50, to a residual of 10⁻⁴ on one thread. They take turns; medians.
"""

import argparse
from time import process_time

import numba
import numpy as np

import lspipe

ELASTIC = [lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(50.0, 0.3)], [1, 0, 0, 0, 0, 0], 3
THERMAL = [lspipe.Conductor(1.0), lspipe.Conductor(50.0)], [1, 0, 0], 1


def seconds(phase, materials, strain, unknowns):
    """For a microstructure, for an unknown of it, and for an iteration on that."""
    began = process_time()
    iterations = lspipe.solve(phase, materials, strain).iterations
    each = (process_time() - began) / len(phase)
    return np.array([each, each / (unknowns * phase[0].size), each / (unknowns * phase[0].size * iterations.mean())])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    numba.set_num_threads(1)
    print("| n | elastic, ms | thermal, ms | thermal / elastic for an unknown | for an unknown and iteration |")
    print("|---|---|---|---|---|")
    for n, count in ((12, 64), (31, 16), (64, 2)):
        phase = lspipe.generate(count, n, 0).phase
        for problem in (ELASTIC, THERMAL):
            seconds(phase[:1], *problem)  # compiles, and makes the operator
        taken = np.array([[seconds(phase, *problem) for problem in (ELASTIC, THERMAL)] for _ in range(turns)])
        elastic, thermal = 1e3 * np.median(taken[..., 0], axis=0)
        unknown, iteration = np.median(taken[:, 1] / taken[:, 0], axis=0)[1:]
        print(f"| {n} | {elastic:.2f} | {thermal:.2f} | {unknown:.2f} | {iteration:.2f} |", flush=True)


if __name__ == "__main__":
    main()
