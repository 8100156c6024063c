"""Load paths with plasticity, against closed forms and against solvers that share no code with the package."""

import json
import re

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose
from plastic import PlasticCell, laminate, uniaxial, update
from problems import SCHEMES, random_cell, tensor, voigt
from scipy.integrate import solve_ivp
from scipy.spatial.transform import Rotation

from lspipe import (
    Conductor,
    Cubic,
    Inelastic,
    Isotropic,
    PathProblem,
    Plastic,
    Problem,
    Swift,
    Voce,
    Void,
    check_law,
    solve,
    solve_path,
)
from lspipe.cell import newton
from lspipe.cell.arguments import check_keep
from lspipe.cell.kinds import read_material
from lspipe.cell.laws.radial_return import return_radially
from lspipe.cell.solver import NotConverged

METALS = {
    "linear": Plastic(70e3, 0.3, 200, 2000),
    "kinematic": Plastic(70e3, 0.3, 200, kinematic=5000),
    "voce": Plastic(70e3, 0.3, 200, Voce(150, 30, 500), kinematic=1000),
    "swift": Plastic(210e3, 0.28, 300, Swift(0.01, 0.2)),
}
CYCLE = (0.001, 0.004, 0.012, 0.011, 0.004, -0.002, -0.012, 0.0, 0.015)
ONE = np.zeros((1, 1, 1), int)


def pulled(strain):
    """A load of prescribed strain along x without other stresses."""
    return (strain, *[None] * 5), (None, *[0.0] * 5)


def assert_close(actual, exact, rtol=1e-8):
    assert_allclose(actual, exact, rtol=0, atol=rtol * np.abs(exact).max())


@pytest.mark.parametrize("metal", METALS.values(), ids=METALS)
def test_a_bar_in_cyclic_tension(metal):
    path = solve_path(ONE, [metal], map(pulled, CYCLE), tol=1e-11)
    assert_close(path.mean_stress[0, :, 0], uniaxial(metal, CYCLE))
    assert np.abs(path.mean_stress[0, :, 1:]).max() < 1e-8
    assert path.converged.all()


def test_the_elastic_domain_moves_with_kinematic_hardening():
    """Bauschinger: after flow to σ, the domain of width 2σ_y reaches down to σ − 2σ_y."""
    metal = METALS["kinematic"]
    slope = metal.young * metal.kinematic / (metal.young + metal.kinematic)
    top = 200 + slope * (0.01 - 200 / metal.young)
    before, after = 0.01 - 399.9 / metal.young, 0.01 - 500 / metal.young
    stress = solve_path(ONE, [metal], map(pulled, (0.01, before, after)), tol=1e-11).mean_stress[0, :, 0]
    assert_allclose(stress, [top, top - 399.9, top - 400 - slope * 100 / metal.young], rtol=1e-9)


def test_small_steps_converge_to_the_rate_equations_at_first_order():
    """A strain path that turns from tension to shear, against an ODE solver for the flow rule."""
    metal = METALS["voce"]
    first, second = np.array([0.004, -0.002, -0.002, 0, 0, 0]), np.array([0.004, -0.002, -0.002, 0, 0, 0.006])
    shear = metal.young / 2 / (1 + metal.poisson)

    def rate(_, y):  # the stress deviator s, the plastic strain and p, while the shear strain grows
        s, plastic, p = y[:9].reshape(3, 3), y[9:18].reshape(3, 3), y[18]
        relative = s - 2 / 3 * metal.kinematic * plastic
        n = relative / np.linalg.norm(relative)
        strain = tensor(second - first)
        slope = 150 * 30 * np.exp(-30 * p) + 500 + metal.kinematic
        growth = np.sqrt(2 / 3) * 3 * shear * (n * strain).sum() / (3 * shear + slope)
        flow = np.sqrt(1.5) * growth * n
        return np.concatenate([(2 * shear * (strain - flow)).ravel(), flow.ravel(), [growth]])

    s, plastic, p = update(metal, tensor(first)[None], np.zeros((1, 3, 3)), np.zeros(1))
    exact = solve_ivp(rate, (0, 1), np.concatenate([s.ravel(), plastic.ravel(), p]), rtol=1e-10, atol=1e-12).y[:9, -1]
    errors = []
    for count in (20, 40):
        steps = [first, *(first + t * (second - first) for t in np.linspace(0, 1, count + 1)[1:])]
        stress = solve_path(ONE, [metal], steps, tol=1e-11).mean_stress[0, -1]
        errors.append(np.abs(stress - voigt(exact.reshape(3, 3))).max() / 200)
    assert errors[1] < 0.01
    assert 1.8 < errors[0] / errors[1] < 2.2


