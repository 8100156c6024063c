"""`lspipe export --fans --dream3d`: the files that h5py reads, voxel by voxel, on a cell with three different edges."""

from itertools import product

import h5py
import numpy as np
import pytest
from conftest import invoke
from numpy.testing import assert_allclose, assert_array_equal
from problems import tensor
from scipy.spatial.transform import Rotation

from lspipe import Cubic, Hexagonal, Isotropic, open_dataset
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.export_hdf5 import encode_dream3d
from lspipe.microstructure import Gaussian, Polycrystal

GRID, SPACING = (4, 5, 6), (1.0, 0.5, 2.0)
LOAD = [1e-3, -2e-4, 3e-4, 4e-4, -1e-4, 5e-4]


def make(folder, generator, materials):
    cells, fields = folder / "cells.zarr", folder / "fields.zarr"
    options = {"seed": 0, "split": "test", "per_shard": 1, "generator": generator, "spacing": SPACING}
    write_microstructures(cells, count=1, n=GRID, **options)
    create_fields(fields, cells, Problem(materials, LOAD), tol=1e-4, per_shard=1)
    solve_fields(fields, cells)
    invoke("export", folder / "out", cells, fields, "--sample", 0, "--fans", "--dream3d")
    return open_dataset(cells).isel(sample=0), open_dataset(fields).isel(sample=0)


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    return folder / "out", *make(folder, Gaussian(), (Isotropic(120, 0.3), Isotropic(1200, 0.2)))


def test_fans(phases):
    """FANS and MSUtils: axes z, y, x, lengths in the same order, Mandel components 11, 22, 33, 12, 13, 23."""
    folder, cells, fields = phases
    strain = fields.strain.values.astype(float)
    stress = Problem((Isotropic(120, 0.3), Isotropic(1200, 0.2)), LOAD).compute_stress(cells.phase.values, strain)
    with h5py.File(folder / "0.h5") as file:
        labels = file["cell/ms"]
        assert (labels.dtype, labels.attrs["permute_order"]) == ("uint16", "zyx")
        assert_allclose(labels.attrs["L"], [12, 2.5, 4])
        step = file["cell/ms_results/lspipe/load0/time_step0"]
        for name, field in (("strain", tensor(strain)), ("stress", tensor(stress))):
            assert step[name].shape == (6, 5, 4, 6)
            written, largest = step[name][:], np.abs(field).max()
            for c, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
                factor = 1 if a == b else 2**0.5
                for x, y, z in product(*map(range, GRID)):
                    assert written[z, y, x, c] == pytest.approx(factor * field[a, b][x, y, z], abs=1e-6 * largest)
            assert_allclose(step[f"{name}_average"], written.mean(axis=(0, 1, 2)))
        for x, y, z in product(*map(range, GRID)):
            assert labels[z, y, x] == step["microstructure"][z, y, x, 0] == cells.phase.values[x, y, z]


def test_dream3d_of_phases(phases):
    folder, cells, fields = phases
    with h5py.File(folder / "0.dream3d") as file:
        assert file.attrs["FileVersion"] == b"7.0"
        container = file["DataContainers/ImageDataContainer"]
        geometry, data = container["_SIMPL_GEOMETRY"], container["CellData"]
        assert geometry.attrs["GeometryTypeName"] == b"ImageGeometry"
        assert_array_equal(geometry["DIMENSIONS"], GRID)
        assert_array_equal(geometry["SPACING"], SPACING)
        assert set(data) == {"Phases", "Strain", "Stress", "VonMises"}
        assert_array_equal(data.attrs["TupleDimensions"], GRID)
        for name, kind, components in (("Phases", "int32_t", 1), ("Strain", "float", 6), ("VonMises", "float", 1)):
            array = data[name]
            assert array.attrs["ObjectType"] == f"DataArray<{kind}>".encode()
            assert_array_equal(array.attrs["TupleDimensions"], GRID)
            assert_array_equal(array.attrs["ComponentDimensions"], [components])
            assert array.shape == (6, 5, 4, components)
        for x, y, z in product(*map(range, GRID)):
            assert data["Phases"][z, y, x, 0] == cells.phase.values[x, y, z] + 1
            assert_array_equal(data["Strain"][z, y, x], fields.strain.values[:, x, y, z])
        assert_array_equal(container["CellEnsembleData/CrystalStructures"][:, 0], [999, 999, 999])


def test_dream3d_of_grains(tmp_path):
    """Quaternions and Bunge's angles are those of the rotation from the sample to the crystal; row 0 is a dummy."""
    materials = (Cubic(168.4, 121.4, 75.4), Hexagonal(162.4, 92.0, 69.0, 180.7, 46.7))
    cells, _ = make(tmp_path, Polycrystal(grains=5, fractions=(0.5, 0.5)), materials)
    with h5py.File(tmp_path / "out/0.dream3d") as file:
        container = file["DataContainers/ImageDataContainer"]
        grains = container["CellFeatureData"]
        ids = container["CellData/FeatureIds"][..., 0]
        assert_array_equal(ids.transpose(2, 1, 0), cells.phase.values + 1)
        assert_array_equal(container["CellEnsembleData/CrystalStructures"][:, 0], [999, 1, 0])
        assert_array_equal(grains["Phases"][1:, 0], cells.material.values + 1)
        assert_array_equal(container["CellData/Phases"][..., 0], grains["Phases"][:, 0][ids])
        assert not any(grains[name][0].any() for name in grains)
        passive = Rotation.from_quat(cells.orientation.values, scalar_first=True).inv().as_matrix()
        assert_allclose(Rotation.from_quat(grains["AvgQuats"][1:]).as_matrix(), passive, atol=1e-6)
        for g, (a, b, c) in zip(passive, grains["AvgEulerAngles"][1:], strict=True):
            assert_allclose(g, turn(2, c) @ turn(0, b) @ turn(2, a), atol=1e-5)
    with h5py.File(tmp_path / "out/0.h5") as file:
        assert_array_equal(file["cell/ms"][:].transpose(2, 1, 0), cells.phase.values)


def turn(axis, angle):
    """The matrix that turns the axes of coordinates by an angle, as in Bunge's g = Z2 X Z1."""
    matrix = np.eye(3)
    i, j = {0: (1, 2), 2: (0, 1)}[axis]
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[i, j], matrix[j, i] = np.sin(angle), -np.sin(angle)
    return matrix


def test_a_file_is_whole(tmp_path):
    """The bytes of a file hold a whole HDF5 file, which opens from memory."""
    problem = Problem((Isotropic(1, 0),), LOAD)
    data = bytes(encode_dream3d({"phase": np.zeros(GRID, np.uint8)}, problem))
    (tmp_path / "a.dream3d").write_bytes(data)
    with h5py.File(tmp_path / "a.dream3d") as file:
        assert file["DataContainers/ImageDataContainer/CellData/Phases"].shape == (6, 5, 4, 1)
