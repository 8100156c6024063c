"""Processor time of crystals and of conduction beside isotropic elasticity: `python benchmarks/physics.py`.

Elastic and thermal cells have contrast 50. Polycrystals have 500 grains of copper at random voxels. Each is solved to a
residual of 10⁻⁴ on one thread; an iteration is a twentieth of the time that 24 take longer than 4. The three take
turns; medians.
"""

import argparse
from time import process_time

import numba
import numpy as np
from scipy.spatial.transform import Rotation

import lspipe

ELASTIC = [lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(50.0, 0.3)]
THERMAL = [lspipe.Conductor(1.0), lspipe.Conductor(50.0)]
GRAINS, COPPER = 500, lspipe.Cubic(168.4, 121.4, 75.4)


def seconds(phase, materials, **options):
    """Return the time of a microstructure."""
    strain = np.eye(len(materials[0].physics.components))[0]
    began = process_time()
    lspipe.solve(phase, materials, strain, warn=False, **options)
    return (process_time() - began) / len(phase)


def iteration(*problem):
    """Return the time of an iteration on a microstructure."""
    return (seconds(*problem, tol=0, max_iterations=24) - seconds(*problem, tol=0, max_iterations=4)) / 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    numba.set_num_threads(1)
    crystals = [COPPER.rotated(r) for r in Rotation.random(GRAINS, rng=0)]
    print("| n | elastic, ms | crystals, ms | thermal, ms | iteration, elastic, ms | crystals, ms | thermal, ms |")
    print("|---|---|---|---|---|---|---|")
    for n, count in ((12, 64), (31, 16), (64, 2)):
        phase = lspipe.generate(count, n, 0).phase
        grains = np.random.default_rng(0).integers(0, GRAINS, phase.shape)
        problems = (phase, ELASTIC), (grains, crystals), (phase, THERMAL)
        for cells, materials in problems:
            seconds(cells[:1], materials)  # compiles, and makes the operator
        taken = [[f(*problem) for f in (seconds, iteration) for problem in problems] for _ in range(turns)]
        print(f"| {n} | {' | '.join(f'{1e3 * t:.3g}' for t in np.median(taken, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
