"""Effective stiffness and its bounds against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import MATERIALS, UNIT_LOADS, anisotropic, from_moduli, laminate, random_cell

from lspipe import Anisotropic, Isotropic, bounds, effective_stiffness
from lspipe.cell.solver import NotConverged


def lowest(matrix):
    return np.linalg.eigvalsh(matrix).min()


def test_homogeneous_cell_has_its_own_stiffness():
    for material in (Isotropic(3.0, 0.2), anisotropic(3)):
        C = effective_stiffness(np.zeros((2, 3, 2), int), [material])
        assert_allclose(C[0], material.stiffness, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_laminate(axis):
    """Column by column from the closed form of the stress."""
    problems = [laminate(axis, (0, 1, 1, 2), MATERIALS, load) for load in UNIT_LOADS]
    engineering = np.array([1, 1, 1, 0.5, 0.5, 0.5])
    exact = np.stack([p.stress.mean(axis=(1, 2, 3)) for p in problems], axis=1) * engineering
    C = effective_stiffness(problems[0].phase, MATERIALS, spacing=(1, 2, 0.5), tol=1e-9)
    assert_allclose(C[0], exact, atol=1e-8)


@pytest.mark.parametrize("scheme", ["bbar", "full", "reduced"])
@pytest.mark.parametrize(
    "materials", [MATERIALS, (anisotropic(0), anisotropic(1), anisotropic(2))], ids=["iso", "aniso"]
)
def test_between_reuss_and_voigt_and_positive_definite(scheme, materials):
    phase = np.stack([random_cell((5, 4, 3), 3, seed) for seed in range(2)])
    C, limits = effective_stiffness(phase, materials, scheme=scheme), bounds(phase, materials)
    assert C.shape == (2, 6, 6)
    assert_allclose(C, C.transpose(0, 2, 1), rtol=0, atol=0)
    assert lowest(C) > 0
    assert lowest(C - limits.reuss) > 0
    assert lowest(limits.voigt - C) > 0


def test_hashin_shtrikman_in_its_textbook_form():
    """Two phases: K₁ + f₂/(1/(K₂ − K₁) + 3 f₁/(3 K₁ + 4 μ₁)), and the like for μ."""
    (K1, m1), (K2, m2) = (2.0, 1.0), (9.0, 5.0)
    phase = np.zeros((10, 1, 1), int)
    phase[:3] = 1
    f1, f2 = 0.7, 0.3

    def moduli(K1, m1, f1, K2, m2, f2):
        K = K1 + f2 / (1 / (K2 - K1) + 3 * f1 / (3 * K1 + 4 * m1))
        m = m1 + f2 / (1 / (m2 - m1) + 6 * f1 * (K1 + 2 * m1) / (5 * m1 * (3 * K1 + 4 * m1)))
        return from_moduli(K, m).stiffness

    limits = bounds(phase, [from_moduli(K1, m1), from_moduli(K2, m2)])
    assert_allclose(limits.lower[0], moduli(K1, m1, f1, K2, m2, f2))
    assert_allclose(limits.upper[0], moduli(K2, m2, f2, K1, m1, f1))
    assert lowest(limits.lower - limits.reuss) > -1e-12
    assert lowest(limits.upper - limits.lower) > -1e-12
    assert lowest(limits.voigt - limits.upper) > -1e-12


def test_bounds_are_those_of_the_phases_that_occur():
    phase = np.arange(4).reshape(1, 4, 1, 1) % 2
    used = (Isotropic(1.0, 0.3), Isotropic(2.0, 0.1))
    for more, fewer in zip(
        bounds(phase, (*used, Isotropic(0.0, 0.3), Isotropic(100.0, 0.3))), bounds(phase, used), strict=True
    ):
        assert_allclose(more, fewer)


def test_bounds_of_a_cell_with_voids():
    """Nothing from below; from above the textbook's porous solid, K = 4 K μ (1 − f)/(4 μ + 3 f K)."""
    bulk, shear, f = 2.0, 1.0, 0.25
    limits = bounds(np.array([0, 0, 0, 1]).reshape(4, 1, 1), [from_moduli(bulk, shear), Isotropic(0.0, 0.3)])
    assert_allclose(limits.reuss, 0)
    assert_allclose(limits.lower, 0)
    assert_allclose(limits.voigt[0], (1 - f) * from_moduli(bulk, shear).stiffness)
    assert limits.upper[0, :3, :3].mean() == pytest.approx(4 * bulk * shear * (1 - f) / (4 * shear + 3 * f * bulk))


def test_materials_of_a_generator():
    phase = random_cell((4, 3, 2), 3)
    for function in (effective_stiffness, lambda *a: bounds(*a).voigt):
        assert_allclose(function(phase, (m for m in MATERIALS)), function(phase, MATERIALS))


def test_an_effective_stiffness_that_is_not_converged_is_told():
    with pytest.warns(NotConverged, match="in 2 iterations"):
        effective_stiffness(random_cell((4, 3, 2)), MATERIALS, max_iterations=2)


def test_scheme_counts():
    phase = random_cell((4, 4, 4), 2)
    stiff = [np.trace(effective_stiffness(phase, MATERIALS, scheme=s)[0]) for s in ("full", "bbar", "reduced")]
    assert stiff[0] > stiff[1] > stiff[2]


def test_anisotropic_phases_have_no_hashin_shtrikman_bounds():
    limits = bounds(np.zeros((1, 1, 1), int), [anisotropic(0)])
    assert limits.lower is None
    assert limits.upper is None


@pytest.mark.parametrize(
    ("stiffness", "message"),
    [
        (np.eye(3), r"stiffness of shape \(3, 3\)"),
        (np.full((6, 6), np.nan), "finite"),
        (np.triu(np.ones((6, 6))), "symmetric"),
        (-np.eye(6), "positive definite"),
    ],
)
def test_stiffness_that_makes_no_sense(stiffness, message):
    with pytest.raises(ValueError, match=message):
        Anisotropic(stiffness)
