"""What predictions state of their own error: residual and bound of a strain field, and the error of most cells."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lspipe import Conductor, Isotropic, Void, generate, solve
from lspipe.cell.certificate import certify, find_displacement
from lspipe.cell.problem import Problem
from lspipe.models.architectures import build
from lspipe.models.conformal import conformal_quantile
from lspipe.models.domain import Domain
from lspipe.models.localization import LocalizationModel

ELASTIC, CONDUCTORS = (Isotropic(120, 0.3), Isotropic(1200, 0.2)), (Conductor(1.0), Conductor(10.0))
LOAD = (1e-3, 0.0, -5e-4, 0.0, 0.0, 2e-4)


def gradient(u, spacing):
    """The mean gradient (N, d, 3, …) in each voxel of a displacement (N, d, …) at its corners, by differences."""
    parts = []
    for axis in range(3):
        field = (np.roll(u, -1, axis + 2) - u) / spacing[axis]
        for other in {0, 1, 2} - {axis}:
            field = (field + np.roll(field, -1, other + 2)) / 2
        parts.append(field)
    return np.stack(parts, axis=2)


@pytest.mark.parametrize("materials", [ELASTIC, CONDUCTORS], ids=["elastic", "conduction"])
def test_a_displacement_is_recovered_from_its_strain(materials):
    """On odd numbers of voxels it is unique. A mean strain has no periodic displacement."""
    problem = Problem(materials, LOAD[: 6 if len(materials[0].stiffness) == 6 else 3], spacing=(1, 2, 0.75))
    u = np.random.default_rng(0).normal(size=(2, problem.physics.d, 5, 3, 7))
    u -= u.mean(axis=(2, 3, 4), keepdims=True)
    g = gradient(u, problem.spacing)
    strain = g[:, 0]
    if problem.physics.d == 3:
        pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
        strain = np.stack([(g[:, i, j] + g[:, j, i]) / 2 for i, j in pairs], axis=1)
    assert_allclose(find_displacement(strain + 0.3, problem), u, atol=1e-12)


@pytest.mark.parametrize(("scheme", "n"), [*product(("bbar", "full", "reduced"), (7, 8))])
def test_the_bound_holds_for_fields_that_no_displacement_has(scheme, n):
    """The true error is that of the voxel means, relative to the field that is nearest. On an odd grid, the field of
    the solver has the residual and the bound that the solver states."""
    phase, problem = generate(3, n, 0).phase, Problem(ELASTIC, LOAD, scheme=scheme)
    truth = solve(phase, ELASTIC, LOAD, scheme=scheme, tol=1e-9).strain
    stopped = solve(phase, ELASTIC, LOAD, scheme=scheme, tol=0, max_iterations=2, warn=False)
    noise = 3e-4 * np.random.default_rng(1).normal(size=truth.shape)

    def nearest(strain):
        options = {"start": find_displacement(strain, problem), "scheme": scheme, "max_iterations": 0, "warn": False}
        return solve(phase, ELASTIC, LOAD, **options).strain

    for strain in (stopped.strain, stopped.strain + noise, truth + noise - nearest(noise)):
        residual, bound = certify(strain, phase, problem)
        energy = problem.compute_energy(phase, nearest(strain))
        errors = np.sqrt(problem.compute_energy(phase, strain - truth) / energy)
        assert (errors < bound).all()
        assert (bound < 8 * errors).all(), "a bound that says nothing"
        if strain is stopped.strain and (n % 2 or scheme == "reduced"):
            assert_allclose([residual, bound], [stopped.residual, stopped.bound], rtol=1e-6)


def model(channels, materials=ELASTIC, **options):
    return LocalizationModel(build("rln-t", 2, channels).eval(), [Domain(materials, LOAD)], **options)


def test_a_network_of_all_components_has_a_residual_and_a_bound():
    phase = generate(2, 8, 0).phase
    every = model(6)
    found = every.predict(phase, ELASTIC, [2 * e for e in LOAD])
    expected = certify(found.strain, phase, Problem(ELASTIC, [2 * e for e in LOAD]))
    assert_allclose([found.residual, found.bound], expected)
    *_, (_, _, last) = every.iterates(phase, Problem(ELASTIC, LOAD))
    assert_allclose([last.residual, last.bound], expected, rtol=1e-4)
    assert found.green is None
    assert model(1).predict(phase, ELASTIC, LOAD).bound is None
    porous = (Isotropic(120, 0.3), Void())
    assert model(6, porous).predict(phase, porous, LOAD).bound is None


def test_errors_of_one_microstructure_stay_below_those_of_others_as_often_as_stated():
    """Each of n + 1 errors once stands for the new one: ⌈(n + 1)·c⌉ of them are at most the quantile of the others."""
    errors = np.random.default_rng(2).permutation(np.geomspace(0.1, 10, 20)).tolist()
    for coverage, expected in ((0.9, 18), (0.88, 18), (0.5, 10)):
        below = [e <= conformal_quantile(errors[:k] + errors[k + 1 :], coverage) for k, e in enumerate(errors)]
        assert sum(below) == expected
    assert conformal_quantile(errors[:9]) == max(errors[:9])
    assert conformal_quantile(errors[:8]) is None


def test_the_error_of_most_microstructures_belongs_to_a_load_and_to_all_passes():
    materials = ELASTIC
    shear = (0.0, 0.0, 0.0, 0.0, 0.0, 1e-3)
    domains = [Domain(materials, LOAD), Domain(materials, shear)]
    network = LocalizationModel(build("rln-t", 2, 6).eval(), domains, [3.0, None], [[8, 8, 8]])
    phase = generate(2, 8, 0).phase
    assert network.predict(phase, materials, [3 * e for e in LOAD]).mase_90.tolist() == [3, 3]
    assert network.predict(phase, materials, LOAD, passes=4).mase_90 is None
    assert network.predict(generate(2, (8, 8, 9), 0).phase, materials, LOAD).mase_90 is None
    assert network.predict(phase, materials, shear).mase_90 is None
