"""Thermal expansion: closed forms, an assembled system, the certificate, and the effective expansion."""

import numpy as np
import pytest
from maps import engine
from numpy.testing import assert_allclose
from problems import MULTIPLICITY, SCHEMES, SPACING, anisotropic, direct, laminate, random_cell

from lspipe import Anisotropic, Isotropic, Void, effective_expansion, effective_stiffness, load_model, solve
from lspipe.cell import solver
from lspipe.cell.solver import NotConverged

UNIT = np.array([1, 1, 1, 0, 0, 0])
TILTED = (1.0, -0.5, 0.2, 0.3, -0.7, 0.4)
CRYSTALS = (
    Anisotropic(anisotropic(0).stiffness, TILTED),
    Isotropic(2.0, 0.3, 0.8),
    Anisotropic(anisotropic(1).stiffness, -0.3),
)
LAYERS = Isotropic(1.0, 0.3, 0.5), Anisotropic(anisotropic(2).stiffness, TILTED), Isotropic(5.0, 0.1)
FIXED, FREE = ([0.0] * 6, None), ([None] * 6, [0.0] * 6)
MIXED = ([None, None, 0.1, 1, None, -0.7], [1, -2, None, None, 0.3, None])
each_load = pytest.mark.parametrize("load", [FIXED, FREE, MIXED], ids=["fixed", "free", "mixed"])


def assert_close(actual, exact, rtol=1e-8):
    assert_allclose(actual, exact, rtol=0, atol=rtol * np.abs(exact).max())


@each_load
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", [(4, 3, 5), (5, 4, 1)])
def test_fields_are_those_of_the_assembled_system(grid, scheme, load):
    phase, fe = direct(grid, scheme, CRYSTALS, temperature=2.0)
    solution = solve(phase, CRYSTALS, *load, temperature=2.0, spacing=SPACING, scheme=scheme, tol=1e-10)
    exact = fe.solve(*load)
    assert_close(solution.strain[0], exact.strain)
    assert_close(solution.stress[0], exact.stress)
    assert_close(solution.mean_strain[0], exact.x[-6:])


def test_the_engine_of_other_devices_gives_the_same(monkeypatch):
    phase = np.stack([random_cell((4, 3, 5), 3, seed) for seed in range(2)])
    alone = solve(phase, CRYSTALS, *MIXED, temperature=2.0, spacing=SPACING, tol=1e-9)
    monkeypatch.setattr(solver, "build_operator", lambda *a: engine("torch", *a[:2]))
    other = solve(phase, CRYSTALS, *MIXED, temperature=2.0, spacing=SPACING, tol=1e-9)
    assert_close(other.strain, alone.strain, 1e-7)
    assert_close(other.stress, alone.stress, 1e-7)


@each_load
def test_certificate(load):
    phase, fe = direct((4, 3, 5), "bbar", CRYSTALS, temperature=2.0)
    exact = fe.solve(*load).x
    for k in (0, 1, 3, 7):
        with pytest.warns(NotConverged):
            s = solve(phase, CRYSTALS, *load, temperature=2.0, spacing=SPACING, tol=0, max_iterations=k)
        x = fe.unknowns(s.displacement[0], s.strain[0])
        if fe.energy(x) > 0:  # Without strain the bound is infinite.
            assert np.sqrt(fe.energy(x - exact) / fe.energy(x)) <= s.bound < 100
        else:
            assert np.isinf(s.bound)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("axis", range(3))
def test_laminate(axis, scheme):
    """Voxel by voxel from the closed form."""
    load = [0.3, -1.0, 0.2, 0.4, -0.6, 0.5]
    problem = laminate(axis, (0, 1, 1, 2, 0), LAYERS, load, temperature=3.0)
    solution = solve(problem.phase, LAYERS, load, temperature=3.0, scheme=scheme, tol=1e-12)
    assert_allclose(solution.strain[0], problem.strain, atol=1e-8)
    assert_allclose(solution.stress[0], problem.stress, atol=1e-8)


@pytest.mark.parametrize("material", [Isotropic(3.0, 0.2, 0.7), Anisotropic(anisotropic(3).stiffness, TILTED)])
def test_homogeneous_cell(material):
    """It is solved at once: it expands freely, or is under the stress −C:αΔT where it is held."""
    phase, free = np.zeros((3, 4, 2), int), 5.0 * material.expansion_strain
    held = solve(phase, [material], *FIXED, temperature=5.0)
    assert_allclose(held.stress[0, :, 0, 0, 0], -material.stiffness @ (MULTIPLICITY * free))
    loose = solve(phase, [material], *FREE, temperature=5.0)
    assert_allclose(loose.strain[0, :, 1, 2, 1], free, atol=1e-14)
    assert_allclose(loose.stress, 0, atol=1e-12)
    for solution in (held, loose):
        assert (solution.iterations, solution.residual, solution.bound) == (0, 0, 0)


def test_equal_expansion_of_unequal_materials_takes_no_stress():
    materials = [Isotropic(1.0, 0.3, TILTED), Isotropic(20.0, 0.1, TILTED), Void()]
    phase = random_cell((5, 4, 6), 5) % 3
    solution = solve(phase, materials, *FREE, temperature=1e-30, tol=1e-8)
    assert_allclose(solution.stress / 1e-30, 0, atol=1e-6)
    assert_allclose(solution.strain[0][:, phase < 2].T / 1e-30, np.tile(TILTED, ((phase < 2).sum(), 1)), atol=1e-6)
    assert_allclose(effective_expansion(phase, materials, tol=1e-8)[0], TILTED, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_levin(scheme):
    """Two isotropic phases: α₁ + (α₂ − α₁) (S_eff:1 − S₁:1) / (1/3K₂ − 1/3K₁) (Levin 1967, Rosen & Hashin 1970)."""
    materials = Isotropic(1.0, 0.1, 2.0), Isotropic(8.0, 0.4, -1.0)
    (a1, a2), (s1, s2) = (2.0, -1.0), [(1 - 2 * m.poisson) / m.young for m in materials]
    phase = random_cell((5, 4, 3))
    C = effective_stiffness(phase, materials, scheme=scheme, spacing=SPACING, tol=1e-9)[0]
    exact = a1 * UNIT + (a2 - a1) * (np.linalg.solve(C, UNIT) / MULTIPLICITY - s1 * UNIT) / (s2 - s1)
    found = effective_expansion(phase, materials, scheme=scheme, spacing=SPACING, tol=1e-9)[0]
    assert_allclose(found, exact, atol=1e-6 * np.abs(exact).max())


@each_load
def test_rln_cg(load):
    """Its passes solve the same equations."""
    phase = random_cell((6, 5, 4), 3)
    exact = solve(phase, CRYSTALS, *load, temperature=2.0, tol=1e-8)
    found = load_model("rln-cg").predict(phase, CRYSTALS, *load, temperature=2.0, passes=15)
    assert_close(found.strain, exact.strain, 1e-3)
    assert found.residual < 1e-3
