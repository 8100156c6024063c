"""The guaranteed bounds of ``homogenize`` against assembled systems, and its properties against closed forms."""

import os

import numpy as np
import pytest
from maps import engine
from numpy.testing import assert_allclose
from problems import MATERIALS, SCHEMES, SPACING, Assembled, Direct, direct, from_moduli, random_cell, reference, sphere
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation
from scipy.special import comb, eval_legendre

from lspipe import (
    Anisotropic,
    Conductor,
    Cubic,
    Effective,
    Hexagonal,
    Isotropic,
    Polycrystal,
    Problem,
    Void,
    bounds,
    generate,
    homogenize,
)
from lspipe.cell import homogenize as module
from lspipe.cell.bounds import bounds_problem
from lspipe.cell.homogenize import homogenize_problem
from lspipe.cell.physics import CONDUCTION, ELASTICITY
from lspipe.cell.solver import NotConverged

CELLS = int(os.environ.get("LSPIPE_CELLS", "120"))  # of the random cells; 1000 take some minutes


def condense(A, volume, nodal):
    """The effective stiffness of a form x·A·x per volume, with the displacements eliminated."""
    K, F = A[:nodal, :nodal], A[:nodal, nodal:]
    values, vectors = np.linalg.eigh(K)
    kept = values > 1e-12 * A.diagonal().max()
    G = vectors[:, kept].T @ F
    return (A[nodal:, nodal:] - G.T @ (G / values[kept, None])) / volume


def random_problem(seed):
    """Any small cell: its phases, materials and options, and the exact effective stiffness."""
    rng = np.random.default_rng(seed)
    grid, phases = rng.integers(1, 5, 3), rng.integers(2, 4)
    spacing = tuple(10 ** rng.uniform(0, rng.choice([0, 1, 2]), 3))
    scale = 10.0 ** np.array([0, *rng.uniform(-3, 4, phases - 1)])
    scheme, phase = str(rng.choice(SCHEMES)), rng.integers(0, phases, grid)
    physics, kind = rng.integers(0, 3), rng.integers(0, 3)
    if physics == 0:
        roots = rng.normal(size=(phases, 3, 3))
        matrices = scale[:, None, None] * (roots @ roots.mT + 0.1 * np.eye(3))
        materials = [Conductor(s) if kind == 0 else Conductor(k) for s, k in zip(scale, matrices, strict=True)]
        A, nodal = Assembled(phase, materials, scheme, spacing).A, phase.size
    else:
        roots = rng.normal(size=(phases, 6, 6))
        matrices = scale[:, None, None] * (roots @ roots.mT + 0.1 * np.eye(6))
        materials = [
            Anisotropic(C) if kind == 0 else Isotropic(s, rng.uniform(-0.5, 0.49))
            for s, C in zip(scale, matrices, strict=True)
        ]
        A, nodal = Direct(phase, materials, scheme, spacing).A, 3 * phase.size
        A[:, -3:] /= 2  # engineering shear
        A[-3:] /= 2
    options = {"spacing": spacing, "scheme": scheme, "tol": 10.0 ** rng.uniform(-8, -1)}
    if rng.integers(0, 2):
        options["max_iterations"] = int(rng.integers(0, 6))
    return phase, materials, options, condense(A, np.prod(spacing) * phase.size, nodal)


PROPERTIES = ("entries", "isotropic", "cubic", "young", "shear", "poisson", "anisotropy")


@pytest.mark.parametrize("first", range(0, CELLS, 40))
def test_the_exact_stiffness_lies_between_the_bounds(first):
    """Also the properties of the exact stiffness lie in their intervals, after any number of iterations."""
    for seed in range(first, first + 40):
        phase, materials, options, exact = random_problem(seed)
        E = homogenize(phase, materials, **options, warn=False)
        rounding = 1e-9 * np.trace(exact) * np.eye(len(exact))
        for difference in (E.upper[0] - exact, exact - E.lower[0]):
            assert np.linalg.eigvalsh(difference + rounding)[0] > 0, (seed, difference)
        assert E.gap[0] == pytest.approx(eigh(E.upper[0] - E.lower[0], E.upper[0], eigvals_only=True)[-1], rel=1e-6)
        assert E.converged[0] == (E.gap[0] <= options["tol"])
        # A few cells with slender voxels and one integration point need more than 500 iterations.
        assert E.converged[0] or "max_iterations" in options or E.iterations[0] > 200
        truth = Effective(exact[None], exact[None], exact[None], *(None,) * 3, physics=E.physics)
        for name in PROPERTIES if E.physics is ELASTICITY else ("entries", "isotropic", "anisotropy"):
            x, (value, lower, upper) = np.nan_to_num(getattr(truth, name).value[0]), (y[0] for y in getattr(E, name))
            slack = 1e-7 * (1 + np.abs(x).max())
            for inside in (x, np.nan_to_num(value)):
                assert (np.nan_to_num(lower) <= inside + slack).all(), (seed, name)
                assert (inside <= np.nan_to_num(upper) + slack).all(), (seed, name)


