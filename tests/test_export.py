"""`lspipe export`: images as VTK itself reads them, and a table against an independent computation."""

from itertools import product
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import call
from numpy.testing import assert_allclose, assert_array_equal
from problems import stress_of, tensor
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOXML import vtkXMLImageDataReader

from lspipe import Isotropic, load_model, open_dataset, solve
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, import_microstructures, solve_fields
from lspipe.export import table, vti
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.files import save_model

GRID = (8, 9, 10)
MATERIALS = [Isotropic(120, 0.3), Isotropic(1200, 0.2)]
LOAD = [1e-3, -2e-4, 3e-4, 4e-4, -1e-4, 5e-4]


def read(path):
    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def fields(path):
    """The cell data by name, each (voxels,) or (voxels, 6)."""
    data = read(path).GetCellData()
    return {data.GetArrayName(a): vtk_to_numpy(data.GetArray(a)) for a in range(data.GetNumberOfArrays())}


def voxel(image, name, ijk, component=0):
    """The value of the cell that VTK takes for the i-th along x, the j-th along y and the k-th along z."""
    return image.GetCellData().GetArray(name).GetComponent(image.ComputeCellId(ijk), component)


def named(image, name):
    """The number of each component by its name."""
    array = image.GetCellData().GetArray(name)
    return {array.GetComponentName(c): c for c in range(array.GetNumberOfComponents())}


def numbered():
    """A field whose every number says where it is from: component, i, j, k."""
    c, i, j, k = np.indices((6, *GRID))
    return (1000.0 * (c + 1) + 100 * i + 10 * j + k) * (1 + 0.25 * c)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four microstructures in two shards; their fields, and those of another element, of which a shard is missing;
    fields of other microstructures; an untrained network of ε_xx and one of all components."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 2, (8, *GRID)))
    for name, first in (("cells", 0), ("others", 4)):
        how = {"first": first, "count": 4, "split": "test", "per_shard": 3}
        import_microstructures(folder / f"{name}.zarr", folder / "images.npy", **how)
    options = {"tol": 1e-6, "per_shard": 3}
    for name, cells, scheme in (("fields", "cells", "bbar"), ("full", "cells", "full"), ("other", "others", "bbar")):
        create_fields(
            folder / f"{name}.zarr", folder / f"{cells}.zarr", Problem(MATERIALS, LOAD, scheme=scheme), **options
        )
    solve_fields(folder / "fields.zarr", folder / "cells.zarr")
    solve_fields(folder / "full.zarr", folder / "cells.zarr", [0])
    domain = Domain(tuple(MATERIALS), tuple(LOAD))
    for name, channels in (("xx", 1), ("all", 6)):
        save_model(folder / name, "rln-t", build("rln-t", 2, channels), [domain], {})
    return folder


def test_an_image_is_what_vtk_reads(tmp_path):
    phase, strain, spacing = np.arange(720).reshape(GRID), numbered(), (0.5, 1.0, 2.0)
    (tmp_path / "a.vti").write_text(vti({"phase": phase, "strain": strain}, spacing))
    image = read(tmp_path / "a.vti")
    assert image.GetDimensions() == (9, 10, 11)  # points: one more than cells
    assert (image.GetSpacing(), image.GetOrigin()) == (spacing, (0, 0, 0))
    assert image.GetBounds() == (0, 4, 0, 9, 0, 20)
    names = named(image, "strain")
    assert list(names) == ["XX", "YY", "ZZ", "XY", "YZ", "XZ"]  # what ParaView calls six components without a name
    for ijk in product(*map(range, GRID)):
        assert voxel(image, "phase", ijk) == phase[ijk]
        for c, name in enumerate(ELASTICITY.components):
            assert voxel(image, "strain", ijk, names[name.upper()]) == strain[c][ijk]


def test_table():
    strain, stress = numbered(), numbered() + 0.5
    phase = np.arange(720).reshape(GRID)
    rows = table(phase, strain, stress)
    assert ",".join(rows) == "i,j,k,phase,E11,E22,E33,E12,E13,E23,S11,S22,S33,S12,S13,S23"
    assert (rows.i + 8 * (rows.j + 9 * rows.k) == np.arange(720)).all()  # x fastest
    e, s = tensor(strain), tensor(stress)
    for row in rows.itertuples():
        at = row.i, row.j, row.k
        assert row.phase == phase[at]
        for a, b in ((1, 1), (2, 2), (3, 3), (1, 2), (1, 3), (2, 3)):
            gamma = e[a - 1, b - 1][at] + (e[b - 1, a - 1][at] if a != b else 0)
            assert getattr(row, f"E{a}{b}") == gamma
            assert getattr(row, f"S{a}{b}") == s[a - 1, b - 1][at]


