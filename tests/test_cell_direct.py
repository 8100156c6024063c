"""The maps, the fields and the certificate against a finite-element system that is assembled and inverted."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from problems import MATERIALS, MULTIPLICITY, Direct, anisotropic, from_moduli, random_cell, stiffness, stress_of

from lspipe import Isotropic, solve
from lspipe.cell.operator import operator
from lspipe.cell.solver import NotConverged

SCHEMES = ("bbar", "full", "reduced")
GRIDS = ((4, 4, 4), (3, 3, 3), (5, 4, 3), (3, 6, 1), (2, 1, 4), (1, 1, 1))
SPACING = (1.0, 0.5, 1.5)
LOADS = {
    "xx": ([1, 0, 0, 0, 0, 0], None),
    "yz": ([0, 0, 0, 1, 0, 0], None),
    "strain": ([0.3, -1.0, 0.2, 0.4, -0.6, 0.5], None),
    "uniaxial": ([None, 1, None, 0, 0, 0], [0, None, 0, None, None, None]),
    "mixed": ([None, None, 0.1, 1, None, -0.7], [1, -2, None, None, 0.3, None]),
    "stress": ([None] * 6, [1, -2, 0.5, 0.3, 2, -1]),
}


@lru_cache
def direct(grid, scheme, materials=MATERIALS, spacing=SPACING):
    phase = random_cell(grid, len(materials))
    return phase, Direct(phase, materials, scheme, spacing)


def reference(materials):
    """Bulk and shear modulus midway between their extremes; least and largest ratio of a phase's to them."""
    C = np.array([stiffness(m) for m in materials])
    shear = C[:, 0, 1, 0, 1]
    moduli = np.stack([C[:, 0, 0, 1, 1] + 2 / 3 * shear, shear])
    middle = (moduli.min(axis=1) + moduli.max(axis=1)) / 2
    ratio = moduli / middle[:, None]
    return from_moduli(*middle), ratio.min(), ratio.max()


def assert_close(actual, exact, rtol=1e-8):
    assert_allclose(actual, exact, rtol=0, atol=rtol * np.abs(exact).max())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", GRIDS)
class TestMaps:
    """Operator against the matrix; the vector of a field is field.T.ravel()."""

    @pytest.fixture
    def rng(self):
        return np.random.default_rng(1)

    @pytest.fixture
    def op(self, grid, scheme):
        return operator(MATERIALS, grid, SPACING, scheme)

    def test_stiffness(self, op, grid, scheme, rng):
        phase, fe = direct(grid, scheme)
        u = rng.normal(size=(3, *grid))
        force = op.stiffness(phase.astype(np.uint16), u)
        assert_allclose(force.T.ravel(), fe.A[:-6, :-6] @ u.T.ravel(), atol=1e-12)

    def test_green(self, op, grid, scheme, rng):
        medium, *_ = reference(MATERIALS)
        fe = Direct(np.zeros(grid, int), (medium,), scheme, SPACING)
        nodal = np.arange(len(fe.A)) < len(fe.A) - 6
        r = rng.normal(size=(3, *grid))
        assert_allclose(op.green(r).T.ravel(), fe.inverse(nodal) @ r.T.ravel(), atol=1e-10)

    def test_gradient(self, op, grid, scheme, rng):
        _, fe = direct(grid, scheme)
        u = rng.normal(size=(3, *grid))
        strain = fe.answer(np.concatenate([u.T.ravel(), np.zeros(6)])).strain
        assert_allclose(op.gradient(u), MULTIPLICITY[:, None, None, None] * strain, atol=1e-12)

    def test_divergence_is_minus_the_adjoint_of_gradient(self, op, grid, scheme, rng):
        u, stress = rng.normal(size=(3, *grid)), rng.normal(size=(6, *grid))
        work = np.prod(SPACING) * np.vdot(op.gradient(u), stress)
        assert np.vdot(u, op.divergence(stress)) == pytest.approx(-work, abs=1e-12)

    def test_symmetry(self, op, grid, scheme, rng):
        phase = random_cell(grid, 3).astype(np.uint16)
        u, v = rng.normal(size=(2, 3, *grid))
        assert np.vdot(u, op.stiffness(phase, v)) == pytest.approx(np.vdot(v, op.stiffness(phase, u)))
        assert np.vdot(u, op.green(v)) == pytest.approx(np.vdot(v, op.green(u)), abs=1e-12)

    def test_green_inverts_stiffness_of_the_reference_medium(self, grid, scheme, rng):
        material = Isotropic(2.0, 0.3)
        op = operator((material,), grid, SPACING, scheme)
        u = rng.normal(size=(3, *grid))
        back = op.green(op.stiffness(np.zeros(grid, np.uint16), u))
        assert_allclose(op.gradient(back), op.gradient(u), atol=1e-12)
        assert_allclose(back.mean(axis=(1, 2, 3)), 0, atol=1e-12)
        if scheme != "reduced" or sum(n % 2 == 0 for n in grid) < 2:
            assert_allclose(back, u - u.mean(axis=(1, 2, 3), keepdims=True), atol=1e-12)


