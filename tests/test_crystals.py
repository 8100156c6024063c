"""Crystals and polycrystals: rotation, exact moduli, published values, materials for each microstructure."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import MATERIALS, UNIT_LOADS, anisotropic, random_cell, tensor, voigt
from scipy.spatial.transform import Rotation

from lspipe import Anisotropic, Cubic, Isotropic, bounds, effective_expansion, effective_stiffness, load_model, solve
from lspipe.cell.homogenize import homogenize_problem
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem

COPPER = Cubic(168.4, 121.4, 75.4)
ZINC = Anisotropic(anisotropic(7).stiffness, (1.0, -0.5, 0.2, 0.3, -0.7, 0.4))
STRAIN = (0.3, -1.0, 0.2, 0.4, -0.6, 0.5)


@pytest.mark.parametrize("axis", range(3))
def test_a_quarter_turn_turns_the_fields(axis):
    """Cell, crystals, load, expansion and voxels turn together."""
    turn = Rotation.from_rotvec(np.pi / 2 * np.eye(3)[axis])
    R, plane = turn.as_matrix().round(), [(1, 2), (2, 0), (0, 1)][axis]
    phase, materials, spacing = random_cell((5, 4, 3), 3), [ZINC, COPPER, anisotropic(1)], np.array([1, 0.5, 2])
    arguments = {"temperature": 1.5, "tol": 1e-10}
    fields = solve(phase, materials, STRAIN, spacing=spacing, **arguments)
    turned = solve(
        np.rot90(phase, 1, plane),
        [m.rotated(turn) for m in materials],
        voigt(R @ tensor(np.array(STRAIN)) @ R.T),
        spacing=abs(R) @ spacing,
        **arguments,
    )
    for name in ("strain", "stress"):
        moved = np.rot90(tensor(getattr(fields, name)[0]), 1, [2 + a for a in plane])
        assert_allclose(getattr(turned, name)[0], voigt(np.einsum("ia,jb,abxyz->ijxyz", R, R, moved)), atol=1e-7)


def test_grains_of_one_orientation_are_one_rotated_crystal():
    turn = Rotation.from_euler("ZXZ", [20, 50, 70], degrees=True)
    problem = Problem((ZINC,), STRAIN, temperature=2.0).with_grains([0] * 4, [turn.as_quat(scalar_first=True)] * 4)
    crystal, phase = ZINC.rotated(turn), random_cell((4, 3, 5), 4)
    solution = solve_problem(phase, problem)
    engineering = (np.array(STRAIN) - 2.0 * crystal.expansion_strain) * [1, 1, 1, 2, 2, 2]
    assert_allclose(
        solution.strain, np.broadcast_to(np.reshape(STRAIN, (6, 1, 1, 1)), solution.strain.shape), atol=1e-10
    )
    assert_allclose(solution.stress[0].mean(axis=(1, 2, 3)), crystal.stiffness @ engineering, rtol=1e-10)
    assert_allclose(effective_stiffness(phase, [crystal] * 4)[0], crystal.stiffness, rtol=1e-9)


def test_polycrystals_of_copper():
    """The bulk modulus of the crystal, exactly, and with more voxels in a grain the self-consistent shear modulus.

    This is the root of 8 G³ + (5 c₁₁ + 4 c₁₂) G² − c₄₄ (7 c₁₁ − 4 c₁₂) G − c₄₄ (c₁₁ − c₁₂)(c₁₁ + 2 c₁₂) (Kröner 1958).
    """
    c11, c12, c44 = COPPER.c11, COPPER.c12, COPPER.c44
    roots = np.roots([8, 5 * c11 + 4 * c12, -c44 * (7 * c11 - 4 * c12), -c44 * (c11 - c12) * (c11 + 2 * c12)])
    (exact,) = roots[roots > 0]
    assert 47 < exact < 50
    grains, errors = [COPPER.rotated(r) for r in Rotation.random(5**3, rng=0)], []
    for k in (1, 2, 4):
        phase = np.arange(5**3).reshape(5, 5, 5).repeat(k, 0).repeat(k, 1).repeat(k, 2)
        C, limits = effective_stiffness(phase, grains)[0], bounds(phase, grains)
        bulk = C[:3, :3].sum() / 9
        assert bulk == pytest.approx((c11 + 2 * c12) / 3)
        assert np.linalg.eigvalsh(C - limits.reuss[0])[1] > 0  # The smallest is 0, for the bulk moduli are equal.
        assert np.linalg.eigvalsh(limits.voigt[0] - C)[1] > 0
        errors.append(((C.trace() - 3 * bulk + C[3:, 3:].trace()) / 10 - exact) / exact)
    assert 0.07 > errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.02


def test_materials_of_each_microstructure():
    phase = np.stack([random_cell((4, 3, 5), 3), random_cell((4, 3, 5), 2)])
    lists = [[ZINC, COPPER, MATERIALS[0]], [MATERIALS[1], anisotropic(0)]]
    together = solve(phase, lists, STRAIN, temperature=1.0, tol=1e-8)
    alone = [solve(p, m, STRAIN, temperature=1.0, tol=1e-8) for p, m in zip(phase, lists, strict=True)]
    for i, one in enumerate(alone):
        assert_allclose(together.strain[i], one.strain[0], atol=1e-6)
    for function in (effective_stiffness, effective_expansion, lambda *a: bounds(*a).voigt):
        for i, (p, m) in enumerate(zip(phase, lists, strict=True)):
            assert_allclose(function(phase, lists)[i], function(p, m)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("materials", "message"),
    [
        ([[COPPER] * 3], "materials: has 1 lists for 2 microstructures; must have one list for each"),
        ([[COPPER] * 3, [COPPER]], "microstructure 1: phase 1 has no material: materials are numbered from 0 to 0"),
        ([[COPPER] * 3, [COPPER, 3]], r"microstructure 1: materials = \[.*\]: must be a list of"),
        ([[COPPER] * 3, []], r"microstructure 1: materials = \[\]: must be a list of"),
    ],
)
def test_lists_that_do_not_fit_their_microstructures(materials, message):
    phase = np.stack([random_cell((4, 3, 5), 3), random_cell((4, 3, 5), 2)])
    with pytest.raises(ValueError, match=message):
        solve(phase, materials, STRAIN)


def test_flat_cells_one_by_one_and_together():
    """The pipeline hands (N, nx, ny, 1) to the solver and to RLN-CG; ``solve`` takes it for an image with a channel."""
    phase = np.stack([random_cell((9, 8, 1), 3, seed) for seed in range(2)])
    problem = Problem((ZINC, anisotropic(1), MATERIALS[0]), STRAIN)
    exact = [solve(p, problem.materials, STRAIN, tol=1e-8).strain[0] for p in phase]
    assert_allclose(solve_problem(phase, problem, tol=1e-8).strain, exact, atol=1e-6)
    for name, passes in (("cg", 30), ("rln-cg", 15)):
        model = load_model(name)
        assert_allclose(model.predict_problem(phase, problem, passes=passes).strain, exact, atol=1e-3)
        _, _, solution = list(model.iterates(phase, problem, counts=(2, passes)))[-1]
        assert_allclose(solution.strain, exact, atol=1e-3)
    problem = problem.with_grains([1, 0, 1], Rotation.random(3, rng=0).as_quat(scalar_first=True))
    assert homogenize_problem(phase, problem).stiffness.shape == (2, 6, 6)


def test_more_materials_than_16_bits_can_count():
    """Layers of two materials: the harmonic mean of the shear moduli across them."""
    count = 70000
    problem = Problem((Isotropic(1.0, 0.3), Isotropic(4.0, 0.3)), UNIT_LOADS[3])
    problem = problem.with_grains(np.arange(count) % 7 > 2, np.tile([1.0, 0, 0, 0], (count, 1)))
    solution = solve_problem(np.arange(count).reshape(1, count, 1), problem, tol=1e-10)
    assert solution.stress[0, 3].mean() == pytest.approx(1 / (3 / 7 + 4 / 7 / 4) / 1.3)
