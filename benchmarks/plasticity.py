"""Time of ``lspipe.solve_path``, as multiples of a linear ``lspipe.solve`` of the same cell.

    python benchmarks/plasticity.py --size 31

The cell has elastic inclusions (20% of the volume) in a metal with Voce's hardening. It is strained to 2% in 20 steps,
along x or in uniaxial tension. All times are CPU times of the process, with one thread, and the least of several calls.
"""

import argparse
from time import process_time

import numba
import numpy as np
from tabulate import tabulate

import lspipe
from lspipe.cell.engine import build_operator
from lspipe.cell.increment import Cell
from lspipe.cell.inelastic import elastic_part
from lspipe.cell.problem import Problem


def time(function, turns=5):
    """The least CPU time in ms, and the last result."""
    times = []
    for _ in range(turns):
        began = process_time()
        result = function()
        times.append(1e3 * (process_time() - began))
    return min(times), result


def pulled(strain):
    return (strain, *[None] * 5), (None, *[0.0] * 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=31, help="voxels along an edge")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scheme", default="bbar")
    parser.add_argument("--linear", type=float, help="modulus of linear hardening, in place of Voce's law")
    parser.add_argument("--cell", help="file (.npy) to which the phases are written")
    args = parser.parse_args()
    numba.set_num_threads(1)

    phase = lspipe.generate(1, args.size, seed=0).phase[0]
    if args.cell:
        np.save(args.cell, phase)
    materials = [lspipe.Isotropic(400e3, 0.2), lspipe.Plastic(70e3, 0.3, 200, args.linear or lspipe.Voce(150, 30))]
    elastic = tuple(map(elastic_part, materials))
    contrast = [lspipe.Isotropic(50, 0.3), lspipe.Isotropic(1, 0.3)]
    strains = np.linspace(0, 0.02, args.steps + 1)[1:]
    op = build_operator(Problem(elastic, (0.0,) * 6, scheme=args.scheme), phase.shape, "cpu")
    cell = Cell(op, phase, materials)
    x, out = (op.empty(1, np.float64) for _ in range(2))
    p, Kp = (op.empty(1, np.float32) for _ in range(2))
    p.mean[0, 0], voxels = 1, op.voxels(phase[None])
    linear, _ = time(lambda: lspipe.solve(phase, contrast, [1e-3, 0, 0, 0, 0, 0], scheme=args.scheme), 5)
    rows = [("solve at contrast 50", linear, "")]
    for name, strain in (("evaluate the law, elastic", 0.001), ("evaluate the law, plastic", 0.02)):
        x.mean[0, 0] = strain
        rows.append((name, time(lambda: cell.evaluate(x, out))[0], ""))
    rows.append(("K_t p", time(lambda: cell.apply_stiffness(p, Kp))[0], ""))
    rows.append(("K p of the elastic cell", time(lambda: op.apply_stiffness(voxels, p, Kp))[0], ""))
    for name, steps in (
        ("path, strain along x", [(e, 0, 0, 0, 0, 0) for e in strains]),
        ("path, uniaxial stress", [*map(pulled, strains)]),
    ):
        spent, path = time(lambda steps=steps: lspipe.solve_path(phase, materials, steps, scheme=args.scheme), 2)
        rows.append((name, spent, f"{path.newton.sum()} Newton, {path.iterations.sum()} CG"))
        assert path.converged.all()
    table = [(name, spent, spent / linear, text) for name, spent, text in rows]
    print(tabulate(table, ["", "ms", "linear solves", "iterations"], tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
