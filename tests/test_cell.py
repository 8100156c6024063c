"""What ``solve`` promises: exact answers where there are some, the laws of the field, symmetries, limits."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    MATERIALS,
    MULTIPLICITY,
    UNIT_LOADS,
    eshelby,
    homogeneous,
    laminate,
    random_cell,
    sphere,
    stiffness,
    tensor,
    voigt,
)

from lspipe import Anisotropic, Conductor, Isotropic, bounds, generate, solve
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.solver import NotConverged

CELL = random_cell((5, 4, 3), 3)
STRAIN = (0.3, -1.0, 0.2, 0.4, -0.6, 0.5)
MIXED = ((None, None, 0.1, 1.0, None, -0.7), (1.0, -2.0, None, None, 0.3, None))

schemes = pytest.mark.parametrize("scheme", ["bbar", "full", "reduced"])
each_load = pytest.mark.parametrize("load", UNIT_LOADS, ids=["xx", "yy", "zz", "yz", "xz", "xy"])


def mean(field):
    return field.mean(axis=(-3, -2, -1))


class TestExactAnswers:
    @schemes
    @each_load
    def test_homogeneous(self, scheme, load):
        problem = homogeneous(Isotropic(210.0, 0.3), (4, 3, 2), load)
        solution = solve(problem.phase, problem.materials, load, scheme=scheme)
        assert_array_equal(solution.strain[0], problem.strain)
        assert_allclose(solution.stress[0], problem.stress, rtol=1e-14)
        assert_array_equal(solution.displacement, 0)
        assert (solution.iterations, solution.residual, solution.bound) == (0, 0, 0)
        assert solution.converged

    @schemes
    def test_homogeneous_under_uniaxial_stress(self, scheme):
        """Young's modulus and Poisson's ratio, as they are defined."""
        phase, stress = np.zeros((3, 4, 2), int), (0, 42, 0, 0, 0, 0)
        solution = solve(phase, [Isotropic(210.0, 0.3)], [None] * 6, stress, scheme=scheme)
        assert_allclose(mean(solution.strain[0]), 42 / 210 * np.array([-0.3, 1, -0.3, 0, 0, 0]), atol=1e-14)

    @schemes
    @each_load
    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("contrast", [1e-3, 0.1, 10, 1e4])
    def test_laminate(self, axis, contrast, load, scheme):
        materials = Isotropic(1.0, 0.3), Isotropic(contrast, 0.1), Isotropic(2.0, 0.45)
        problem = laminate(axis, (0, 1, 1, 2, 0), materials, load)
        solution = solve(problem.phase, materials, load, scheme=scheme, tol=1e-12)
        assert_allclose(solution.strain[0], problem.strain, atol=1e-8)
        assert_allclose(solution.stress[0], problem.stress, atol=1e-8)

    def test_layers_in_series_and_in_parallel(self):
        """Harmonic mean across the layers, arithmetic mean along them."""
        phase = np.array([0, 1, 1]).reshape(3, 1, 1)
        across, shear_across, shear_along = (
            mean(solve(phase, MATERIALS, UNIT_LOADS[i], tol=1e-12).stress[0])[i] for i in (0, 5, 3)
        )
        C = np.array([stiffness(m) for m in MATERIALS])[[0, 1, 1]]
        assert across == pytest.approx(1 / np.mean(1 / C[:, 0, 0, 0, 0]))
        assert shear_across == pytest.approx(2 / np.mean(1 / C[:, 0, 1, 0, 1]))
        assert shear_along == pytest.approx(2 * np.mean(C[:, 0, 1, 0, 1]))

    def test_many_phases(self):
        materials = [Isotropic(1.0 + i, 0.3) for i in range(300)]
        solution = solve(np.arange(300).reshape(1, 300, 1), materials, UNIT_LOADS[3], tol=1e-10)
        expected = 1 / np.mean([1 / m.young for m in materials]) / 1.3
        assert mean(solution.stress[0])[3] == pytest.approx(expected)

    @pytest.mark.parametrize("inclusion", [Isotropic(4.0, 0.2), Isotropic(0.25, 0.4)], ids=["stiff", "soft"])
    def test_spherical_inclusion(self, inclusion):
        """Strain in a lone sphere, extrapolated linearly in volume fraction and in voxels per diameter."""
        matrix = Isotropic(1.0, 0.3)
        loads = np.array([[1, 1, 1, 0, 0, 0], [1, -1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]])
        design, inside = [], []
        for n, diameter in [(12, 6), (18, 6), (16, 8), (24, 8), (20, 10), (24, 12)]:
            phase = sphere(n, diameter)
            fields = [solve(phase, (matrix, inclusion), load).strain[0, :, phase == 1] for load in loads]
            bulk, tetragonal, shear = (f.mean(axis=0) @ e / (e @ e) for f, e in zip(fields, loads, strict=True))
            design.append([1, phase.mean(), 1 / diameter])
            inside.append([bulk, (2 * tetragonal + 3 * shear) / 5])
        alone = np.linalg.lstsq(design, inside)[0][0]
        assert_allclose(alone, eshelby(matrix, inclusion), rtol=0.015)


@schemes
class TestLaws:
    @pytest.mark.parametrize("load", [(STRAIN, None), MIXED, ((None,) * 6, STRAIN)], ids=["strain", "mixed", "stress"])
    def test_means_are_those_prescribed(self, scheme, load):
        solution = solve(CELL, MATERIALS, *load, scheme=scheme, tol=1e-10)
        for field, prescribed in zip((solution.strain, solution.stress), load, strict=True):
            for actual, wanted in zip(mean(field[0]), prescribed or [None] * 6, strict=True):
                assert wanted is None or actual == pytest.approx(wanted, rel=1e-8)
        assert_allclose(mean(solution.displacement), 0, atol=1e-12)

    def test_hill_mandel(self, scheme):
        """⟨σ:ε⟩ = ⟨σ⟩:⟨ε⟩; voxel means miss the energy of what varies within a voxel."""
        solution = solve(CELL, MATERIALS, STRAIN, scheme=scheme, tol=1e-10)
        strain, stress = solution.strain[0], solution.stress[0]
        local = np.einsum("s,sxyz,sxyz->", MULTIPLICITY, stress, strain) / CELL.size
        macroscopic = mean(stress) @ (MULTIPLICITY * mean(strain))
        assert local == pytest.approx(macroscopic) if scheme == "reduced" else local < macroscopic

    def test_effective_stiffness(self, scheme):
        """Symmetric, between the bounds of Reuss and Voigt; it gives the stress of any other load."""
        C = np.array([mean(solve(CELL, MATERIALS, e, scheme=scheme, tol=1e-10).stress[0]) for e in UNIT_LOADS]).T
        mandel = np.sqrt(MULTIPLICITY)
        C *= np.outer(mandel, 1 / mandel)
        assert_allclose(C, C.T, atol=1e-8)

        phases = np.array([[voigt(p) for p in voigt(stiffness(m))] for m in MATERIALS]) * np.outer(mandel, mandel)
        share = np.bincount(CELL.ravel()) / CELL.size
        upper = np.tensordot(share, phases, 1)
        lower = np.linalg.inv(np.tensordot(share, np.linalg.inv(phases), 1))
        assert np.linalg.eigvalsh(lower).min() > 0
        assert np.linalg.eigvalsh(C - lower).min() > 0
        assert np.linalg.eigvalsh(upper - C).min() > 0
        assert lower[0, 0] < C[0, 0] < upper[0, 0]

        solution = solve(CELL, MATERIALS, *MIXED, scheme=scheme, tol=1e-10)
        strain, stress = (mandel * mean(field[0]) for field in (solution.strain, solution.stress))
        assert_allclose(stress, C @ strain, atol=1e-7)

    def test_linearity(self, scheme):
        one, other, both = (
            solve(CELL, MATERIALS, load, scheme=scheme, tol=1e-10).strain
            for load in (UNIT_LOADS[0], UNIT_LOADS[3], 2 * UNIT_LOADS[0] - 3 * UNIT_LOADS[3])
        )
        assert_allclose(both, 2 * one - 3 * other, atol=1e-7)

    @pytest.mark.parametrize("size", [1e-40, 1e40])
    def test_size_of_the_load(self, scheme, size):
        solution = solve(CELL, MATERIALS, STRAIN, scheme=scheme, tol=1e-8)
        scaled = solve(CELL, MATERIALS, size * np.array(STRAIN), scheme=scheme, tol=1e-8)
        assert_allclose(scaled.strain / size, solution.strain, atol=1e-6)

    @pytest.mark.parametrize("load", [(STRAIN, (None,) * 6), MIXED], ids=["strain", "mixed"])
    @pytest.mark.parametrize(
        ("size", "modulus", "length"), [(1e-49, 1e-49, 1e-90), (1e49, 1e49, 1e90), (1e-99, 1e99, 1e99)]
    )
    def test_any_size_of_load_moduli_and_spacing(self, scheme, load, size, modulus, length):
        """The problem is linear: the field, its residual and its bound are those of a problem of size 1."""

        def scaled(a, m, h):
            strain, stress = ([None if c is None else b * c for c in x] for b, x in zip((a, a * m), load, strict=True))
            materials = [Isotropic(m * material.young, material.poisson) for material in MATERIALS]
            return solve(CELL, materials, strain, stress, spacing=(h, h / 2, 2 * h), scheme=scheme, tol=1e-8)

        expected, found = scaled(1, 1, 1), scaled(size, modulus, length)
        assert_allclose(found.strain / size, expected.strain, atol=1e-6)
        assert_allclose(found.stress / size / modulus, expected.stress, atol=1e-5)
        assert_allclose(found.displacement / size / length, expected.displacement, atol=1e-6)
        assert_allclose(found.bound, expected.bound, rtol=0.3)

    def test_units(self, scheme):
        """Lengths scale the displacement, moduli the stress; nothing else changes. Powers of 2: to the last digits."""
        solution = solve(CELL, MATERIALS, STRAIN, spacing=(1, 0.5, 2), scheme=scheme)
        stiffer = [Isotropic(2**30 * m.young, m.poisson) for m in MATERIALS]
        scaled = solve(CELL, stiffer, STRAIN, spacing=(2**-10, 2**-11, 2**-9), scheme=scheme)
        assert_allclose(scaled.strain, solution.strain, atol=1e-12)
        assert_allclose(scaled.stress, 2**30 * solution.stress, atol=2**30 * 1e-12)
        assert_allclose(scaled.displacement, 2**-10 * solution.displacement, atol=2**-10 * 1e-12)
        assert_allclose(scaled.residual, solution.residual)
        assert_allclose(scaled.bound, solution.bound)


@schemes
class TestSymmetries:
    @pytest.mark.parametrize("axis", range(3))
    def test_translation(self, scheme, axis):
        fields = solve(CELL, MATERIALS, STRAIN, scheme=scheme, tol=1e-10).strain
        shifted = solve(np.roll(CELL, 2, axis), MATERIALS, STRAIN, scheme=scheme, tol=1e-10).strain
        assert_allclose(shifted, np.roll(fields, 2, 2 + axis), atol=1e-8)

    @pytest.mark.parametrize("flip", range(3))
    @pytest.mark.parametrize("axes", list(permutations(range(3))))
    def test_permuted_and_reflected_axes(self, scheme, axes, flip):
        sign = np.where(np.arange(3) == flip, -1, 1)

        def turn(field):
            field = tensor(field).transpose(0, 1, *(2 + a for a in axes))[np.ix_(axes, axes)]
            return voigt(np.flip(field, 2 + flip) * np.multiply.outer(sign, sign)[..., None, None, None])

        spacing = np.array([1, 0.5, 2])
        fields = solve(CELL, MATERIALS, STRAIN, spacing=spacing, scheme=scheme, tol=1e-10).strain[0]
        load = turn(np.reshape(STRAIN, (6, 1, 1, 1))).ravel()
        phase = np.flip(CELL.transpose(axes), flip)
        turned = solve(phase, MATERIALS, load, spacing=spacing[list(axes)], scheme=scheme, tol=1e-10)
        assert_allclose(turned.strain[0], turn(fields), atol=1e-8)


class TestRefinement:
    """Each voxel split into 1, 2³, 4³, 8³."""

    @staticmethod
    def refine(scheme):
        """Energy, and strain averaged over the voxels of the coarse cell, at each level."""
        coarse = random_cell((3, 3, 3))
        energy, strain = [], []
        for k in (1, 2, 4, 8):
            phase = coarse.repeat(k, 0).repeat(k, 1).repeat(k, 2)
            s = solve(phase, MATERIALS[:2], STRAIN, spacing=(1 / k,) * 3, scheme=scheme, tol=1e-6)
            energy.append(mean(s.stress[0]) @ (MULTIPLICITY * STRAIN))
            strain.append(s.strain[0].reshape(6, 3, k, 3, k, 3, k).mean(axis=(2, 4, 6)))
        return np.array(energy), strain

    def test_schemes_converge_to_one_field(self):
        results = {scheme: self.refine(scheme) for scheme in ("bbar", "full", "reduced")}
        for _, strain in results.values():
            steps = [np.abs(b - a).mean() for a, b in pairwise(strain)]
            assert steps[2] < 0.7 * steps[1] < 0.5 * steps[0]
        spread = np.ptp([energy for energy, _ in results.values()], axis=0)
        assert (spread[1:] < 0.6 * spread[:-1]).all()
        assert (np.diff(results["full"][0]) < 0).all()


class TestIteration:
    def test_batch_gives_what_its_samples_give(self):
        phase = np.stack([random_cell((4, 3, 5), 2, seed) for seed in range(3)])
        batch = solve(phase, MATERIALS, STRAIN)
        for i, one in enumerate(solve(p, MATERIALS, STRAIN) for p in phase):
            for name in (
                "strain",
                "stress",
                "displacement",
                "iterations",
                "green",
                "residual",
                "bound",
                "converged",
            ):
                assert_array_equal(getattr(batch, name)[i], getattr(one, name)[0])

    @schemes
    @pytest.mark.parametrize("load", [(STRAIN, None), MIXED], ids=["strain", "mixed"])
    def test_start(self, scheme, load):
        solution = solve(CELL, MATERIALS, *load, scheme=scheme, tol=1e-10)
        start = np.random.default_rng(0).normal(size=solution.displacement.shape)
        given = start.copy()
        again = solve(CELL, MATERIALS, *load, scheme=scheme, tol=1e-10, start=start)
        assert_array_equal(start, given)
        assert_allclose(again.strain, solution.strain, atol=1e-7)
        assert_allclose(again.stress, solution.stress, atol=1e-7)

    @pytest.mark.parametrize("size", [1e-200, 1, 1e200])
    def test_start_without_a_load(self, size):
        """The residual is then relative to that of the start."""
        solution = solve(CELL, MATERIALS, [0] * 6, start=size * np.ones((1, 3, *CELL.shape)) * CELL, tol=1e-10)
        assert_allclose(solution.strain / size, 0, atol=1e-9)
        assert 0 < solution.residual < 1e-10

    @pytest.mark.filterwarnings("error")
    def test_no_load(self):
        solution = solve(CELL, MATERIALS, [0] * 6)
        assert_array_equal(solution.strain, 0)
        assert (solution.iterations, solution.residual, solution.bound) == (0, 0, 0)

    def test_free_strains_begin_at_the_least_energy(self):
        """Uniform strain under uniform stress: that of the mean stiffness, which a homogeneous cell keeps."""
        solution = solve(0 * CELL, MATERIALS, [None] * 6, STRAIN, max_iterations=0)
        assert solution.bound == 0
        assert solution.residual < 1e-14
        with pytest.warns(NotConverged):
            early = solve(CELL, MATERIALS, [None] * 6, STRAIN, max_iterations=0)
        assert_allclose(mean(early.stress[0]), STRAIN)
        final = solve(CELL, MATERIALS, [None] * 6, STRAIN, tol=1e-8)
        again = solve(CELL, MATERIALS, [None] * 6, STRAIN, tol=1e-8, start=final.displacement)
        assert again.iterations == 0

    def test_homogeneous_cell_is_not_exact_before_it_converges(self):
        start = np.random.default_rng(0).normal(size=(1, 3, *CELL.shape))
        with pytest.warns(NotConverged):
            solution = solve(0 * CELL, MATERIALS, STRAIN, start=start, max_iterations=1)
        assert solution.bound > 1e-2
        assert 1e-2 < solution.residual < 1  # without a load, relative to the start

    def test_start_from_the_solution(self):
        solution = solve(CELL, MATERIALS, STRAIN, tol=1e-6)
        again = solve(CELL, MATERIALS, STRAIN, tol=1e-6, start=solution.displacement)
        assert again.iterations == 0
        assert_allclose(again.strain, solution.strain, atol=1e-14)
        assert_allclose(again.residual, solution.residual)

    @pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8])
    def test_tolerance(self, tol):
        solution = solve(CELL, MATERIALS, STRAIN, tol=tol)
        assert solution.converged
        assert 1e-3 * tol < solution.residual <= tol
        with pytest.warns(NotConverged, match=r"samples \[0\]"):
            short = solve(CELL, MATERIALS, STRAIN, tol=tol, max_iterations=solution.iterations[0] - 1)
        assert not short.converged
        assert short.residual > tol

    def test_one_iteration_short_of_the_tolerance_is_not_converged(self):
        needed = int(solve(CELL, MATERIALS, STRAIN, tol=1e-6).iterations[0])
        with pytest.warns(NotConverged):
            solution = solve(CELL, MATERIALS, STRAIN, tol=1e-6, max_iterations=needed - 1)
        assert not solution.converged
        assert 1e-6 < solution.residual < 1e-5
        assert_allclose(solution.history[0, 0], 1)
        assert solution.history.shape == (1, needed)
        assert_allclose(solution.history[0, -1], solution.residual)

    def test_history(self):
        """The residual after k iterations is its entry k; a sample that ends earlier is filled with NaN."""
        solution = solve(np.stack([0 * CELL, CELL]), MATERIALS, STRAIN, tol=1e-4)
        history = solution.history[1]
        assert len(history) == solution.iterations[1] + 1
        assert np.isnan(solution.history[0, 1:]).all()
        for k in range(len(history) - 1):
            with pytest.warns(NotConverged):
                stopped = solve(CELL, MATERIALS, STRAIN, max_iterations=k)
            assert stopped.residual == pytest.approx(history[k], rel=1e-3)

    def test_material_that_does_not_occur(self):
        solution = solve(CELL, (*MATERIALS, Isotropic(0.0, 0.3)), STRAIN)
        assert solution.bound < 1e-2

    @pytest.mark.parametrize("young", [1e8, 1e16])
    def test_stiff_material_that_does_not_occur(self, young):
        """Only the reference medium knows it: the field, residual and certificate stay those of the cell."""
        solution = solve(CELL, (*MATERIALS, Isotropic(young, 0.3)), STRAIN, tol=1e-6)
        assert 0 < solution.residual <= 1e-6
        assert_allclose(solution.strain, solve(CELL, MATERIALS, STRAIN, tol=1e-6).strain, atol=1e-4)

    def test_lone_voids_leave_their_batch_alone(self):
        materials = (*MATERIALS[:2], Isotropic(0.0, 0.3))
        phase = np.stack([0 * CELL + 2, random_cell(CELL.shape, 2)])
        for load in ((STRAIN, None), ([None] * 6, STRAIN)):
            alone = solve(phase[1], materials, *load)
            with warnings.catch_warnings(action="ignore", category=NotConverged):
                solution = solve(phase, materials, *load)
            assert solution.bound[0] == np.inf
            assert solution.converged[1]
            assert_array_equal(solution.strain[1], alone.strain[0])

    def test_stress_that_a_cell_cannot_carry(self):
        """A layer of void in the way of σ_xx: the residual says so, and the iteration ends."""
        phase = np.zeros((6, 3, 2), int)
        phase[2] = 1
        with pytest.warns(NotConverged):
            solution = solve(phase, [MATERIALS[0], Isotropic(0.0, 0.3)], [None] + [0] * 5, [1] + [None] * 5)
        assert not solution.converged
        assert not solution.residual < 1
        assert solution.iterations < 500

    @pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
    def test_start_out_of_all_range_is_not_converged(self):
        with pytest.warns(NotConverged):
            solution = solve(
                CELL, MATERIALS, STRAIN, start=1e155 * np.random.default_rng(0).normal(size=(1, 3, 5, 4, 3))
            )
        assert not solution.converged
        assert not solution.residual <= 1
        assert 0 <= solution.iterations <= 500

    @pytest.mark.parametrize("poisson", [0.49999999, 0.4999999999])
    def test_nearly_incompressible_phases(self, poisson):
        """They need the digits of double precision all the way."""
        materials = [Isotropic(1.0, poisson), Isotropic(10.0, poisson)]
        solution = solve(random_cell((6, 6, 6)), materials, (1, -0.5, -0.5, 0, 0, 0), tol=1e-6)
        assert solution.iterations < 100

    def test_only_the_late_sample_is_reported(self):
        phase = np.stack([np.zeros_like(CELL), CELL])
        with pytest.warns(NotConverged, match=r"samples \[1\]"):
            solution = solve(phase, MATERIALS, STRAIN, max_iterations=2)
        assert_array_equal(solution.converged, [True, False])

    @pytest.mark.parametrize("start", [None, np.ones((1, 3, *CELL.shape)) * CELL])
    def test_green_counts_applications(self, start, monkeypatch):
        calls, green = [], NumbaOperator.apply_green
        monkeypatch.setattr(NumbaOperator, "apply_green", lambda *a: calls.append(1) or green(*a))
        assert solve(CELL, MATERIALS, STRAIN, start=start, tol=1e-6).green == [len(calls)]


def test_loads_may_be_arrays():
    listed = solve(CELL, MATERIALS, [None] * 6, list(STRAIN))
    assert_array_equal(solve(CELL, MATERIALS, [None] * 6, np.array(STRAIN)).strain, listed.strain)
    listed = solve(CELL, MATERIALS, list(STRAIN))
    assert_array_equal(solve(CELL, MATERIALS, np.array(STRAIN)).strain, listed.strain)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase", np.zeros((2, 2, 2))),
        ("phase", np.full((2, 2, 2), np.nan)),
        ("phase", np.zeros((2, 2), int)),
        ("phase", np.zeros((0, 2, 2, 2), int)),
        ("phase", np.full((2, 2, 2), 3)),
        ("phase", np.full((2, 2, 2), -1)),
        ("materials", []),
        ("strain", [1, 0, 0]),
        ("strain", [1, 0, 0, 0, 0, None]),
        ("strain", [1, 0, 0, 0, 0, np.inf]),
        ("strain", [1, 0, 0, 0, 0, np.nan]),
        ("stress", [1, 0, 0]),
        ("stress", [None, None, None, None, None, 1]),
        ("spacing", (1, 1)),
        ("spacing", (1, 0, 1)),
        ("spacing", (1, 1, -1)),
        ("spacing", (np.nan, 1, 1)),
        ("spacing", (1, np.inf, 1)),
        ("scheme", "gauss"),
        ("tol", -1e-4),
        ("tol", 1.0),
        ("tol", np.nan),
        ("max_iterations", -1),
        ("max_iterations", 1.5),
        ("max_iterations", np.nan),
        ("device", "tpu"),
        ("device", "cuda:99"),
        ("start", np.zeros((1, 3, 5, 4, 2))),
        ("start", np.full((1, 3, 5, 4, 3), np.nan)),
        ("start", "u"),
        ("start", np.ones((1, 3, 5, 4, 3), complex)),
        ("strain", ["a"] * 6),
        ("strain", [1j] * 6),
        ("stress", "xxyyzz"),
        ("spacing", ("a", "b", "c")),
        ("spacing", (1, 1, None)),
        ("spacing", (1, 1, 1e6)),
        ("tol", "small"),
        ("tol", None),
        ("tol", [1e-4]),
        ("device", None),
        ("device", 0),
    ],
)
def test_arguments_that_make_no_sense(name, value):
    arguments = {"phase": CELL, "materials": MATERIALS, "strain": STRAIN}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        solve(**arguments | {name: value})


def masked(values, entries=1):
    """A masked array whose first entries are masked."""
    values = np.array(values)
    return np.ma.array(values, mask=np.arange(values.size).reshape(values.shape) < entries)


LARGE = r"must lie between 1e-100 and 1e\+100 in size, or be 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phase": masked(CELL, 3)}, "phase: 3 of 60 entries are masked; fill them first"),
        ({"phase": [CELL, masked(CELL)]}, "phase: 1 of 60 entries are masked"),
        ({"strain": masked(STRAIN, 2)}, "strain: 2 of 6 entries are masked"),
        ({"spacing": masked([1, 1, 1])}, "spacing: 1 of 3 entries are masked"),
        ({"start": masked(np.zeros((1, 3, *CELL.shape)))}, "start: 1 of 180 entries are masked"),
        (
            {"phase": np.zeros((8, 8, 8, 1), int)},
            r"phase has shape \(8, 8, 8, 1\): if that is one image with a channel",
        ),
        ({"phase": [[[0, 1], [0]]]}, r"phase = \[\[\[0, 1\], \[0\]\]\]: must be an array of integers"),
        ({"strain": [""] * 6}, r"strain = \['', '', '', '', '', ''\]: must be real and finite"),
        ({"strain": [1e-165, 0, 0, 0, 0, 0]}, f"strain = .*1e-165.*: {LARGE}"),
        ({"strain": [1e152, 0, 0, 0, 0, 0]}, f"strain = .*1e.152.*: {LARGE}"),
        ({"strain": [None] * 6, "stress": [1e-165, 0, 0, 0, 0, 0]}, f"stress = .*1e-165.*: {LARGE}"),
        ({"spacing": [1e-107] * 3}, f"spacing = .*: {LARGE}"),
        ({"spacing": [True] * 3}, r"spacing = \[True, True, True\]: must be real and finite"),
        ({"tol": "1e-4"}, "tol = '1e-4': must be a finite number"),
        ({"max_iterations": True}, "max_iterations = True: must be an integer, at least 0"),
        ({"scheme": np.array(["bbar"])}, r"scheme = \['bbar'\]: must be one of"),
        ({"materials": MATERIALS[0]}, r"materials = Isotropic\(.*\): must be a list of"),
        ({"materials": set(MATERIALS)}, r"materials = \{.*\}: must be a list of"),
        ({"materials": None}, "materials = None: must be a list of"),
    ],
)
def test_messages_name_the_argument_its_value_and_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        solve(**{"phase": CELL, "materials": MATERIALS, "strain": STRAIN} | arguments)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_arguments_of_other_types_that_hold_the_same():
    """NumPy's scalars, arrays without axes, masked arrays without a mask, generators and arrays of materials."""
    expected = solve(CELL, MATERIALS, STRAIN, tol=1e-3, max_iterations=50).strain
    materials = [Isotropic(np.float64(m.young), np.array(m.poisson)) for m in MATERIALS]
    numbers = {"tol": np.array(1e-3), "max_iterations": np.int64(50)}
    for phase, many, strain in (
        (np.ma.array(CELL), (m for m in materials), [np.array(e) for e in STRAIN]),
        (CELL.tolist(), np.array(materials, dtype=object), np.array(STRAIN, dtype=object)),
    ):
        assert_array_equal(solve(phase, many, strain, **numbers).strain, expected)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Isotropic, ("1", 0.3), "young = '1': must be a number ≥ 0"),
        (Isotropic, (True, 0.3), "young = True: must be a number ≥ 0"),
        (Isotropic, (1, [0.3]), r"poisson = \[0.3\]: must be a finite number"),
        (Isotropic, (1e308, 0.3), f"young = 1e.308: {LARGE}"),
        (Isotropic, (np.ma.masked, 0.3), "young: 1 of 1 entries are masked"),
        (Conductor, ("1",), "conductivity = '1': must be a number ≥ 0, or "),
        (Conductor, ([[1, 2], [3]],), r"conductivity = \[\[1, 2\], \[3\]\]: must be a number ≥ 0, or "),
        (Conductor, (1j * np.eye(3),), "conductivity = .*: must be a number ≥ 0, or "),
        (Anisotropic, ("C",), "stiffness = 'C': must be real and finite"),
        (Anisotropic, (masked(np.eye(6)),), "stiffness: 1 of 36 entries are masked"),
        (Anisotropic, (1e120 * np.eye(6),), f"stiffness = .*: {LARGE}"),
        (generate, (2.5, 8, 0), "count = 2.5: must be an integer, at least 0"),
        (generate, (2, "8", 0), "n = '8': must be an integer, at least 1"),
        (generate, (2, 8, True), "seed = True: must be an integer, at least 0"),
        (generate, (2, 8, 0, None), "split = None: must be one of train, valid, test"),
        (bounds, (masked(CELL), MATERIALS), "phase: 1 of 60 entries are masked"),
        (bounds, (CELL, None), "materials = None: must be a list of"),
    ],
)
def test_materials_and_other_functions_check_what_they_are_given(kind, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(*arguments)


@pytest.mark.parametrize("young", [-1, np.inf, np.nan])
def test_young_that_makes_no_sense(young):
    with pytest.raises(ValueError, match="young"):
        Isotropic(young, 0.3)


@pytest.mark.parametrize("poisson", [-1, 0.5, 0.6, np.nan])
def test_poisson_that_makes_no_sense(poisson):
    with pytest.raises(ValueError, match="poisson"):
        Isotropic(1.0, poisson)


def test_several_threads_may_solve_at_a_time():
    """Each has buffers of its own."""
    phase = random_cell((12, 12, 12), 2)
    with ThreadPoolExecutor(4) as pool:
        many = [pool.submit(solve, np.stack([phase] * count), MATERIALS, STRAIN) for count in (1, 5, 2, 7)]
        fields = [future.result().strain for future in many]
    for strain in fields:
        assert_array_equal(strain, fields[0][[0] * len(strain)])
