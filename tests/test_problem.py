"""The problem and its files: also those that the version before wrote, which had no kinds of materials."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import call
from scipy.spatial.transform import Rotation

from lspipe import Anisotropic, Conductor, Cubic, Hexagonal, Isotropic, Void, load_model, open_dataset
from lspipe.cell.kinds import read_material, write_material
from lspipe.cell.material import Material
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.registry import KINDS
from lspipe.cell.solver import solve_problem
from lspipe.models.domain import Domain
from lspipe.models.files import read_model
from lspipe.models.shipped import SHIPPED
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
        ({"stress": [1, 0, 0, 0, 0, 0]}, "component xx of strain = 1.0 and of stress = 1: must be prescribed in one"),
        ({"pressure": 1}, "problem = .*pressure"),
        ({"materials": [{"kind": "steel", "young": 1}]}, "kind = 'steel': must be one of isotropic, anisotropic"),
        (
            {"materials": [{"kind": "isotropic", "youngs": 1}]},
            "youngs is not a key of isotropic; allowed here: young, poi",
        ),
        ({"materials": [{"young": 1}]}, "poisson is missing; isotropic needs young, poisson"),
        ({"materials": [{"youngs": 1}]}, "kind is missing"),
        ({"materials": [{"kind": "void", "euler": [1, 2]}]}, r"euler = \[1, 2\]: must be three angles in degrees"),
        (
            {"materials": [{"kind": "void", "quaternion": [1, 2, 0, 0]}]},
            "quaternion = .*: must be a quaternion .* length 1",
        ),
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
    work = 60 * np.einsum(
        "nc,c->n", mean, np.array(problem.strain) / problem.physics.tensor_factors
    )  # Hill: <ε:σ> = <ε>:<σ>
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
        call("verify", f"{name}.zarr", "--workers", 1, cwd=folder)
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("c/**/*") if file.is_file()}
    options = "--material 100,0.3 --material 1000,0.2 --strain 1e-3,0,0,0,0,2e-3 --scheme full --samples-per-shard 1"
    call("allocate", "fields.zarr", "cells.zarr", *options.split(), cwd=folder)
    call("solve", "cells.zarr", "fields.zarr", "--workers", 1, cwd=folder)
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


LOAD = [1e-3, 0, 0, 0, 0, 0]
COPPER = Cubic(168.4, 121.4, 75.4, expansion=16.7e-6)


def tensor(C):
    """Return C_ijkl (3, 3, 3, 3) of a stiffness (6, 6), entry by entry."""
    pairs = {(0, 0): 0, (1, 1): 1, (2, 2): 2, (1, 2): 3, (0, 2): 4, (0, 1): 5}
    voigt = np.array([[pairs[min(i, j), max(i, j)] for j in range(3)] for i in range(3)])
    return C[voigt[:, :, None, None], voigt]


@pytest.mark.parametrize("crystal", [COPPER, Hexagonal(160, 90, 66, 181, 46.5), Isotropic(100, 0.3)])
def test_a_rotated_crystal_has_the_rotated_tensor(crystal):
    rotation = Rotation.from_euler("ZXZ", [20, 50, 70], degrees=True)
    R = rotation.as_matrix()
    expected = np.einsum("ia,jb,kc,ld,abcd", R, R, R, R, tensor(crystal.stiffness))
    np.testing.assert_allclose(tensor(crystal.rotated(rotation).stiffness), expected, atol=1e-12 * expected.max())


def test_a_hexagonal_crystal_is_the_same_about_its_axis():
    crystal = Hexagonal(160, 90, 66, 181, 46.5)
    turned = crystal.rotated(Rotation.from_euler("z", 35, degrees=True))
    np.testing.assert_allclose(turned.stiffness, crystal.stiffness, atol=1e-12 * 181)


def test_bunge_angles_turn_the_axes_of_the_crystal_into_those_of_the_cell():
    """Bunge's g, which maps the cell to the crystal, is written out in every textbook (Bunge 1982, eq. 2.20)."""
    a, b, c = np.deg2rad([20, 50, 70])
    g = np.array(
        [
            [np.cos(a) * np.cos(c) - np.sin(a) * np.sin(c) * np.cos(b),
             np.sin(a) * np.cos(c) + np.cos(a) * np.sin(c) * np.cos(b), np.sin(c) * np.sin(b)],
            [-np.cos(a) * np.sin(c) - np.sin(a) * np.cos(c) * np.cos(b),
             -np.sin(a) * np.sin(c) + np.cos(a) * np.cos(c) * np.cos(b), np.cos(c) * np.sin(b)],
            [np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), np.cos(b)],
        ]
    )  # fmt: skip
    rotation = Rotation.from_euler("ZXZ", [20, 50, 70], degrees=True)
    np.testing.assert_allclose(rotation.as_matrix(), g.T, atol=1e-14)
    along = Anisotropic(np.diag([1.0, 1, 2, 1, 1, 1]), (0, 0, 1, 0, 0, 0)).rotated(rotation).expansion_strain
    np.testing.assert_allclose(along[:3], g[2] ** 2, atol=1e-14)  # the crystal's z axis in the cell is row 3 of g