def test_a_tight_interval_lies_in_a_wide_one():
    phase = generate(1, 16, 0).phase
    wide, tight = (homogenize(phase, [Isotropic(1, 0.3), Isotropic(50, 0.1)], tol=tol) for tol in (0.1, 1e-9))
    assert wide.gap > 0.01
    for difference in (wide.upper - tight.upper, tight.lower - wide.lower):
        assert np.linalg.eigvalsh(difference)[0, 0] > 0


def test_bounds_of_the_start_are_those_of_their_definition():
    """Without iterations C_app is Voigt's mean, and R comes from an assembled reference medium."""
    phase, fe = direct((4, 3, 5), "bbar")
    medium, alpha, _ = reference(MATERIALS)
    metric = direct((4, 3, 5), "bbar", (medium,))[1]
    engineering = np.diag([1, 1, 1, 0.5, 0.5, 0.5])
    F, nodal = fe.A[:-6, -6:] @ engineering, np.arange(len(fe.A)) < len(fe.A) - 6
    R = F.T @ metric.inverse(nodal) @ F / fe.volume
    with pytest.warns(NotConverged, match=r"samples \[0\] did not reach tol = 0.001 in 0 iterations \(gap up to"):
        E = homogenize(phase, MATERIALS, spacing=SPACING, max_iterations=0)
    assert_allclose(E.stiffness, bounds(phase, MATERIALS).voigt, atol=1e-12)
    exact = E.stiffness[0] - R / alpha
    assert_allclose(E.lower[0], exact, atol=2e-5 * (R / alpha).max())  # K⁰⁻¹ has single precision
    assert np.linalg.eigvalsh(exact - E.lower[0])[0] > 0
    assert E.iterations == [0]


@pytest.mark.parametrize("materials", [MATERIALS, [Conductor(k) for k in (1, 20, 0.3)]], ids=["elastic", "conductors"])
def test_the_engine_of_other_devices_gives_the_same(materials, monkeypatch):
    """A batch whose cells end after different numbers of iterations, on PyTorch's engine (here on the CPU)."""
    phase = np.stack([0 * random_cell((5, 4, 3)), random_cell((5, 4, 3), 3), random_cell((5, 4, 3), 2, 1)])
    alone = homogenize(phase, materials, spacing=SPACING, tol=1e-9)
    monkeypatch.setattr(module, "build_operator", lambda *a: engine("torch", *a[:2]))
    batch = homogenize(phase, materials, spacing=SPACING, tol=1e-9)
    assert len(set(batch.iterations)) == 3
    assert_allclose(batch.iterations, alone.iterations, atol=1)
    for name in ("stiffness", "lower", "upper"):
        assert_allclose(getattr(batch, name), getattr(alone, name), atol=1e-8)
    assert (batch.gap <= 1e-9).all()


def test_a_layer_carries_nothing_across():
    """Voids leave no lower bound, and a direction without stiffness does not stop the iteration."""
    phase = np.array([0, 0, 1]).repeat(4).reshape(3, 2, 2)
    E = homogenize(phase, [MATERIALS[0], Void()])
    C = MATERIALS[0].stiffness
    plane = C[1:3, 1:3] - np.outer(C[1:3, 0], C[0, 1:3]) / C[0, 0]
    assert_allclose(E.stiffness[0, 1:3, 1:3], 2 / 3 * plane, rtol=1e-3)
    assert np.linalg.eigvalsh(E.stiffness[0])[0] < 1e-3
    assert not E.lower.any()
    assert E.gap == [1]
    assert E.converged
    assert E.young.lower[0, 0] == 0
    assert E.poisson.upper[0, 1, 2] == np.inf
    assert E.anisotropy.upper == [np.inf]