@pytest.mark.parametrize("metal", METALS.values(), ids=METALS)
@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_stress_and_tangent_of_the_law(metal, size):
    rng = np.random.default_rng(0)
    strain, plastic = size * rng.normal(size=6), 1e-3 * rng.normal(size=6) * [1, 1, 0, 1, 1, 1]
    plastic[2] = -plastic[0] - plastic[1]
    factors = np.array([1, 1, 1, 2, 2, 2])

    def law(strain):
        stress, new, tangent = np.empty(6), np.empty(7), np.empty((6, 6))
        return_radially(strain, np.r_[plastic, 0.002], np.array(metal.parameters), stress, new, tangent)
        return stress, new, np.triu(tangent) + np.triu(tangent, 1).T

    stress, new, tangent = law(strain)
    exact = update(metal, tensor(strain / factors)[None], tensor(plastic / factors)[None], np.array([0.002]))
    assert_close(stress, voigt(exact[0][0]), 1e-11)
    assert_close(new[:6] / factors, voigt(exact[1][0]), 1e-10)
    assert_close(new[6], exact[2][0], 1e-10)
    differences = [(law(strain + h)[0] - law(strain - h)[0]) / 2e-7 for h in 1e-7 * np.eye(6)]
    assert_close(tangent, np.array(differences), 1e-6)


@pytest.mark.parametrize("axis", [0, 2])
def test_laminates(axis):
    """Layers in series and in parallel, with unloading."""
    materials = [METALS["voce"], Isotropic(400e3, 0.2), METALS["swift"]]
    direction = np.array([1, -0.4, 0.2, 0.5, 0.7, -0.3])
    steps = [0.004 * direction, 0.01 * direction, 0.005 * direction, [0.0, 0.006, 0, 0, 0.002, 0]]
    shape = np.where(np.arange(3) == axis, 3, 1)
    path = solve_path(np.arange(3).reshape(shape), materials, steps, tol=1e-11, keep=range(4))
    for k, (strain, stress) in enumerate(laminate(materials, axis, steps)):
        assert_close(path.strain[0, k].reshape(6, 3).T, np.array([*map(voigt, strain)]))
        assert_close(path.stress[0, k].reshape(6, 3).T, np.array([*map(voigt, stress)]))


CRYSTAL = Cubic(168e3, 121e3, 75e3).rotated(Rotation.from_euler("ZXZ", [20, 40, 60], degrees=True))
MIXED = [
    ((0.004, None, None, 0.002, 0, None), (None, 0, 50, None, None, -20)),
    ((0.012, None, None, 0.002, 0.003, None), (None, 0, 80, None, None, -20)),
    ((0.009, None, None, 0.001, 0.003, None), (None, 0, 0, None, None, 20)),  # unloading
    ((None,) * 6, (0,) * 6),
]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fields_of_cells(scheme):
    """Two metals, a crystal and pores under mixed loads, against an assembly of the integration points."""
    grid, spacing = (3, 3, 2), (1.0, 0.5, 1.5)
    metals = [METALS["voce"], METALS["linear"], CRYSTAL]
    phase = random_cell(grid, 4)
    phase[phase == 3] = np.arange((phase == 3).sum()) % 3
    phase[1, 1, 1] = 0 if scheme == "reduced" else 3
    path = solve_path(
        phase, [*metals, Void()][: phase.max() + 1], MIXED, spacing=spacing, scheme=scheme, tol=1e-10, keep=range(4)
    )
    cell = PlasticCell(phase, [*metals, Isotropic(1e-6, 0.0)], scheme, spacing)
    solid = phase < 3
    for k, step in enumerate(MIXED):
        strain, stress, plastic = cell.step(*step)
        assert_close(path.strain[0, k][:, solid], strain[:, solid], 1e-6)
        assert_close(path.stress[0, k], stress, 1e-6)
        assert_close(path.plastic_strain[0, k], plastic, 1e-6)
        assert_close(path.mean_strain[0, k], cell.x[-6:], 1e-6)
    assert np.isnan(path.strain[0][:, :, ~solid]).all()


