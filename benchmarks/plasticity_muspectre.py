"""Time of muSpectre for the load path of ``benchmarks/plasticity.py --linear``, strained along x to 2% in 20 steps.

    python benchmarks/plasticity.py --linear 2000 --cell cell.npy
    OMP_NUM_THREADS=1 python benchmarks/plasticity_muspectre.py cell.npy

muSpectre 0.27 has von Mises plasticity for finite strain alone, with linear hardening and logarithmic strain. Its wheel
needs an environment of its own with numpy 1.26. Time is CPU time of the process.
"""

import argparse
from time import process_time

import muSpectre
import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cell", help="phases of the cell, 0 in the inclusions and 1 in the metal")
parser.add_argument("--tol", type=float, default=1e-3, help="change of the strain at which Newton's method stops")
args = parser.parse_args()

phase = np.load(args.cell)
cell = muSpectre.Cell(list(phase.shape), [float(n) for n in phase.shape], muSpectre.Formulation.finite_strain)
inclusions = muSpectre.material.MaterialLinearElastic1_3d.make(cell, "inclusions", 400e3, 0.2)
metal = muSpectre.material.MaterialHyperElastoPlastic1_3d.make(cell, "metal", 70e3, 0.3, 200.0, 2000.0)
for pixel, number in enumerate(phase.ravel(order="F")):
    (metal if number else inclusions).add_pixel(pixel)
steps = [np.diag([strain, 0.0, 0.0]) for strain in np.linspace(0, 0.02, 21)[1:]]
solver = muSpectre.solvers.KrylovSolverCG(cell, 1e-4, 1000, muSpectre.Verbosity.Silent)
began = process_time()
results = muSpectre.solvers.newton_cg(cell, steps, solver, args.tol, 1e-4, muSpectre.Verbosity.Silent)
spent = process_time() - began
stress = np.reshape(results[-1].stress, (9, -1), order="F")[0].mean()
newton, iterations = sum(r.nb_it for r in results), results[-1].nb_fev
print(f"{spent:.2f} s, {newton} Newton, {iterations} CG, mean stress {stress:.1f} MPa")
