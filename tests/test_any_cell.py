"""Polycrystals, pores, any load and any voxels, from the store to errors, figures and images."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import call
from numpy.testing import assert_allclose, assert_array_equal
from problems import Direct, tensor
from scipy.spatial.transform import Rotation
from test_export import fields as cell_data
from test_export import read
from test_verify import rewrite

from lspipe import Cubic, Isotropic, Void, effective_expansion, effective_stiffness, evaluate, load_model, open_dataset
from lspipe.cell.kinds import write_material
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, import_microstructures, solve_fields, write_microstructures
from lspipe.export import export
from lspipe.figures import fields as figures
from lspipe.measure import choose_shown, count_measured
from lspipe.microstructure import Gaussian, Polycrystal, Spheres
from lspipe.store import Store
from lspipe.verify import repair, verify

COPPER, STEEL = Cubic(168.4, 121.4, 75.4, expansion=16.7e-6), Isotropic(210, 0.3, expansion=12e-6)
SHEAR, XX = [0, 0, 0, 0, 0, 1e-3], [1e-3, *[None] * 5]
FREE = [None] * 6
# Generator, voxels, spacing, problem, and the component that figures show.
CASES = {
    "polycrystal": (
        Polycrystal(grains=7, fractions=(0.6, 0.4)),
        ((6, 5, 4), (1, 1, 2)),
        Problem([COPPER, STEEL], SHEAR, temperature=50, scheme="full"),
        "xy",
    ),
    "porous": (
        Spheres(count=2, fraction=0.2),
        (6, (1, 1, 1)),
        Problem([STEEL, Void()], XX, [None, 0, 0, 0, 0, 0]),
        "xx",
    ),
    "plane": (
        Gaussian(fractions=(0.3, 0.3, 0.4)),
        ((9, 8, 1), (0.5, 1, 1)),
        Problem([Isotropic(1, 0.2), STEEL, Isotropic(40, 0.4)], [0, *FREE[1:]], [None, 0, 0, 0, 0, 2e-3]),
        "xy",
    ),
}


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """The name of a case, and three microstructures in two shards with their fields."""
    folder = tmp_path_factory.mktemp(request.param)
    generator, (n, spacing), problem, _ = CASES[request.param]
    cells, fields = folder / "cells.zarr", folder / "fields.zarr"
    options = {"count": 3, "n": n, "seed": 1, "split": "test", "per_shard": 2, "spacing": spacing}
    write_microstructures(cells, generator=generator, **options)
    create_fields(fields, cells, problem, tol=1e-7, per_shard=2)
    solve_fields(fields, cells)
    return request.param, cells, fields


def materials_of(cells, problem, sample):
    """The phase of a sample, its materials for the direct solver, and the voxels that are no voids."""
    data = open_dataset(cells).isel(sample=sample)
    phase, materials = data.phase.values, problem.materials
    if "orientation" in data:
        turned = Rotation.from_quat(data.orientation.values[:, [1, 2, 3, 0]])
        materials = [problem.materials[m].rotated(r) for m, r in zip(data.material.values, turned, strict=True)]
    solid = np.array([material.stiffness.any() for material in materials])[phase]
    return phase, [Isotropic(0, 0.3) if isinstance(m, Void) else m for m in materials], solid


def test_fields_are_those_of_a_direct_solver(made):
    name, cells, fields = made
    problem = CASES[name][2]
    _, spacing = CASES[name][1]
    for sample in (0, 2)[name == "porous" :]:
        phase, materials, solid = materials_of(cells, problem, sample)
        direct = Direct(phase, materials, problem.scheme, spacing, problem.temperature)
        truth = direct.solve(problem.strain, problem.stress).strain
        strain = open_dataset(fields).strain.values[sample]
        assert_allclose(strain[:, solid], truth[:, solid], atol=2e-6 * np.abs(truth[:, solid]).max())
        assert np.isnan(strain[:, ~solid]).all()


def test_stores_state_what_they_hold(made):
    name, cells, fields = made
    generator, (n, spacing), problem, _ = CASES[name]
    data = open_dataset(cells)
    assert data.phase.shape[1:] == tuple(np.broadcast_to(n, 3))
    assert data.phase.dtype == (np.uint16 if name == "polycrystal" else np.uint8)
    assert data.attrs.get("spacing", [1, 1, 1]) == list(spacing)
    stored = Store.open(fields).problem
    assert stored == replace(problem, spacing=spacing)
    materials = data.phase.values
    if name == "polycrystal":
        assert data.orientation.coords["quaternion"].values.tolist() == ["w", "x", "y", "z"]
        materials = np.stack([data.material.values[k][materials[k]] for k in range(3)])
    for p in range(generator.phases):
        assert_allclose(data.volume_fraction[:, p], (materials == p).mean(axis=(1, 2, 3)), atol=1e-12)
    for receipt in fields.with_suffix(".receipts").glob("*.json"):
        json.loads(receipt.read_text(), parse_constant=pytest.fail)  # neither NaN nor Infinity is JSON


def test_whole_stores_are_verified_and_made_again(made):
    for path, check in zip(made[1:], ("made again", "solved again"), strict=True):
        verdict = verify(path, again=3)
        assert not verdict.faults
        assert verdict.checks[check] == "samples 0, 1, 2"


@pytest.mark.parametrize(
    ("load", "measured", "shown"),
    [
        ({"strain": [-1e-3, *[0] * 5]}, 1, 0),
        ({"strain": [-1e-3, *[0] * 5], "temperature": 1}, 6, 0),
        ({"strain": [1e-3, 0, 0, 0, 0, 2e-3]}, 6, 0),
        ({"strain": [0, 1e-3, 0, 1.2e-3, 0, 0]}, 6, 3),
        ({"strain": [0, *FREE[1:]], "stress": [None, 0, 1, -2, 0, 0]}, 6, 3),
        ({"strain": [0, *FREE[1:]], "stress": [None, *[0] * 5], "temperature": 1}, 6, 1),
        ({"strain": [0] * 6, "temperature": 1}, 6, 0),
    ],
)
def test_the_load_states_what_is_measured_and_shown(load, measured, shown):
    problem = Problem([STEEL], **load)
    assert (count_measured(problem, 6), choose_shown(problem)) == (measured, shown)


def norm(strain):
    """The Frobenius norm of the tensor."""
    return np.sqrt((tensor(strain) ** 2).sum(axis=(0, 1)))


def test_errors_and_figures(made):
    name, cells, fields = made
    *_, problem, shown = CASES[name]
    errors, examples = evaluate.evaluate(load_model("cg"), cells, fields)
    last = errors[errors["passes"] == 5]
    c, data = ("xx", "yy", "zz", "yz", "xz", "xy").index(shown), Store.open(fields).problem
    for sample in range(3):
        phase, materials, solid = materials_of(cells, problem, sample)
        truth = open_dataset(fields).strain.values[sample].astype(float)
        alone = replace(data, materials=tuple(materials))
        predicted = load_model("cg").predict_problem(phase, alone, passes=5).strain[0]
        off = norm((predicted - truth)[:, solid])
        mean = norm(truth[:, solid].mean(axis=1))
        expected = {"mase": off.mean(), "rmse": np.sqrt((off**2).mean()), "max_error": off.max()}
        for error, value in expected.items():
            assert_allclose(last[error].iloc[sample], 100 * value / mean, rtol=1e-3)
        assert (last["energy"].iloc[sample] <= 100 * last["bound"].iloc[sample]).all()
        value = truth[c][solid].mean() if problem.strain[c] is None else problem.strain[c]
        assert_allclose(examples["scale"][sample], value, rtol=1e-6)
        assert_array_equal(examples["truth"][sample], open_dataset(fields).strain[sample, c])
    assert examples.attrs["component"] == shown
    assert ("crystal" in examples) == (name == "polycrystal")
    for draw in (figures.gallery, figures.slices, figures.iterates, figures.distributions, figures.interfaces):
        image = draw({"cg": examples}).axes[0].images
        if image:
            assert image[0].axes.get_aspect() == data.spacing[1] / data.spacing[0]
        figures.plt.close("all")


def test_images_for_paraview(made, tmp_path):
    name, cells, fields = made
    _, (_, spacing), problem, _ = CASES[name]
    export(tmp_path, cells, fields, [1], load_model("cg"), csv=True)
    assert read(tmp_path / "1.vti").GetSpacing() == spacing
    phase, materials, solid = materials_of(cells, problem, 1)
    found = cell_data(tmp_path / "1.vti")
    strain = open_dataset(fields).strain.values[1]
    C = np.array([m.stiffness for m in materials])[phase.T.ravel()]
    engineering = np.nan_to_num(strain) * np.reshape([1, 1, 1, 2, 2, 2], (-1, 1, 1, 1))
    free = problem.temperature * np.array([m.expansion_strain for m in materials])[phase.T.ravel()] * [1, 1, 1, 2, 2, 2]
    stress = np.einsum("vij,vj->vi", C, engineering.T.reshape(-1, 6) - free)[:, [0, 1, 2, 5, 3, 4]]
    assert_allclose(found["stress"], stress, atol=1e-6 * np.abs(stress).max())
    assert_array_equal(np.isnan(found["error"][:, 0]), ~solid.T.ravel())
    if name == "polycrystal":
        data = open_dataset(cells).isel(sample=1)
        assert_array_equal(found["grain"], phase.T.ravel())
        assert_array_equal(found["phase"], data.material.values[phase].T.ravel())
        assert_allclose(found["orientation"], data.orientation.values[phase.T.ravel()], rtol=1e-6)


def turn(arrays):
    arrays["orientation"][0, 2] = [0, 1, 0, 0]


def lengthen(arrays):
    arrays["orientation"][0, 2] *= 2


def forget(arrays):
    arrays["material"][1, 3] = 65535


def fill(arrays):
    arrays["strain"][0] = np.nan_to_num(arrays["strain"][0])


@pytest.mark.parametrize(
    ("made", "change", "check", "said"),
    [
        ("polycrystal", turn, "made again", "sample 0: orientation differs"),
        ("polycrystal", lengthen, "values", "1 samples with a grain that has no material or no orientation"),
        ("polycrystal", forget, "values", "1 samples with a grain that has no material or no orientation"),
        ("porous", fill, "values", "1 samples with a strain in voids"),
    ],
    indirect=["made"],
)
def test_values_that_were_written_wrong(made, change, check, said):
    _, cells, fields = made
    path = fields if change is fill else cells
    truth = open_dataset(path).load()
    rewrite(path, 0, change)
    verdict = verify(path, again=3)
    assert (check, 0, said) in verdict.faults
    if path == cells:
        assert any("microstructures" in said for *_, said in verify(fields, again=0).faults)
    repair(verdict)
    assert open_dataset(path).equals(truth)
    assert not verify(fields).faults


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"spacing": (1, 1, 2)}, r"spacing = \(1.0, 1.0, 2.0\): .*cells.zarr has voxels of \(2.0, 1.0, 1.0\)"),
        ({"strain": [0] * 6}, r"strain = \[0.0, .*\], stress = None, temperature = 0: must have"),
        ({"materials": [Void()] * 2}, "materials: are all voids"),
        ({"materials": [STEEL]}, "1 material: .*cells.zarr has 2 phases"),
        ({"strain": FREE, "stress": [1e-30, *[0] * 5]}, "stress = .*1e-30.*: must lie between 1e-15"),
    ],
)
def test_problems_that_are_refused(tmp_path, changed, said):
    cells = tmp_path / "cells.zarr"
    options = {"count": 1, "n": 4, "seed": 1, "split": "test", "per_shard": 2, "spacing": (2, 1, 1)}
    write_microstructures(cells, **options)
    problem = Problem(**{"materials": [STEEL, Void()], "strain": SHEAR} | changed)
    with pytest.raises(ValueError, match=said):
        create_fields(tmp_path / "fields.zarr", cells, problem, tol=1e-3, per_shard=2)


def test_another_kind_of_cells_replaces_a_store_only_when_asked(tmp_path):
    path = tmp_path / "cells.zarr"
    options = {"count": 2, "n": 4, "seed": 1, "split": "test", "per_shard": 2}
    kinds = (Gaussian(), Polycrystal(grains=5), Spheres(count=1, fraction=0.1), Gaussian(), Polycrystal(grains=4))
    for before, generator in zip((None, *kinds), kinds, strict=False):
        if before:
            with pytest.raises(ValueError, match=r"holds 1 shards of a store with .*source = .*; --replace removes"):
                write_microstructures(path, generator=generator, **options)
        write_microstructures(path, generator=generator, **options, replace=True)
        assert set(Store.open(path).arrays) >= {"phase", "volume_fraction", "seed"}
        assert (path / "orientation").exists() == bool(generator.grains)
        assert not verify(path).faults
        write_microstructures(path, generator=generator, **options)  # keeps what is whole


def test_flat_images_have_a_spacing_and_a_warning_of_channels(tmp_path):
    images = np.random.default_rng(0).integers(0, 2, (6, 6, 5, 1))
    np.save(tmp_path / "images.npy", images)
    with pytest.warns(UserWarning, match=r"taken as 6 of \(6, 5, 1\) voxels: if they are one image with an axis of ch"):
        import_microstructures(
            tmp_path / "cells.zarr",
            tmp_path / "images.npy",
            first=1,
            count=2,
            split="test",
            per_shard=2,
            spacing=(1, 2, 3),
        )
    cells = Store.open(tmp_path / "cells.zarr")
    assert cells.spacing == (1, 2, 3)
    assert_array_equal(cells.arrays["phase"][:], images[1:3])


def test_every_cell_of_a_store_is_homogenized(made, tmp_path):
    """By the command, against the library with the materials of one cell written out."""
    name, cells, _ = made
    problem, (_, spacing) = CASES[name][2], CASES[name][1]
    described = [write_material(m) for m in problem.materials]
    words = [word for values in described for word in ("--material", json.dumps(values))]
    options = ("--scheme", problem.scheme, "--tol", "1e-8", "--table", "all.csv", "--workers", 1)
    call("homogenize", cells, "all.zarr", *options, *words, cwd=tmp_path)
    row = pd.read_csv(tmp_path / "all.csv").set_index("sample").loc[1]
    data = open_dataset(cells).isel(sample=1)
    materials = problem.materials
    if "orientation" in data:
        turned = Rotation.from_quat(data.orientation.values, scalar_first=True)
        materials = [materials[m].rotated(r) for m, r in zip(data.material.values, turned, strict=True)]
    options = {"spacing": spacing, "scheme": problem.scheme, "tol": 1e-9}
    C = effective_stiffness(data.phase.values, materials, **options)[0]
    entries = [(i, j) for i in range(6) for j in range(i, 6)]
    assert_allclose([row[f"C{i + 1}{j + 1}"] - C[i, j] for i, j in entries], 0, atol=1e-6 * C.max())
    alpha = effective_expansion(data.phase.values, materials, **options)[0]
    assert_allclose([row[f"a{i}"] for i in range(1, 7)], alpha, atol=1e-6 * alpha.max())


def test_a_cell_of_voids_alone_is_refused(tmp_path):
    cells, images = tmp_path / "cells.zarr", np.ones((2, 4, 4, 4), np.uint8)
    images[0, :2] = 0
    np.save(tmp_path / "images.npy", images)
    import_microstructures(cells, tmp_path / "images.npy", first=0, count=2, split="test", per_shard=2)
    with pytest.raises(ValueError, match=r"cells.zarr: samples \[1\] have no solid voxel; each must have one"):
        create_fields(tmp_path / "fields.zarr", cells, Problem([STEEL, Void()], SHEAR), tol=1e-4, per_shard=2)
