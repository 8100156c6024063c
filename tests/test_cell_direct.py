"""The fields and the certificate of ``solve`` against a finite-element system that is assembled and inverted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import engine
from numpy.testing import assert_allclose
from problems import (
    GRIDS,
    MATERIALS,
    MULTIPLICITY,
    SCHEMES,
    SPACING,
    Direct,
    anisotropic,
    direct,
    random_cell,
    reference,
    stress_of,
)

from lspipe import Isotropic, solve
from lspipe.cell import solver
from lspipe.cell.solver import NotConverged

LOADS = {
    "xx": ([1, 0, 0, 0, 0, 0], None),
    "yz": ([0, 0, 0, 1, 0, 0], None),
    "strain": ([0.3, -1.0, 0.2, 0.4, -0.6, 0.5], None),
    "uniaxial": ([None, 1, None, 0, 0, 0], [0, None, 0, None, None, None]),
    "mixed": ([None, None, 0.1, 1, None, -0.7], [1, -2, None, None, 0.3, None]),
    "stress": ([None] * 6, [1, -2, 0.5, 0.3, 2, -1]),
}


def assert_close(actual, exact, rtol=1e-8):
    assert_allclose(actual, exact, rtol=0, atol=rtol * np.abs(exact).max())


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
def test_the_engine_of_other_devices_gives_the_same(load, monkeypatch):
    """A batch whose samples end after different numbers of iterations, on PyTorch's engine (here on the CPU)."""
    phase = np.stack([0 * random_cell((5, 4, 3)), random_cell((5, 4, 3), 3), random_cell((5, 4, 3), 2, 1)])
    arguments = {"spacing": SPACING, "tol": 1e-9}
    alone = solve(phase, MATERIALS, *load, **arguments)
    monkeypatch.setattr(solver, "build_operator", lambda *a: engine("torch", *a[:2]))
    batch = solve(phase, MATERIALS, *load, **arguments)
    assert len(set(batch.iterations)) == 3
    for name in ("strain", "stress", "displacement"):
        assert_close(getattr(batch, name), getattr(alone, name))
    assert_allclose(batch.iterations, alone.iterations, atol=1)
    assert batch.converged.all()
    for i in (1, 2):
        exact = Direct(phase[i], MATERIALS, "bbar", SPACING).solve(*load)
        assert_close(batch.strain[i], exact.strain)
        line = batch.history[i][: batch.iterations[i] + 1]
        assert_allclose(line[:20], alone.history[i][:20], rtol=1e-2)
        assert np.isnan(batch.history[i][batch.iterations[i] + 1 :]).all()


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


def test_reduced_integration_of_voids_is_discouraged():
    with pytest.warns(UserWarning, match="scheme: 'reduced' with voids"):
        solve(
            random_cell((2, 3, 1), 2),
            [Isotropic(1.0, 0.3), Isotropic(0.0, 0.1)],
            *LOADS["strain"],
            scheme="reduced",
            warn=False,
        )


@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 100.0), (100.0, 1.0, 50.0)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_slender_voxels(scheme, spacing, load):
    phase, fe = direct((4, 5, 3), scheme, MATERIALS[:2], spacing)
    solution = solve(phase, MATERIALS[:2], *load, spacing=spacing, scheme=scheme, tol=1e-11)
    exact = fe.solve(*load)
    assert_close(solution.strain[0], exact.strain, 1e-7)
    assert_close(solution.stress[0], exact.stress, 1e-7)


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
    """The residual and the bound agree with their definitions, and the bound holds, at early and late iterations."""
    phase, fe = direct(grid, scheme, materials)
    medium, alpha, beta = reference(materials)
    b, _, free = fe.system(*load)
    metric = direct(grid, scheme, (medium,))[1]
    inverse = metric.inverse(free)
    exact = fe.solve(*load).x

    for k in (0, 1, 3, 7):
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


@pytest.mark.parametrize("size", [0.01, 1, 100])
@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_certificate_of_any_displacement(scheme, load, size):
    """It holds for fields that no iteration made."""
    materials = (anisotropic(3), Isotropic(50.0, 0.45), Isotropic(0.1, -0.3))
    phase, fe = direct((4, 3, 5), scheme, materials)
    exact = fe.solve(*load).x
    for seed in range(5):
        start = size * np.random.default_rng(seed).normal(size=(1, 3, *phase.shape))
        with pytest.warns(NotConverged):
            s = solve(phase, materials, *load, spacing=SPACING, scheme=scheme, start=start, max_iterations=0)
        x = fe.unknowns(s.displacement[0], s.strain[0])
        error = np.sqrt(fe.energy(x - exact) / fe.energy(x))
        assert error <= s.bound < 100 * error


@pytest.mark.parametrize("load", [LOADS["strain"], LOADS["mixed"]], ids=["strain", "mixed"])
def test_residual_is_that_of_the_fields_returned(load):
    """From a start so large that its rounding keeps the residual from the tolerance, which a recurrence would claim."""
    phase, fe = direct((5, 4, 3), "bbar")
    start = 1e9 * np.random.default_rng(0).normal(size=(1, 3, *phase.shape))
    with pytest.warns(NotConverged):
        s = solve(phase, MATERIALS, *load, spacing=SPACING, tol=1e-12, start=start)
    b, _, free = fe.system(*load)
    inverse = Direct(phase, [reference(MATERIALS)[0]] * 3, "bbar", SPACING).inverse(free)
    x = np.concatenate([s.displacement[0].T.ravel(), s.strain[0].mean(axis=(1, 2, 3))])
    r = (fe.A @ (fe.solve(*load).x - x))[free]
    true = np.sqrt((r @ inverse @ r) / (b[free] @ inverse @ b[free]))
    assert 1 / 3 < s.residual / true < 3  # the mean of u, which is taken off at the end, has rounding of this size
    assert s.residual > 1e-9
