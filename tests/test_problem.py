"""The problem and its files: also those that the version before wrote, which had no kinds of materials."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import run

from lspipe import Anisotropic, Conductor, Isotropic, load_model, open_dataset
from lspipe.cell.material import KINDS, Material, read_material, write_material
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem
from lspipe.models.domain import Domain
from lspipe.models.files import SHIPPED, read_model
from lspipe.store import Store

MATERIALS = (Isotropic(100.0, 0.3), Anisotropic(np.diag([3.0, 2.0, 2.0, 1.0, 1.0, 1.0])))
MIXED = Problem(
    MATERIALS, (1e-3, None, 0, 0, 0, 0), (None, 2.0, None, None, None, None), scheme="full", spacing=(1, 2, 0.5)
)
HEAT = Problem([Conductor(1), Conductor(np.diag([1.0, 2.0, 3.0]))], [1, 0, 0])


@pytest.mark.parametrize(
    "problem", [MIXED, HEAT, Problem(MATERIALS, [1, 0, 0, 0, 0, 0])], ids=["mixed", "heat", "strain"]
)
def test_a_problem_survives_json(problem):
    text = json.dumps(problem.to_json())
    assert Problem.from_json(json.loads(text)) == problem
    assert [m["kind"] for m in json.loads(text)["materials"]] == [m.kind for m in problem.materials]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scheme": "cubic"}, "scheme = 'cubic': must be one of bbar, full, reduced"),
        ({"strain": [1, 0]}, "strain = .*: must have 6 components"),
        ({"spacing": [1, 1, 0]}, "spacing = .*: must be three positive numbers"),
        ({"stress": [1, 0, 0, 0, 0, 0]}, "component xx of strain and stress: prescribe one of the two"),
        ({"pressure": 1}, "problem = .*pressure"),
        ({"materials": [{"kind": "steel", "young": 1}]}, "kind = 'steel': must be one of isotropic, anisotropic"),
        ({"materials": [{"kind": "isotropic", "youngs": 1}]}, "material = .*youngs"),
        ({"materials": [{"youngs": 1}]}, "material = .*kind = None"),
    ],
)
def test_json_of_no_problem_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Problem.from_json(Problem(MATERIALS, [1, 0, 0, 0, 0, 0]).to_json() | changed)


@pytest.fixture
def kinds():
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


@pytest.mark.usefixtures("kinds")
def test_materials_are_told_apart_by_kind_and_not_by_their_parameters():
    @dataclass(frozen=True)
    class PlaneStress(Material):
        physics: ClassVar = ELASTICITY
        young: float
        poisson: float
        stiffness: ClassVar = np.eye(6)

    for material in (Isotropic(1.0, 0.2), PlaneStress(1.0, 0.2)):
        assert read_material(write_material(material)) == material
    assert read_material({"young": 1.0, "poisson": 0.2}) == Isotropic(1.0, 0.2)
    with pytest.raises(TypeError, match=r"Isotropic.* has the kind 'isotropic' already"):

        class Other(Material, kind="isotropic"):
            pass


@pytest.mark.parametrize("problem", [Problem(MATERIALS, [1, 0, 0, 0, 0, 0.5]), HEAT], ids=["elastic", "heat"])
def test_stress_and_energy_are_those_of_the_solver(problem):
    """In NumPy and PyTorch alike; the reduced element has one point, whose strain is that of the voxel."""
    problem = Problem(problem.materials, problem.strain, scheme="reduced")
    phase = np.random.default_rng(0).integers(0, 2, (2, 4, 3, 5))
    solution = solve_problem(phase, problem, tol=1e-8)
    np.testing.assert_allclose(problem.compute_stress(phase, solution.strain), solution.stress, rtol=1e-9, atol=1e-9)
    tensors = torch.from_numpy(phase), torch.from_numpy(solution.strain)
    np.testing.assert_allclose(problem.compute_stress(*tensors).numpy(), solution.stress, rtol=1e-9, atol=1e-9)
    mean = solution.stress.mean(axis=(2, 3, 4))
    work = 60 * np.einsum("nc,c->n", mean, np.array(problem.strain) / problem.physics.shear)  # Hill: <ε:σ> = <ε>:<σ>
    np.testing.assert_allclose(problem.compute_energy(phase, solution.strain), work, rtol=1e-6)
    np.testing.assert_allclose(problem.compute_energy(*tensors).numpy(), work, rtol=1e-6)


@pytest.fixture
def old(tmp_path):
    """Stores and a model that the version before materials had kinds wrote, and what it computed with them."""
    shutil.unpack_archive(Path(__file__).parent / "data" / "data_version_3.zip", tmp_path)
    return tmp_path, np.load(tmp_path / "expected.npz")


def test_stores_of_the_version_before_open_and_verify_and_are_kept(old):
    folder, expected = old
    for name, phases in (
        ("fields", [Isotropic(100, 0.3), Isotropic(1000, 0.2)]),
        ("heat", [Conductor(1), Conductor(20)]),
    ):
        np.testing.assert_array_equal(open_dataset(folder / f"{name}.zarr").strain[:, 0], expected[name])
        assert Store.open(folder / f"{name}.zarr").problem.materials == tuple(phases)
        run("lspipe", "verify", f"{name}.zarr", "--workers", 1, cwd=folder)
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("c/**/*") if file.is_file()}
    options = "--material 100,0.3 --material 1000,0.2 --strain 1e-3,0,0,0,0,2e-3 --scheme full --samples-per-shard 1"
    run("lspipe", "allocate", "fields.zarr", "cells.zarr", *options.split(), cwd=folder)
    run("lspipe", "solve", "cells.zarr", "fields.zarr", "--workers", 1, cwd=folder)
    assert times == {file: file.stat().st_mtime_ns for file in times}
    assert [m["kind"] for m in Store.open(folder / "fields.zarr").attributes["materials"]] == ["isotropic"] * 2


def test_models_of_the_version_before_give_the_same_numbers(old):
    folder, expected = old
    phase, strain = open_dataset(folder / "cells.zarr").phase.values, [1e-3, 0, 0, 0, 0, 0]
    field = (
        load_model(folder / "model").predict_problem(phase, Store.open(folder / "fields.zarr").problem, passes=1).strain
    )
    np.testing.assert_allclose(field[:, 0], expected["model"], rtol=1e-5, atol=1e-8)
    for name in ("fln-c10", "rln-cg"):
        field = load_model(name).predict(phase, [Isotropic(120, 0.3), Isotropic(1200, 0.3)], strain, passes=1).strain
        np.testing.assert_allclose(field[:, 0], expected[name], rtol=1e-4, atol=1e-8)
    assert all(Domain.from_json(domain) for folder in SHIPPED.iterdir() for domain in read_model(folder)[0].domains)