def test_the_stores_as_a_user_exports_them(made, tmp_path):
    cells, data = made / "cells.zarr", made / "fields.zarr"
    call("export", "out", cells, data, "--sample", 0, "--sample", 3, "--table", cwd=tmp_path)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"0.vti", "0.csv", "3.vti", "3.csv"}
    truth = solve(open_dataset(cells).phase.values, MATERIALS, LOAD, tol=1e-6)
    for sample in (0, 3):
        image = read(tmp_path / f"out/{sample}.vti")
        assert image.GetSpacing() == (1, 1, 1)
        rows = pd.read_csv(tmp_path / f"out/{sample}.csv").set_index(["i", "j", "k"])
        for ijk in ((0, 0, 0), (7, 0, 0), (0, 8, 0), (0, 0, 9), (5, 3, 8)):
            strain, stress = (field[sample][:, *ijk] for field in (truth.strain, truth.stress))
            phase = open_dataset(cells).phase.values[sample][ijk]
            assert voxel(image, "phase", ijk) == rows.phase[ijk] == phase
            for field, name in ((strain, "strain"), (stress, "stress")):
                found = [voxel(image, name, ijk, named(image, name)[c.upper()]) for c in ELASTICITY.components]
                assert_allclose(found, field, rtol=1e-5)
            assert_allclose(rows.loc[ijk]["E11":"E23"], strain[[0, 1, 2, 5, 4, 3]] * [1, 1, 1, 2, 2, 2], rtol=1e-6)
            assert_allclose(rows.loc[ijk]["S11":"S23"], stress[[0, 1, 2, 5, 4, 3]], rtol=1e-5)
            deviator = tensor(stress) - np.eye(3) * stress[:3].mean()
            assert_allclose(voxel(image, "von_mises", ijk), np.sqrt(1.5 * (deviator**2).sum()), rtol=1e-5)


def test_a_model_and_its_passes(made, tmp_path):
    cells, data = made / "cells.zarr", made / "fields.zarr"
    call("export", "out", cells, data, "--sample", 1, "--model", "rln-cg", "--passes", cwd=tmp_path)
    phase, strain = open_dataset(cells).phase.values[1], open_dataset(data).strain.values[1]
    order = [0, 1, 2, 5, 3, 4]
    listed = ElementTree.parse(tmp_path / "out/1.pvd").findall("Collection/DataSet")
    assert [entry.get("timestep") for entry in listed] == list("12345")
    model, errors = load_model("rln-cg"), []
    for k, entry in enumerate(listed, 1):
        found = fields(tmp_path / "out" / entry.get("file"))
        predicted = model.predict(phase, MATERIALS, LOAD, passes=k)
        for name, field in (("strain", predicted.strain[0]), ("stress", predicted.stress[0])):
            expected = field[order].T.reshape(720, 6)
            assert_allclose(found[f"predicted_{name}"], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        error = np.abs(strain - predicted.strain[0])[order].T.reshape(720, 6)
        assert_allclose(found["error"], error, atol=1e-9)
        assert_array_equal(found["strain"], strain[order].T.reshape(720, 6))
        errors.append(error.mean())
    assert errors == sorted(errors, reverse=True)
    assert (tmp_path / "out/1.vti").read_bytes() == (tmp_path / "out/1_pass5.vti").read_bytes()


def test_networks_of_one_and_of_all_components(made, tmp_path):
    cells, data = made / "cells.zarr", made / "fields.zarr"
    phase, strain = open_dataset(cells).phase.values[2], open_dataset(data).strain.values[2]
    for name in ("xx", "all"):
        call("export", tmp_path / name, cells, data, "--sample", 2, "--model", made / name, cwd=tmp_path)
    truth = ["phase", "strain", "stress", "von_mises"]
    one, six = (fields(tmp_path / name / "2.vti") for name in ("xx", "all"))
    assert list(one) == [*truth, "predicted_strain_xx", "error"]
    assert list(six) == [*truth, "predicted_strain", "predicted_stress", "predicted_von_mises", "error"]
    xx, all_ = (load_model(made / name).predict(phase, MATERIALS, LOAD).strain[0] for name in ("xx", "all"))
    assert_allclose(one["predicted_strain_xx"], xx[0].T.ravel(), rtol=1e-6)
    assert_allclose(one["error"], np.abs(xx[0] - strain[0]).T.ravel(), atol=1e-9)
    assert_allclose(six["predicted_strain"][:, 4], all_[3].T.ravel(), atol=1e-9)
    stress = stress_of(phase, MATERIALS, all_)
    assert_allclose(six["predicted_stress"][:, 5], stress[4].T.ravel(), atol=1e-6 * np.abs(stress).max())


def test_an_image_of_millions_of_bytes(tmp_path):
    """It is encoded in several parts."""
    field = np.random.default_rng(0).random((6, 60, 61, 62)).astype(np.float32)
    (tmp_path / "x.vti").write_text(vti({"strain": field}))
    assert_array_equal(fields(tmp_path / "x.vti")["strain"], field[[0, 1, 2, 5, 3, 4]].T.reshape(-1, 6))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cells.zarr fields.zarr --sample 0 --sample 4", "sample = 4: cells.zarr has samples 0 to 3"),
        ("cells.zarr fields.zarr --sample -1", "sample = -1: cells.zarr has samples 0 to 3"),
        ("fields.zarr cells.zarr --sample 0", "must be a store of microstructures and one of fields"),
        ("cells.zarr other.zarr --sample 0", "other.zarr: belongs to other microstructures than cells.zarr"),
        ("cells.zarr full.zarr --sample 3", "full.zarr: shard 1: no receipt; run lspipe solve to finish it"),
        ("cells.zarr fields.zarr --sample 0 --passes", "--passes: needs --model"),
        ("cells.zarr fields.zarr --sample 0 --model none", "none: must be a folder with a model.json, or one of"),
        ("cells.zarr full.zarr --sample 0 --model xx", "scheme = 'full': this model was trained for fields of 'bbar'"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(made, command, said):
    done = call("export", "out", *command.split(), cwd=made, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (made / "out").exists()