def test_below_yield_it_is_the_linear_solution():
    phase, load = random_cell((5, 4, 3)), ((1e-4, None, 0, 0, 2e-5, 0), (None, 3.0, *[None] * 4))
    materials = [METALS["voce"], Isotropic(400e3, 0.2)]
    linear = solve(phase, [materials[0].elastic, materials[1]], *load, tol=1e-10)
    path = solve_path(phase, materials, [load], tol=1e-10)
    assert_close(path.strain[0, 0], linear.strain[0], 1e-9)
    assert_close(path.stress[0, 0], linear.stress[0], 1e-9)
    assert not path.state.any()


def test_the_cell_may_be_turned():
    """x → y → z → x in the cell and in the load."""
    phase, materials = random_cell((4, 3, 2)), [METALS["voce"], Isotropic(400e3, 0.2)]
    order = [1, 2, 0, 4, 5, 3]
    loads = np.array([0.008, -0.002, 0.001, 0.003, 0, 0.004]) * np.array([0.3, 1, -0.2])[:, None]
    path = solve_path(phase, materials, loads, tol=1e-9)
    turned = solve_path(phase.transpose(1, 2, 0), materials, loads[:, order], tol=1e-9)
    assert_close(turned.stress[0, 0], path.stress[0, 0][order].transpose(0, 2, 3, 1), 1e-7)
    assert_close(turned.state[0, 0, 6], path.state[0, 0, 6].transpose(1, 2, 0), 1e-6)


def test_newton_converges_quadratically(monkeypatch):
    histories = []

    def recorded(*args):
        outcome = newton.solve_step(*args)
        histories.append(np.array(outcome.history))
        return outcome

    monkeypatch.setattr("lspipe.cell.walk.solve_step", recorded)
    monkeypatch.setattr(newton, "FIRST", 1e-4)
    monkeypatch.setattr(newton, "LOOSEST", 1e-4)
    phase = random_cell((4, 4, 4))
    solve_path(phase, [METALS["voce"], Isotropic(400e3, 0.2)], [(0.01, 0, 0, 0, 0.005, 0)], tol=1e-9)
    (history,) = histories
    assert len(history) < 10
    last = history[history < 1e-2]
    assert len(last) > 2
    assert (last[1:] < 30 * last[:-1] ** 2 + 2e-4 * last[:-1]).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("load", [((0.006, 0, 0, 0, 0.005, 0), None), MIXED[1]], ids=["strain", "mixed"])
def test_the_bound_holds_and_is_close(scheme, load):
    """Where hardening does not die out: isotropic and kinematic hardening beside an elastic material."""
    phase = random_cell((4, 4, 3), 3)
    materials = [Plastic(70e3, 0.3, 200, 20e3), Isotropic(400e3, 0.2), Plastic(70e3, 0.3, 200, kinematic=10e3)]
    exact = solve_path(phase, materials, [load], scheme=scheme, tol=1e-10)
    bulk, shear = (70 / 1.2 + 400 / 1.8) / 2, (70 / 2.6 + 400 / 2.4) / 2

    def norm(strain):
        e, trace = tensor(strain), strain[:3].sum(axis=0)
        return np.sqrt(((bulk - 2 / 3 * shear) * trace**2 + 2 * shear * (e**2).sum(axis=(0, 1))).mean())

    for tol in (1e-2, 1e-4):
        path = solve_path(phase, materials, [load], scheme=scheme, tol=tol)
        error = norm(path.strain[0, 0] - exact.strain[0, 0]) / norm(path.mean_strain[0, 0][:, None])
        assert error < path.bound[0, 0] < 50 * error


def test_no_bound_where_hardening_dies_out():
    materials = [Plastic(70e3, 0.3, 200, Voce(100, 20)), Isotropic(400e3, 0.2)]
    assert np.isinf(solve_path(random_cell((3, 3, 2)), materials, [(0.006, 0, 0, 0, 0.005, 0)]).bound).all()


