"""The programs in examples/ do what they say."""

import runpy

import numpy as np
from conftest import REPOSITORY

from lspipe import Isotropic, solve, solve_path


def test_the_reference_solver_gives_the_strain_of_solve():
    example = runpy.run_path(str(REPOSITORY / "examples/reference_solver.py"))
    materials = [Isotropic(120, 0.3), Isotropic(3000, 0.2), Isotropic(10, 0.45)]
    moduli = [(m.young / 3 / (1 - 2 * m.poisson), m.young / 2 / (1 + m.poisson)) for m in materials]
    phase = np.random.default_rng(1).integers(0, 3, (6, 5, 7))
    E = [1e-3, -2e-4, 0, 5e-4, 0, 3e-4]
    ours = solve(phase, materials, E, tol=1e-10).strain[0]
    np.testing.assert_allclose(example["solve"](phase, moduli, E), ours, rtol=0, atol=1e-11)


def test_a_law_of_the_user_gives_its_closed_form():
    """Shear and pressure of one material, and no stress field that varies."""
    example = runpy.run_path(str(REPOSITORY / "examples/power_law.py"))
    material = example["PowerLaw"](3.0, 0.4, 0.005, 0.4)
    steps = [(1e-3, 1e-3, 1e-3, 0, 0, shear) for shear in (0.002, 0.03)]
    path = solve_path(np.zeros((2, 1, 1), int), [material], steps, tol=1e-10)
    for (*_, shear), stress in zip(steps, path.mean_stress[0], strict=True):
        equivalent = 2 / np.sqrt(3) * shear
        modulus = 3.0 / 2.8 * (1 + (equivalent / 0.005) ** 2) ** (-0.3)
        np.testing.assert_allclose(stress, [3e-3 * 5] * 3 + [0, 0, 2 * modulus * shear], rtol=1e-9, atol=1e-12)


def test_the_tangent_of_the_user_s_law_is_the_derivative_of_its_stress():
    example = runpy.run_path(str(REPOSITORY / "examples/power_law.py"))
    parameters, strain = (5.0, 1.1, 0.005, 0.4), np.array([0.01, -0.004, 0.002, 0.003, -0.006, 0.008])

    def law(strain):
        stress, tangent = np.empty(6), np.empty((6, 6))
        example["power_law"].py_func(strain.copy(), np.empty(0), parameters, stress, np.empty(0), tangent)
        return stress, tangent

    differences = [(law(strain + h)[0] - law(strain - h)[0]) / 2e-7 for h in 1e-7 * np.eye(6)]
    np.testing.assert_allclose(law(strain)[1], differences, rtol=0, atol=1e-6)


def test_the_energy_of_a_power_law_composite_lies_between_those_of_uniform_fields():
    """The energy at a strain is at most the mean of the phases' under this strain (Taylor 1938), for any exponent.

    It is at least that of the softer phase alone, whose energy is the smaller one at every strain.
    """
    example = runpy.run_path(str(REPOSITORY / "examples/power_law.py"))
    materials = [Isotropic(70.0, 0.4), example["PowerLaw"](3.0, 0.4, 0.005, 0.2)]
    phase = np.random.default_rng(2).permutation(np.arange(125) % 5 == 0).reshape(5, 5, 5)
    steps = [(e, -0.3 * e, 0, 0, 0, e) for e in np.linspace(0, 0.03, 13)[1:]]

    def energies(phase):
        path = solve_path(phase, materials, steps, tol=1e-6)
        factors = [1, 1, 1, 2, 2, 2]  # A tensor shear counts twice.
        E, S = (np.pad(a[0], ((1, 0), (0, 0))) for a in (path.mean_strain, path.mean_stress))
        return np.cumsum(((S[1:] + S[:-1]) / 2 * np.diff(E, axis=0)) @ factors)

    fraction = phase.mean()
    soft = np.array([0, 1])[phase.astype(int)]
    cell, *alone = (energies(p) for p in (soft, np.zeros((1, 1, 1), int), np.ones((1, 1, 1), int)))
    assert (cell < (1 - fraction) * alone[0] + fraction * alone[1]).all()
    assert (cell > alone[1]).all()