def exact(stiffness, physics=ELASTICITY):
    """A cell whose stiffness is known."""
    return Effective(*(np.asarray(stiffness)[None],) * 3, *(np.zeros(1),) * 3, physics=physics)


def test_constants_of_crystals():
    """Copper along the cube axes, with the index of cubic crystals from Zener's ratio; graphite-epoxy along its fibres.

    The anisotropy index is 6/5 (√A − 1/√A)² for Zener's ratio A (Ranganathan & Ostoja-Starzewski 2008).
    """
    copper = exact(Cubic(168.4, 121.4, 75.4).stiffness)
    zener = 2 * 75.4 / (168.4 - 121.4)
    assert copper.anisotropy.value[0] == pytest.approx(1.2 * (zener**0.5 - zener**-0.5) ** 2)
    assert_allclose(copper.young.value[0], (168.4 - 121.4) * (168.4 + 2 * 121.4) / (168.4 + 121.4))
    assert_allclose(copper.poisson.value[0][~np.eye(3, dtype=bool)], 121.4 / (168.4 + 121.4))
    assert_allclose(copper.shear.value[0], 75.4)
    assert_allclose(copper.cubic.value[0], [(168.4 + 2 * 121.4) / 3, (168.4 - 121.4) / 2, 75.4])
    young, shear, nu = np.array([135.0, 10.0, 9.0]), np.array([3.0, 4.0, 5.0]), {(0, 1): 0.3, (0, 2): 0.25, (1, 2): 0.4}
    S = np.diag([*1 / young, *1 / shear])
    for (i, j), value in nu.items():
        S[i, j] = S[j, i] = -value / young[i]
    lamina = exact(np.linalg.inv(S))
    assert_allclose(lamina.young.value[0], young)
    assert_allclose(lamina.shear.value[0], shear)
    for (i, j), value in nu.items():
        assert lamina.poisson.value[0, i, j] == pytest.approx(value)
        assert lamina.poisson.value[0, j, i] == pytest.approx(value * young[j] / young[i])
    assert exact(np.diag([1.0, 2.0, 4.0]), CONDUCTION).anisotropy.value[0] == pytest.approx(7 / 3 * 7 / 4 - 3)
    with pytest.raises(ValueError, match="young: belongs to elasticity; these are cells of conduction"):
        exact(np.eye(3), CONDUCTION).young  # noqa: B018


def test_bounds_of_polycrystals_without_texture():
    """Copper's shear modulus (Hashin & Shtrikman 1962) in the textbook's form, whatever the axes of its grains."""
    copper = Cubic(168.4, 121.4, 75.4)
    turned = copper.rotated(Rotation.from_euler("ZXZ", [30, 40, 50], degrees=True))
    bulk, soft, stiff = (168.4 + 2 * 121.4) / 3, (168.4 - 121.4) / 2, 75.4

    def beta(shear):
        return -3 * (bulk + 2 * shear) / (5 * shear * (3 * bulk + 4 * shear))

    limits = bounds(np.arange(2).reshape(2, 1, 1), [copper, turned], random_orientations=True)
    expected = {
        "reuss": 5 / (2 / soft + 3 / stiff),
        "lower": soft + 3 / (5 / (stiff - soft) - 4 * beta(soft)),
        "upper": stiff + 2 / (5 / (soft - stiff) - 6 * beta(stiff)),
        "voigt": (2 * soft + 3 * stiff) / 5,
    }
    for name, shear in expected.items():
        assert_allclose(ELASTICITY.moduli(getattr(limits, name))[:, 0], [bulk, shear])
    assert (expected["lower"], expected["upper"]) == pytest.approx((45.96, 49.45), abs=0.01)
    with_hexagonal = bounds(np.zeros((1, 1, 1), int), [Hexagonal(5, 2, 1, 7, 2)], random_orientations=True)
    assert with_hexagonal.lower is None


def test_copper_polycrystals_lie_between_the_cubic_bounds():
    """The cells have few grains, and so a little texture, but their intervals lie between the bounds."""
    cells = generate(2, 20, 0, generator=Polycrystal(30))
    copper = Problem((Cubic(168.4, 121.4, 75.4),), (0.0,) * 6)
    phase, problem = copper.join_grains(cells.phase, cells.material, cells.orientation)
    limits = bounds_problem(phase, problem, random_orientations=True)
    least, most = (ELASTICITY.moduli(C)[1] for C in (limits.lower, limits.upper))
    E = homogenize_problem(phase, problem)
    assert (least < E.isotropic.lower[:, 1]).all()
    assert (E.isotropic.upper[:, 1] < most).all()


