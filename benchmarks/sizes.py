"""Processor time of an iteration for each voxel, at sizes from 12³ to 128³: `python benchmarks/sizes.py`.

The figure is docs/figures/sizes.png. The time of an iteration is a twentieth of the time that 24 take longer than 4, on
one thread. The sizes take turns, and the minimum over the turns counts, because other work only adds time.
"""

import argparse
from pathlib import Path
from time import process_time

import matplotlib.pyplot as plt
import numba
import numpy as np

import lspipe

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/sizes.png"
SIZES = [
    12,
    14,
    16,
    18,
    20,
    22,
    24,
    27,
    31,
    32,
    36,
    40,
    43,
    48,
    53,
    56,
    60,
    64,
    67,
    72,
    80,
    87,
    96,
    100,
    108,
    113,
    121,
    128,
]
MATERIALS = [lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(50.0, 0.3)]


def seconds(phase, scheme, iterations):
    began = process_time()
    strain = [1.0, 0, 0, 0, 0, 0]
    lspipe.solve(phase, MATERIALS, strain, scheme=scheme, tol=0, max_iterations=iterations, warn=False)
    return process_time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--schemes", nargs="+", default=["full"])
    args = parser.parse_args()
    numba.set_num_threads(1)
    times = {scheme: np.full(len(SIZES), np.inf) for scheme in args.schemes}
    for _ in range(args.turns):
        for i, n in enumerate(SIZES):
            phase = lspipe.generate(max(1, 31**3 // n**3), n, 0).phase
            for scheme, best in times.items():
                seconds(phase[:1], scheme, 0)  # makes the operator
                taken = (seconds(phase, scheme, 24) - seconds(phase, scheme, 4)) / 20 / phase.size
                best[i] = min(best[i], taken)
    for scheme, best in times.items():
        plt.plot(SIZES, 1e9 * best, "o-", label=scheme)
        print(f"| {scheme} | ratio to the faster neighbour |\n|---|---|")
        for i, n in enumerate(SIZES):
            neighbours = np.delete(best[max(0, i - 1) : i + 2], min(i, 1))
            print(f"| {n} | {1e9 * best[i]:.1f} ns | {best[i] / neighbours.min():.2f} |")
    plt.xlabel("voxels along an edge")
    plt.ylabel("ns per voxel and iteration")
    plt.ylim(0)
    plt.legend()
    plt.savefig(FIGURE, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
