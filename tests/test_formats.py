"""A file of every format, written by another program or byte by byte, through inspect, import, solve and predict."""

import os
import struct
from base64 import b64encode

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import vtk
import xarray as xr
from conftest import invoke
from PIL import Image
from test_grain_files import R
from test_readers import IMAGEJ, tiff
from vtk.util.numpy_support import numpy_to_vtk

from lspipe import Cubic, Isotropic, open_dataset, solve

PHASE = (np.indices((4, 5, 6)).sum(axis=0) % 3 == 0).astype(np.uint8)
PHASE[0, :2, :3] = 1  # no symmetry is left
LABELS = 40 + 90 * PHASE
TWO = ("--material", "1,0.3", "--material", "10,0.2")
CUBIC = ("--material", "{kind: cubic, c11: 168.4, c12: 121.4, c44: 75.4}")


def write_slices():
    os.mkdir("slices")
    for z, page in enumerate(LABELS.T):
        Image.fromarray(page).save(f"slices/s{z + 8}.tif", compression="tiff_lzw")


def write_vti():
    text = b64encode(struct.pack("<I", LABELS.size) + LABELS.tobytes(order="F")).decode()
    with open("a.vti", "w") as file:
        file.write(
            '<VTKFile type="ImageData" version="0.1" byte_order="LittleEndian"><ImageData WholeExtent="0 4 0 5 0 6" '
            'Origin="0 0 0" Spacing="1 2 3"><Piece Extent="0 4 0 5 0 6"><CellData><DataArray type="UInt8" '
            f'Name="labels" format="binary">{text}</DataArray></CellData></Piece></ImageData></VTKFile>'
        )


def write_vtk():
    data = vtk.vtkImageData()
    data.SetDimensions(5, 6, 7)
    data.SetSpacing(1, 2, 3)
    array = numpy_to_vtk(LABELS.ravel(order="F").astype(np.int32), deep=True)
    array.SetName("labels")
    data.GetCellData().SetScalars(array)
    writer = vtk.vtkStructuredPointsWriter()
    writer.SetFileName("a.vtk")
    writer.SetInputData(data)
    writer.SetFileTypeToBinary()
    writer.Write()


def write_fans():
    with h5py.File("a.h5", "w") as file:
        file["/cell/4x5x6/ms"] = LABELS.T.astype(np.uint16)


def write_dream3d():
    with h5py.File("a.dream3d", "w") as file:
        image = file.create_group("DataContainers/Image")
        image["_SIMPL_GEOMETRY/DIMENSIONS"] = np.array(PHASE.shape, np.int64)
        image["_SIMPL_GEOMETRY/SPACING"] = np.array([1, 2, 3], np.float32)
        image["CellData/FeatureIds"] = 1 + PHASE.T[..., None].astype(np.int32)
        image["Grains/Phases"] = np.array([[0], [1], [1]], np.int32)
        image["Grains/AvgQuats"] = R[:3].inv().as_quat()  # rows 1 and 2 are those of the grains


def write_tesr():
    rows = "\n".join(" ".join(f"{x:.15f}" for x in row) for row in np.roll(R[1:3].as_quat(), 1, axis=1))
    with open("a.tesr", "w") as file:
        file.write(
            f"***tesr\n **format\n 2.1\n **general\n 3\n 4 5 6\n 1 2 3\n **cell\n 2\n *ori\n quaternion\n{rows}\n"
            f" **data\n ascii\n{' '.join(str(1 + p) for p in PHASE.ravel(order='F'))}\n***end\n"
        )


def write_mha():
    head = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementSpacing = 1 2 3\nElementType = MET_UCHAR\n"
    with open("a.mha", "wb") as file:
        file.write(f"{head}ElementDataFile = LOCAL\n".encode() + LABELS.tobytes(order="F"))


def write_paper():
    with h5py.File("micros.h5", "w") as file:
        file["micros"] = np.eye(2, dtype=np.int64)[PHASE.T].transpose(3, 0, 1, 2)[None]


def write(name, content):
    with open(name, "wb") as file:
        file.write(content)


STACK = tiff(LABELS.T, IMAGEJ.replace("=5", "=6").format("slices"), tags=[(282, (1, 1)), (283, (1, 2))])
FILES = {
    "a.tif": (lambda: write("a.tif", STACK), ()),
    "slices": (write_slices, ("--spacing", "1,2,3")),
    "a.npy": (lambda: np.save("a.npy", LABELS), ("--spacing", "1,2,3")),
    "a.h5": (write_fans, ("--spacing", "1,2,3")),
    "micros.h5": (write_paper, ("--spacing", "1,2,3")),
    "a.vti": (write_vti, ()),
    "a.vtk": (write_vtk, ()),
    "a.mha": (write_mha, ()),
    "a.nrrd": (lambda: nrrd.write("a.nrrd", LABELS, {"spacings": [1.0, 2.0, 3.0]}), ()),
    "a.nii.gz": (lambda: nibabel.save(nibabel.Nifti1Image(LABELS, np.diag([1.0, 2, 3, 1])), "a.nii.gz"), ()),
    "a.raw": (
        lambda: write("a.raw", LABELS.tobytes(order="F")),
        ("--raw", "{shape: [4, 5, 6], dtype: uint8}", "--spacing", "1,2,3"),
    ),
    "a.dream3d": (write_dream3d, ()),
    "a.tesr": (write_tesr, ()),
}
LOAD = ("--strain", "1e-3,0,0,0,5e-4,0")


@pytest.fixture(scope="module")
def expected():
    """The fields of two phases and of two crystals."""
    strain = [1e-3, 0, 0, 0, 5e-4, 0]
    options = {"spacing": (1, 2, 3), "tol": 1e-7}
    crystals = [Cubic(168.4, 121.4, 75.4).rotated(R[k]) for k in (1, 2)]
    return [solve(PHASE, m, strain, **options).strain[0] for m in ([Isotropic(1, 0.3), Isotropic(10, 0.2)], crystals)]


@pytest.mark.parametrize("name", FILES)
def test_every_format_all_the_way(tmp_path, monkeypatch, expected, name):
    monkeypatch.chdir(tmp_path)
    make, options = FILES[name]
    make()
    has_grains = name in ("a.dream3d", "a.tesr")
    materials, truth = (CUBIC, expected[1]) if has_grains else (TWO, expected[0])
    table = invoke("inspect", name, *options)
    assert "1 of 4 × 5 × 6 voxels along x, y, z" in table
    assert "spacing           1 × 2 × 3" in table
    assert "\ngrains            2\n" in table if has_grains else "\nphases            2\n" in table
    invoke("import", "c.zarr", name, *options, "--split", "test")
    np.testing.assert_array_equal(open_dataset("c.zarr").phase[0], PHASE)
    invoke("allocate", "f.zarr", "c.zarr", *materials, *LOAD, "--tol", 1e-7)
    invoke("solve", "--workers", 1, "c.zarr", "f.zarr")
    np.testing.assert_allclose(open_dataset("f.zarr").strain[0], truth, rtol=0, atol=2e-8)
    invoke("predict", name, *options, *materials, *LOAD, "--tol", 1e-7, "--out", "p.zarr")
    with xr.open_zarr("p.zarr") as predicted:
        np.testing.assert_allclose(predicted.strain.squeeze(), truth, rtol=0, atol=2e-8)
