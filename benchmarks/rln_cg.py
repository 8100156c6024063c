"""RLN-CG beside plain conjugate gradients: error against Green applications and against seconds.

    python benchmarks/rln_cg.py results/default/models/rln-cg/seed0 --n 31 --contrasts 10 50 1000

Unseen microstructures under a strain ε̄_xx. Three methods run the same number of passes: plain conjugate gradients
(`cg`, lspipe.solve stopped early), RLN-CG with S = D⁻¹ in place of the learned S (`jacobi`: what alternation gives
without learning), and RLN-CG. Each pass of each takes one application of K⁰⁻¹; of K, plain CG takes one and the
others two.
MASE and relative error in energy norm, both in %: mean, and standard deviation over the microstructures. Seconds are
those of a call for one microstructure, all included, on as many threads as asked.
"""

import argparse
import os
import warnings
from time import perf_counter

import numba
import numpy as np
import torch
from tabulate import tabulate

import lspipe
from lspipe.cell.material import stiffnesses
from lspipe.models.rln_cg import RLNCG, RLNCGModel

STRAIN = [1e-3, 0, 0, 0, 0, 0]
ENGINEERING = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)


def jacobi() -> RLNCGModel:
    """S = D⁻¹."""
    network = RLNCG()
    with torch.no_grad():
        network.h.bias.zero_()[:3] = 1.0
    return RLNCGModel(network)


def energy(phase: np.ndarray, C: np.ndarray, strain: np.ndarray) -> np.ndarray:
    """Σ ε:C:ε over the voxels, (N,)."""
    e = ENGINEERING * strain
    return sum(
        ((phase == p)[:, None] * np.einsum("ij,nj...->ni...", Cp, e) * e).sum((1, 2, 3, 4)) for p, Cp in enumerate(C)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a trained rln-cg")
    parser.add_argument("--n", type=int, default=31)
    parser.add_argument("--contrasts", type=float, nargs="*", default=[10, 50])
    parser.add_argument("--passes", type=int, nargs="*", default=[1, 2, 4, 6, 10])
    parser.add_argument("--count", type=int, default=16, help="microstructures")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore", lspipe.cell.solver.NotConverged)
    numba.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    learned = lspipe.load_model(args.model)
    phase = lspipe.generate(args.count, args.n, 0, "test").phase
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {args.count} microstructures of {args.n}³")
    for contrast in args.contrasts:
        materials = [lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(contrast, 0.3)]
        C = stiffnesses(materials)
        truth = lspipe.solve(phase, materials, STRAIN, tol=1e-6).strain
        methods = {
            "cg": lambda p, k, m=materials: lspipe.solve(p, m, STRAIN, tol=0, max_iterations=k),
            "jacobi": lambda p, k, m=materials: jacobi().predict(p, m, STRAIN, passes=k),
            "rln-cg": lambda p, k, m=materials: learned.predict(p, m, STRAIN, passes=k),
        }
        rows = []
        for name, method in methods.items():
            for passes in args.passes:
                error = method(phase, passes).strain - truth
                mase = 100 * np.abs(error[:, 0]).mean(axis=(1, 2, 3)) / STRAIN[0]
                relative = 100 * np.sqrt(energy(phase, C, error) / energy(phase, C, truth))
                began = perf_counter()
                for cell in phase[:4]:
                    method(cell, passes)
                seconds = (perf_counter() - began) / 4
                rows.append((name, passes, mase.mean(), mase.std(), relative.mean(), relative.std(), seconds))
        head = ("method", "Green applications", "MASE %", "±", "energy %", "±", "s each")
        print(f"\ncontrast {contrast:g}\n\n{tabulate(rows, head, tablefmt='github', floatfmt='.3g')}")


if __name__ == "__main__":
    main()
