"""The programs in examples/ do what they say."""

import runpy

import numpy as np
from conftest import REPOSITORY

from lspipe import Isotropic, solve


def test_the_reference_solver_gives_the_strain_of_solve():
    example = runpy.run_path(str(REPOSITORY / "examples/reference_solver.py"))
    materials = [Isotropic(120, 0.3), Isotropic(3000, 0.2), Isotropic(10, 0.45)]
    moduli = [(m.young / 3 / (1 - 2 * m.poisson), m.young / 2 / (1 + m.poisson)) for m in materials]
    phase = np.random.default_rng(1).integers(0, 3, (6, 5, 7))
    E = [1e-3, -2e-4, 0, 5e-4, 0, 3e-4]
    ours = solve(phase, materials, E, tol=1e-10).strain[0]
    np.testing.assert_allclose(example["solve"](phase, moduli, E), ours, rtol=0, atol=1e-11)