def test_bbar_integrates_the_volume_change_at_one_point():
    """Selective reduced integration: bulk modulus as in ``reduced``, shear modulus as in ``full``."""
    u = np.random.default_rng(1).normal(size=(3, 4, 3, 2))
    phase = np.zeros(u.shape[1:], np.uint16)

    def force(scheme, bulk, shear):
        return operator((from_moduli(bulk, shear),), phase.shape, SPACING, scheme).stiffness(phase, u)

    bulk, shear = (force("bbar", *moduli) - force("bbar", 1, 1) for moduli in ((2, 1), (1, 2)))
    assert_allclose(bulk, force("reduced", 2, 1) - force("reduced", 1, 1), atol=1e-12)
    assert_allclose(shear, force("full", 1, 2) - force("full", 1, 1), atol=1e-12)


def test_reduced_is_the_rotated_scheme():
    """Gradient of a plane wave: i/4 tan(ξ_j/2) Π (1 + exp iξ) (Willot 2015)."""
    grid = (5, 4, 6)
    op = operator(MATERIALS, grid, (1.0, 1.0, 1.0), "reduced")
    xi = 2 * np.pi * np.array([1, -1, 2]) / grid
    wave = np.exp(1j * np.einsum("i,ixyz->xyz", xi, np.indices(grid)))
    for i, k in enumerate(1j / 4 * np.tan(xi / 2) * np.prod(1 + np.exp(1j * xi))):
        u = np.multiply.outer(np.eye(3)[i], wave)
        strain = op.gradient(np.ascontiguousarray(u.real)) + 1j * op.gradient(np.ascontiguousarray(u.imag))
        assert_allclose(strain[i], k * wave, atol=1e-12)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("phases", [2, 3])
def test_fields(grid, scheme, load, phases):
    phase, fe = direct(grid, scheme, MATERIALS[:phases])
    solution = solve(phase, MATERIALS[:phases], *load, spacing=SPACING, scheme=scheme, tol=1e-10)
    exact = fe.solve(*load)
    assert_close(solution.strain[0], exact.strain)
    assert_close(solution.stress[0], exact.stress)
    assert_close(solution.strain[0].mean(axis=(1, 2, 3)), exact.x[-6:])
    assert_close(solution.stress[0].mean(axis=(1, 2, 3)), exact.stress.mean(axis=(1, 2, 3)))
    if scheme != "reduced":
        assert_allclose(solution.displacement[0].T.ravel(), exact.x[:-6], atol=1e-7)


@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_anisotropic_phases(scheme, load):
    """Fields, and the certificate of an iteration that is stopped early."""
    materials = (anisotropic(0), Isotropic(2.0, 0.3), anisotropic(1))
    phase, fe = direct((4, 3, 5), scheme, materials)
    solution = solve(phase, materials, *load, spacing=SPACING, scheme=scheme, tol=1e-10)
    exact = fe.solve(*load)
    assert_close(solution.strain[0], exact.strain)
    assert_close(solution.stress[0], exact.stress)
    with pytest.warns(NotConverged):
        early = solve(phase, materials, *load, spacing=SPACING, scheme=scheme, tol=0, max_iterations=3)
    error = early.strain[0] - exact.strain
    energy = np.einsum("a,axyz,axyz", MULTIPLICITY, stress_of(phase, materials, error), error)
    whole = np.einsum("a,axyz,axyz", MULTIPLICITY, early.stress[0], early.strain[0])
    assert 0.01 * early.bound < np.sqrt(energy / whole) < 1.1 * early.bound  # of the voxel means, a little less


@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_voids(scheme, load):
    """Against the direct solution with a phase 10¹⁰ times softer, where there is material."""
    phase = random_cell((5, 4, 3), 5)
    phase[phase > 2] = 0
    void, soft = Isotropic(0.0, 0.3), Isotropic(1e-10, 0.3)
    solution = solve(phase, (*MATERIALS[:2], void), *load, spacing=SPACING, scheme=scheme, tol=1e-10)
    exact = Direct(phase, (*MATERIALS[:2], soft), scheme, SPACING).solve(*load)
    solid = phase < 2
    assert_close(solution.strain[0][:, solid], exact.strain[:, solid], 1e-6)
    assert_close(solution.stress[0], exact.stress, 1e-6)
    assert np.isnan(solution.strain[0][:, ~solid]).all()
    assert np.isinf(solution.bound)
    assert solution.converged
    with pytest.raises(ValueError, match="all are voids"):
        solve(phase * 0, [void], *load)