def test_a_straight_path_spares_newton_iterations(monkeypatch):
    """Starts on the parabola through earlier equilibria, against starts from the last one."""
    phase, materials = random_cell((4, 4, 4)), [METALS["voce"], Isotropic(400e3, 0.2)]
    steps = [(e, 0, 0, 0, 0, 0) for e in np.linspace(0, 0.02, 11)[1:]]
    path = solve_path(phase, materials, steps)
    monkeypatch.setattr("lspipe.cell.walk.STRAIGHT", -1.0)
    plain = solve_path(phase, materials, steps)
    assert path.newton.sum() < 0.8 * plain.newton.sum()
    assert_close(path.mean_stress, plain.mean_stress, 1e-3)


def test_a_sample_that_fails_keeps_its_steps_and_the_others_go_on():
    """A stress beyond the limit load of a saturated metal, in one of two samples."""
    metal, steps = Plastic(70e3, 0.3, 200, Voce(100, 50)), [((None,) * 6, (s, 0, 0, 0, 0, 0)) for s in (100, 250, 320)]
    cells = np.stack([np.zeros((2, 2, 2), int), np.ones((2, 2, 2), int)])
    with pytest.warns(NotConverged, match=r"sample 0 in step 2 \(residual .*\)"):
        path = solve_path(cells, [metal, Isotropic(70e3, 0.3)], steps, keep=[2, 1, -1])
    assert path.converged.tolist() == [[True, True, False], [True, True, True]]
    assert path.cuts[0, 2] > 3
    growth = -np.log(1 - 50 / 100) / 50
    assert_allclose(path.mean_strain[:, 1, 0], [250 / 70e3 + growth, 250 / 70e3], rtol=1e-3)
    assert np.isnan(path.strain[0, 1]).all()
    assert_allclose(path.mean_strain[1, 2, 0], 320 / 70e3, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_strain_beyond_five_percent_gives_one_warning():
    cells, small, large = np.zeros((2, 1, 1, 1), int), [(0.05, 0, 0, 0, 0, 0)], [(0, 0, 0, 0, 0, -0.06)] * 2
    solve_path(cells, [METALS["linear"]], small)
    with pytest.warns(UserWarning, match="^steps: the strain -0.06 is large; ") as warned:
        solve_path(cells, [METALS["linear"]], small + large)
    assert len(warned) == 1


def stretch(strain, state, parameters, stress, new, tangent):
    """A spring in each direction, which counts the steps."""
    (young,) = parameters
    (steps,) = state
    new[0] = steps + 1
    for i in range(6):
        tangent[i, :] = 0
        tangent[i, i] = young if i < 3 else young / 2
        stress[i] = tangent[i, i] * strain[i]


stretch_compiled = numba.njit(stretch)


class Spring(Inelastic):
    elastic, parameters, states = Isotropic(400e3, 0), (400e3,), 1
    law = staticmethod(stretch_compiled)


def test_laws_of_different_sizes_stand_beside_each_other():
    cell = random_cell((3, 3, 3), 2)
    steps = [(e, 0, 0, 0, 0, 0) for e in (0.004, 0.008)]
    mixed, plain = (
        solve_path(cell, [stiff, METALS["voce"]], steps, tol=1e-8) for stiff in (Spring(), Isotropic(400e3, 0))
    )
    assert_allclose(mixed.mean_stress, plain.mean_stress, rtol=1e-6, atol=1e-6)
    state = mixed.state[0, 0].transpose(1, 2, 3, 0)
    assert_allclose(state[cell == 0], [[2, 0, 0, 0, 0, 0, 0]] * (cell == 0).sum())
    assert_allclose(state[cell == 1], plain.state[0, 0].transpose(1, 2, 3, 0)[cell == 1], atol=1e-7)


def test_the_plastic_strain_of_other_laws_is_unknown():
    phase = np.arange(3).reshape(3, 1, 1)
    path = solve_path(phase, [METALS["linear"], Spring(), Isotropic(400e3, 0)], [(0.01, 0, 0, 0, 0, 0)])
    flow = path.accumulated_plastic_strain[0, 0].ravel()
    assert flow[0] > 0
    assert np.isnan(flow[1])
    assert flow[2] == 0
    assert np.isnan(path.plastic_strain[0, 0, :, 1]).all()
    assert np.isnan(solve_path(ONE, [Spring()], [[0.01] * 6]).plastic_strain).all()


def test_a_tangent_is_compared_with_differences():
    for metal in METALS.values():
        check_law(metal, [0.01, 0.002, 0, 0.004, 0, 0.003], [0.001, -0.001, 0, 0, 0, 0.001, 0.002])

    class Slip(Spring):
        parameters = (300e3,)

        @staticmethod
        @numba.njit
        def law(strain, state, parameters, stress, new, tangent):
            stretch_compiled(strain, state, parameters, stress, new, tangent)
            tangent[0, 1] = 5.0

    class Soft(Spring):
        parameters = (-300e3,)

    check_law(Spring(), [0.01, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"law of Slip: tangent\[0, 1\] = 5, but differences of the stress give 0"):
        check_law(Slip(), [0.01, 0, 0, 0, 0, 0], tol=1e-6)
    with pytest.raises(ValueError, match="law of Soft: the tangent has the eigenvalue -300000; must be positive def"):
        check_law(Soft(), [0.01, 0, 0, 0, 0, 0])


def test_a_direction_without_stiffness_ends_the_linear_iteration():
    """The tangent is negative for shear at first, where the stress is that of a spring."""

    class Bistable(Spring):
        @staticmethod
        @numba.njit
        def law(strain, state, parameters, stress, new, tangent):
            stretch_compiled(strain, state, parameters, stress, new, tangent)
            tangent[5, 5] *= -0.1

    phase = random_cell((4, 4, 4), 2)
    steps = [(0.004, 0, 0, 0, 0, 0)]
    path, plain = (solve_path(phase, [law, METALS["linear"]], steps, tol=1e-3) for law in (Bistable(), Spring()))
    assert path.cuts[0, 0] == 0
    assert_close(path.mean_stress, plain.mean_stress, 1e-2)


def test_a_law_must_be_compiled():
    class Raw(Spring):
        law = staticmethod(stretch)

    with pytest.raises(ValueError, match=r"^materials: the law of Raw is no compiled function; decorate it"):
        solve_path(ONE, [Raw()], [[0.0] * 6])


def test_the_length_of_a_step_spares_iterations():
    """Without a change of the length, this cell takes more than 30 Newton iterations and a cut."""
    cell = (np.random.default_rng(1).random((6, 6, 6)) < 0.3).astype(int)
    pulled = (0.05, *[None] * 5), (None, *[0] * 5)
    path = solve_path(cell, [Plastic(70e3, 0.3, 200, 70.0), Void()], [pulled], tol=1e-6)
    assert path.converged.all()
    assert path.newton[0, 0] < 12
    assert path.cuts[0, 0] == 0


@pytest.mark.parametrize("metal", METALS.values(), ids=METALS)
def test_a_path_problem_goes_through_json(metal):
    materials = [metal, CRYSTAL, Void()]
    problem = PathProblem(materials, [*MIXED, np.zeros(6)], "reduced", (1, 0.5, 2))
    assert PathProblem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
    assert problem.steps[0] == MIXED[0]
    assert problem.steps[-1] == ((0,) * 6, None)
    assert problem.elastic == Problem((metal.elastic, CRYSTAL, Void()), (0,) * 6, None, 0, "reduced", (1, 0.5, 2))


def test_a_path_in_parts_is_the_whole_path_bit_for_bit():
    phase = random_cell((4, 3, 5), 2)[None].repeat(2, 0)
    phase[1] = phase[1, ::-1]
    materials, steps = [METALS["kinematic"], CRYSTAL], [*map(pulled, CYCLE[:5])]
    whole, start, parts = solve_path(phase, materials, steps, keep=range(5)), None, []
    for first, last in ((0, 1), (1, 3), (3, 5)):
        parts.append(solve_path(phase, materials, steps[first:last], keep=range(last - first), start=start))
        start = parts[-1].end
    for name in set(vars(whole)) - {"kept", "has_other_law", "end"}:
        joined = np.concatenate([getattr(part, name) for part in parts], axis=1)
        assert np.array_equal(joined, getattr(whole, name)), name
    with pytest.raises(ValueError, match="start: is the end of 2 samples; must have the 1 of phase"):
        solve_path(phase[:1], materials, steps, start=start)
    for cells, others in (
        (phase[:, :3], materials),
        (np.roll(phase, 1, axis=1), materials),
        (phase, [METALS["voce"], CRYSTAL]),
    ):
        with pytest.raises(ValueError, match="start: is the end of a path of other microstructures, materials"):
            solve_path(cells, others, steps, start=start)


def test_a_sample_that_has_failed_does_not_go_on():
    metal = Plastic(70e3, 0.3, 200, Voce(150, 30))
    pushed = [([None] * 6, (1000, 0, 0, 0, 0, 0))]
    first = solve_path(ONE, [metal], pushed, warn=False)
    assert not first.converged.any()
    second = solve_path(ONE, [metal], [pulled(0.001)], start=first.end, warn=False)
    assert not second.converged.any()
    assert np.isnan(second.strain).all()


VOCE = {"kind": "voce", "saturation": 150, "rate": 30}
METAL = {"kind": "plastic", "young": 70e3, "poisson": 0.3, "yield_stress": 200}


def test_a_metal_of_the_configuration():
    assert read_material(METAL | {"hardening": VOCE}) == Plastic(70e3, 0.3, 200, Voce(150, 30))
    assert read_material(METAL | {"kinematic": 10}) == Plastic(70e3, 0.3, 200, kinematic=10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"hardening": VOCE | {"rat": 1}},
            "hardening: rat is not a key of voce; allowed here: saturation, rate, modulus",
        ),
        ({"hardening": VOCE | {"rate": -1}}, "hardening: rate = -1.0: must be a positive number"),
        ({"hardening": {"kind": "swift", "strain": 1}}, "hardening: exponent is missing; swift needs strain, exponent"),
        ({"hardening": VOCE | {"kind": "ludwik"}}, "hardening: kind = 'ludwik': must be one of voce, swift"),
        ({"hardening": 1, "euler": [0, 0, 0]}, "euler is not a key of plastic; allowed here: young, poisson, yield_"),
    ],
)
def test_values_that_describe_no_metal(values, message):
    with pytest.raises(ValueError, match="^" + message):
        read_material(METAL | values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plastic(70e3, 0.3, 200), "hardening = 0.0, kinematic = 0.0: must be positive in one of the two"),
        (lambda: Plastic(70e3, 0.3, 200, -100), "hardening = -100.0: must be a positive number or 0"),
        (lambda: Plastic(70e3, 0.3, 200, Voce(-50, 10)), "saturation = -50.0: must be a positive number"),
        (lambda: Plastic(70e3, 0.3, 200, Swift(0.01, 1.5)), "exponent = 1.5: must lie between 0, excluded, and 1"),
        (lambda: Plastic(70e3, 0.5, 200, 100), "poisson = 0.5: must lie"),
        (lambda: Plastic(70e3, 0.3, 0, 100), "yield_stress = 0.0: must be a positive number"),
        (lambda: Problem([METALS["voce"]], [0] * 6), "materials = .*: must be linear; inelastic ones need a load path"),
        (lambda: PathProblem([CRYSTAL], [[0] * 6]), "materials: none is inelastic; a load path needs"),
        (lambda: PathProblem([Conductor(1)], [[0] * 3]), "materials: are conductors; must be elastic or inelastic"),
        (lambda: PathProblem({METALS["voce"]}, [[0] * 6]), "materials = .*: must be a list"),
        (lambda: PathProblem([METALS["voce"]], [[0] * 6], "hex"), "scheme = 'hex': must be one of"),
        (lambda: solve_path(ONE, [METALS["voce"]], []), "steps: there are none; give at least one load"),
        (lambda: solve_path(ONE, [METALS["voce"]], [[0.0] * 5]), "step 0: strain = .* must have 6 components"),
        (
            lambda: solve_path(ONE, [METALS["voce"]], [[0.0] * 6], keep=[1]),
            r"keep = \[1\]: must be integers from -1 to 0, the numbers of the increments of the path",
        ),
        *[
            (
                lambda keep=keep: check_keep(keep, 12),
                f"keep = {re.escape(str(keep))}: must be at least one integer from -12",
            )
            for keep in ([0, True], [[0], [1, 2]], [], [12], [0.0], None)
        ],
        (lambda: solve_path(ONE, [METALS["voce"]], [[0.0] * 6], start=0), "start = 0: must be the `end` of a path"),
        (lambda: check_law(CRYSTAL, [1e-3] * 6), "material = .*: must be inelastic; linear materials have no law"),
        (lambda: solve_path(ONE, [METALS["voce"]], [[0.0] * 6], device="cuda"), "device = 'cuda': must be cpu"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