@pytest.mark.parametrize("key", ["euler", "quaternion"])
def test_a_described_material_is_turned(key):
    rotation = Rotation.from_euler("ZXZ", [20, 50, 70], degrees=True)
    value = {"euler": [20, 50, 70], "quaternion": rotation.as_quat(scalar_first=True).tolist()}[key]
    crystal = read_material({"kind": "cubic", "c11": 168.4, "c12": 121.4, "c44": 75.4, key: value})
    expected = Cubic(168.4, 121.4, 75.4).rotated(rotation)
    np.testing.assert_allclose(crystal.stiffness, expected.stiffness, atol=1e-11)


def test_a_conductor_turns_like_a_tensor():
    rotation = Rotation.from_euler("ZXZ", [20, 50, 70], degrees=True)
    expected = rotation.as_matrix() @ np.diag([1.0, 2, 3]) @ rotation.as_matrix().T
    turned = Conductor(np.diag([1.0, 2, 3])).rotated(rotation)
    np.testing.assert_allclose(turned.stiffness, expected, atol=1e-14)


def test_grains_are_rotated_materials():
    rotations = Rotation.random(3, rng=0)
    problem = Problem((COPPER, Isotropic(70, 0.3)), LOAD, temperature=10)
    grains = problem.with_grains([0, 1, 0], rotations.as_quat(scalar_first=True))
    materials = [problem.materials[m].rotated(r) for m, r in zip([0, 1, 0], rotations, strict=True)]
    explicit = Problem(materials, LOAD, temperature=10)
    np.testing.assert_allclose(grains.stiffnesses, explicit.stiffnesses, atol=1e-11)
    np.testing.assert_allclose(grains.eigenstresses, explicit.eigenstresses, atol=1e-12)
    assert grains.count == 3
    assert hash(grains) == hash(problem.with_grains([0, 1, 0], rotations.as_quat(scalar_first=True)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cubic(100, 120, 50), r"c11 = 100, c12 = 120, c44 = 50: must have c11 > \|c12\|"),
        (lambda: Hexagonal(100, 20, 90, 100, 50), "c33 = 100, c44 = 50: must have .* c13²"),
        (lambda: Isotropic(1, 0.3, expansion=[1, 2]), "expansion = .*: must be a number or six components"),
        (lambda: Problem(MATERIALS, LOAD).with_grains([0], [[1, 1, 0, 0]]), "orientation = .*: must be .* of length 1"),
        (lambda: Problem(MATERIALS, LOAD).with_grains([0, 1], [[1, 0, 0, 0]]), "1 quaternions for 2 grains"),
        (lambda: Problem(MATERIALS, LOAD).with_grains([2], [[1, 0, 0, 0]]), "material of a grain = 2: must be 0 to 1"),
        (lambda: Problem([Conductor(1)], [1, 0, 0], temperature=1), "temperature = 1: must be 0"),
    ],
)
def test_what_is_no_crystal_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_stress_of_many_phases_with_expansion_and_voids():
    """Voxel by voxel, with NaN in voids as solutions have it."""
    problem = Problem([*MATERIALS, Void(), COPPER], LOAD, temperature=5)
    rng = np.random.default_rng(0)
    phase, strain = rng.integers(0, 4, (2, 3, 4, 2)), rng.random((2, 6, 3, 4, 2))
    expected = np.empty_like(strain)
    for at in np.ndindex(phase.shape):
        material = problem.materials[phase[at]]
        where = at[0], slice(None), *at[1:]
        free = strain[where] - 5 * material.expansion_strain
        expected[where] = material.stiffness @ (free / ELASTICITY.tensor_factors)
    strain.swapaxes(0, 1)[:, phase == 2] = np.nan
    np.testing.assert_allclose(problem.compute_stress(phase, strain), expected, atol=1e-12)
    tensors = torch.from_numpy(phase), torch.from_numpy(strain)
    np.testing.assert_allclose(problem.compute_stress(*tensors).numpy(), expected, atol=1e-12)
    assert np.isfinite(problem.compute_energy(phase, strain)).all()