def rayleigh(fraction, contrast):
    """Conductivity of a simple cubic array of spheres, by the multipoles 1, 3, 5 and 7 of each (Rayleigh 1892).

    The field of the multipoles l' of all other spheres excites those of order l, by lattice sums of P_L(cos θ)/r^(L+1).
    """
    radius, orders = (3 * fraction / (4 * np.pi)) ** (1 / 3), np.arange(1, 8, 2)
    x = np.moveaxis(np.mgrid[-20:21, -20:21, -20:21], 0, -1).reshape(-1, 3).astype(float)
    r = np.linalg.norm(x, axis=1)
    near = (r > 0) & (r < 20.5)
    sums = {L: (eval_legendre(L, x[near, 2] / r[near]) / r[near] ** (L + 1)).sum() for L in range(4, 16, 2)}
    sums[2] = 0.0  # The local field E + 4π/3 P stands for it.
    excited = np.array([[-comb(i + j, i) * sums[i + j] for j in orders] for i in orders])
    strength = (contrast - 1) / (contrast + 1 + 1 / orders) * radius ** (2 * orders + 1)
    multipoles = np.linalg.solve(np.eye(4) + np.diag(strength) @ excited, [strength[0], 0, 0, 0])
    return 1 + 4 * np.pi * multipoles[0] / (1 - 4 * np.pi / 3 * multipoles[0])


def perrins(fraction, contrast, hexagonal):
    """Conductivity across a square or a hexagonal array of fibres (Perrins, McKenzie & McPhedran 1979)."""
    T, f = (1 + contrast) / (1 - contrast), fraction
    if hexagonal:
        return 1 - 2 * f / (T + f - 0.075422 * f**6 * T / (T**2 - 1.060283 * f**12) - 0.000076 * f**12 / T)
    return 1 - 2 * f / (T + f - 0.305827 * f**4 * T / (T**2 - 1.402958 * f**8) - 0.013362 * f**8 / T)


def fibres(n, hexagonal):
    """Circular fibres of diameter 0.7 at the middle, and for a hexagonal array also at the corners, of a cell."""
    ny = round(n * 3**0.5) // 2 * 2 if hexagonal else n
    spacing = (1 / n, (3**0.5 if hexagonal else 1) / ny, 1 / n)
    x, y = (((np.arange(m) + 0.5) * h - m * h / 2) for m, h in zip((n, ny), spacing[:2], strict=True))
    r = np.hypot(x[:, None], y)
    if hexagonal:
        r = np.minimum(r, np.hypot(1 / 2 - np.abs(x)[:, None], 3**0.5 / 2 - np.abs(y)))
    return (r < 0.35).astype(int)[:, :, None], spacing


@pytest.mark.parametrize("array", ["cubic", "square", "hexagonal"])
def test_published_conductivities(array):
    """The error halves when the voxels are halved; the series is that of the volume fraction of the voxels."""
    errors = []
    for n in (8, 16, 32):
        phase, spacing = (sphere(n, 0.7 * n), (1, 1, 1)) if array == "cubic" else fibres(2 * n, array == "hexagonal")
        f = phase.mean()
        published = rayleigh(f, 10.0) if array == "cubic" else perrins(f, 10.0, array == "hexagonal")
        E = homogenize(phase, [Conductor(1.0), Conductor(10.0)], spacing=spacing, scheme="full", tol=1e-5)
        errors.append(E.stiffness[0, 0, 0] / published - 1)
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.6 * errors[1]


def test_hills_bulk_modulus():
    """Of phases of one shear modulus, 1/(K + 4μ/3) is the mean of theirs in any geometry (Hill 1963)."""
    errors = []
    for n in (4, 8, 16):
        phase = random_cell((4, 4, 4)).repeat(n // 4, 0).repeat(n // 4, 1).repeat(n // 4, 2)
        E = homogenize(phase, [from_moduli(1.0, 1.0), from_moduli(10.0, 1.0)], scheme="full", tol=1e-5)
        exact = 1 / np.mean([1 / (1 + 4 / 3), 1 / (10 + 4 / 3)]) - 4 / 3
        errors.append(E.isotropic.value[0, 0] / exact - 1)
    assert errors[2] < 0.5 * errors[1]
    assert errors[0] > errors[1] > errors[2] > 0