@st.composite
def cells(draw):
    """Any small cell under any load: phase, materials, strain, stress, spacing."""
    grid = draw(st.tuples(*[st.integers(1, 4)] * 3))
    materials = draw(st.lists(st.builds(Isotropic, st.floats(0.1, 10), st.floats(-0.9, 0.48)), min_size=1, max_size=4))
    phase = np.random.default_rng(draw(st.integers(0, 99))).integers(0, len(materials), grid)
    load = draw(st.lists(st.integers(-3, 3), min_size=6, max_size=6).filter(any))
    free = draw(st.lists(st.booleans(), min_size=6, max_size=6))
    strain, stress = ([x if f == given else None for x, f in zip(load, free, strict=True)] for given in (0, 1))
    return phase, materials, strain, stress, draw(st.tuples(*[st.floats(0.3, 3)] * 3))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(cell=cells())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_fields_of_any_cell(scheme, cell):
    phase, materials, strain, stress, spacing = cell
    solution = solve(phase, materials, strain, stress, spacing=spacing, scheme=scheme, tol=1e-10)
    exact = Direct(phase, materials, scheme, spacing).solve(strain, stress)
    assert_close(solution.strain[0], exact.strain, 1e-7)
    assert_close(solution.stress[0], exact.stress, 1e-7)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_equilibrium_and_hill_mandel(scheme, load):
    phase, fe = direct((5, 4, 3), scheme)
    solution = solve(phase, MATERIALS, *load, spacing=SPACING, scheme=scheme, tol=1e-10)
    strain, stress = solution.strain[0], solution.stress[0]
    x = fe.unknowns(solution.displacement[0], strain)
    assert_allclose((fe.A @ x)[:-6], 0, atol=1e-8 * np.abs(fe.A @ x).max())
    macroscopic = stress.mean(axis=(1, 2, 3)) @ (MULTIPLICITY * strain.mean(axis=(1, 2, 3)))
    assert fe.energy(x) == pytest.approx(fe.volume * macroscopic)


@pytest.mark.parametrize("load", [LOADS[name] for name in ("strain", "mixed", "stress")])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", [(4, 4, 4), (5, 4, 3)])
@pytest.mark.parametrize(
    "materials",
    [
        (Isotropic(1.0, 0.1), Isotropic(50.0, 0.45)),
        (Isotropic(1.0, 0.45), Isotropic(1.0, -0.3)),
        (Isotropic(1.0, 0.3), Isotropic(0.02, 0.3)),
        MATERIALS,
    ],
)
def test_certificate(materials, grid, scheme, load):
    """``residual`` and ``bound`` are what they are defined to be, and the bound holds, at every iteration."""
    phase, fe = direct(grid, scheme, materials)
    medium, alpha, beta = reference(materials)
    b, _, free = fe.system(*load)
    metric = Direct(phase, [medium] * len(materials), scheme, SPACING)
    inverse = metric.inverse(free)
    exact = fe.solve(*load).x

    for k in range(load[1] is not None, 8):  # free strains are 0, and so may be the energy, before the first
        with pytest.warns(NotConverged):
            s = solve(phase, materials, *load, spacing=SPACING, scheme=scheme, tol=0, max_iterations=k)
        x = fe.unknowns(s.displacement[0], s.strain[0])
        r = (fe.A @ (exact - x))[free]
        rho, energy = r @ inverse @ r, fe.energy(x)
        error = np.sqrt(fe.energy(x - exact) / energy)
        assert s.iterations == [k]
        assert s.residual == pytest.approx(np.sqrt(rho / (b[free] @ inverse @ b[free])), rel=1e-6)
        assert s.bound == pytest.approx(np.sqrt(rho / alpha / energy), rel=1e-6)
        assert error <= s.bound <= np.sqrt(beta / alpha) * error
        assert np.sqrt(metric.energy(x - exact) / energy) <= s.bound / np.sqrt(alpha)


@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
def test_residual_is_that_of_the_fields_returned(load):
    """From a start so large that the recurrence of the residual loses the digits it claims."""
    phase, fe = direct((5, 4, 3), "bbar")
    start = 1e9 * np.random.default_rng(0).normal(size=(1, 3, *phase.shape))
    with pytest.warns(NotConverged):
        s = solve(phase, MATERIALS, *load, spacing=SPACING, tol=1e-12, start=start)
    b, _, free = fe.system(*load)
    inverse = Direct(phase, [reference(MATERIALS)[0]] * 3, "bbar", SPACING).inverse(free)
    x = np.concatenate([s.displacement[0].T.ravel(), s.strain[0].mean(axis=(1, 2, 3))])
    r = (fe.A @ (fe.solve(*load).x - x))[free]
    assert s.residual == pytest.approx(np.sqrt((r @ inverse @ r) / (b[free] @ inverse @ b[free])), rel=0.5)
    assert s.residual > 1e-9
