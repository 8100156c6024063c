"""Readers of VTK images, on files that VTK's own writers or the test write."""

import itertools
import struct
from base64 import b64encode

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from lspipe.images import find_sources, read_images

VOXELS = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(np.uint16) * 1000 + 7


def image(voxels, at="cell", name="material"):
    data, n = vtk.vtkImageData(), np.array(voxels.shape) + (at == "cell")
    data.SetDimensions(*map(int, n))
    data.SetSpacing(1, 2, 3.5)
    array = numpy_to_vtk(voxels.ravel(order="F"), deep=True)
    array.SetName(name)
    where = data.GetCellData() if at == "cell" else data.GetPointData()
    vectors = numpy_to_vtk(np.random.default_rng(0).random((voxels.size, 3)), deep=True)
    vectors.SetName("vectors")
    where.AddArray(vectors)
    where.SetScalars(array)
    return data


FORMS = list(itertools.product(("ascii", "base64", "appended", "raw"), (None, "zlib", "lzma"), ("32", "64"), "<>"))


@pytest.mark.parametrize(("form", "packed", "header", "order"), FORMS)
def test_vti(tmp_path, form, packed, header, order):
    writer = vtk.vtkXMLImageDataWriter()
    writer.SetFileName(str(tmp_path / "a.vti"))
    writer.SetInputData(image(VOXELS, "point" if header == "64" else "cell"))
    {"ascii": writer.SetDataModeToAscii, "base64": writer.SetDataModeToBinary}.get(form, writer.SetDataModeToAppended)()
    writer.SetEncodeAppendedData(form == "appended")
    {
        None: writer.SetCompressorTypeToNone,
        "zlib": writer.SetCompressorTypeToZLib,
        "lzma": writer.SetCompressorTypeToLZMA,
    }[packed]()
    writer.SetBlockSize(32)  # several blocks
    (writer.SetHeaderTypeToUInt64 if header == "64" else writer.SetHeaderTypeToUInt32)()
    (writer.SetByteOrderToBigEndian if order == ">" else writer.SetByteOrderToLittleEndian)()
    assert writer.Write()
    (source,) = find_sources(tmp_path / "a.vti")
    assert (source.dataset, source.spacing, source.dtype.name) == ("material", (1, 2, 3.5), "uint16")
    images = read_images(tmp_path / "a.vti")
    np.testing.assert_array_equal(images[0], VOXELS)
    np.testing.assert_array_equal(read_images(tmp_path / "a.vti", blocks=2)[3], VOXELS[:2, 2:4, 2:4])


def test_vti_of_other_writers(tmp_path):
    """Without Direction and compressor; length and data in one base64 text, or in two."""
    payload, length = VOXELS.T.astype("<i4").tobytes(), struct.pack("<Q", 4 * VOXELS.size)
    for text in (b64encode(length + payload), b64encode(length) + b64encode(payload)):
        (tmp_path / "a.vti").write_text(
            '<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" '
            'header_type="UInt64"><ImageData WholeExtent="2 5 0 4 0 5" Origin="0 0 0" Spacing="1e-6 2e-6 3e-6">'
            '<Piece Extent="2 5 0 4 0 5"><CellData Scalars="phase"><DataArray type="Int32" Name="phase" '
            f'format="binary">\n  {text.decode()}\n</DataArray></CellData></Piece></ImageData></VTKFile>'
        )
        images = read_images(tmp_path / "a.vti")
        np.testing.assert_array_equal(images[0], VOXELS)
        assert images.spacing == (1e-6, 2e-6, 3e-6)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("at", ["cell", "point"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_legacy(tmp_path, binary, at, dtype):
    voxels = (VOXELS % 251).astype(dtype)
    data = image(voxels, at, "my labels")
    extra = numpy_to_vtk(voxels.ravel(order="F") * 2, deep=True)
    extra.SetName("twice")
    (data.GetCellData() if at == "cell" else data.GetPointData()).AddArray(extra)  # becomes a field
    writer = vtk.vtkStructuredPointsWriter()
    writer.SetFileName(str(tmp_path / "a.vtk"))
    writer.SetInputData(data)
    (writer.SetFileTypeToBinary if binary else writer.SetFileTypeToASCII)()
    assert writer.Write()
    threshold = {"threshold": [100]} if dtype == "float32" else {}
    for name, factor in (("my labels", 1), ("twice", 2)):
        images = read_images(tmp_path / "a.vtk", dataset=name, **threshold)
        expected = voxels * np.array(factor, dtype)
        np.testing.assert_array_equal(images[0], expected >= 100 if threshold else expected)
        assert images.spacing == (1, 2, 3.5)
    said = r"a.vtk: has several arrays; choose one with --dataset or dataset: .*my labels"
    with pytest.raises(ValueError, match=said):
        read_images(tmp_path / "a.vtk")


def test_refused(tmp_path):
    writer = vtk.vtkXMLImageDataWriter()
    writer.SetFileName(str(tmp_path / "a.vti"))
    writer.SetInputData(image(VOXELS))
    writer.SetCompressorTypeToLZ4()
    writer.Write()
    with pytest.raises(ValueError, match=r"a.vti: material: .*vtkLZ4DataCompressor: must be zlib or LZMA"):
        read_images(tmp_path / "a.vti")[0]
    (tmp_path / "a.vti").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><VTKFile><ImageData/></VTKFile>')
    with pytest.raises(ValueError, match=r"a.vti: .*document type"):
        read_images(tmp_path / "a.vti")
    (tmp_path / "a.vtk").write_text("# vtk DataFile Version 3.0\ntitle\nASCII\nDATASET UNSTRUCTURED_GRID\n")
    with pytest.raises(ValueError, match=r"a.vtk: .*holds UNSTRUCTURED_GRID; must hold STRUCTURED_POINTS"):
        read_images(tmp_path / "a.vtk")


def test_damaged_files_are_images_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10**8)
    rng, refused = np.random.default_rng(0), 0
    for form in ("SetDataModeToAscii", "SetDataModeToBinary", "SetDataModeToAppended", "legacy", "legacy text"):
        is_xml = form.startswith("Set")
        file = tmp_path / ("a.vti" if is_xml else "a.vtk")
        writer = vtk.vtkXMLImageDataWriter() if is_xml else vtk.vtkStructuredPointsWriter()
        writer.SetFileName(str(file))
        writer.SetInputData(image(VOXELS))
        if is_xml:
            getattr(writer, form)()
        elif form == "legacy":
            writer.SetFileTypeToBinary()
        writer.Write()
        whole = file.read_bytes()
        cuts = [whole[:end] for end in rng.integers(0, len(whole), 10)]
        for _ in range(60):
            changed = bytearray(whole)
            changed[rng.integers(len(whole))] = rng.integers(256)
            cuts.append(bytes(changed))
        for content in cuts:
            file.write_bytes(content)
            message = ""
            try:
                images = read_images(file, dataset="material", threshold=[5000])
                shape = images[0].shape
            except ValueError as error:
                message = str(error)
            assert message.startswith(str(tmp_path)) if message else shape == images.shape, message
            assert len(message.splitlines()) <= 1
            refused += bool(message)
    assert refused > 40
