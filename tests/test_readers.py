"""Readers of TIFF, raw, MetaImage, NRRD and NIfTI: files that other programs or the test write byte by byte."""

import gzip
import struct
import zlib

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from lspipe.images import find_sources, read_images

VOXELS = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(np.uint8) * 4  # x, y, z: no two are equal


def tiff(pages, description="", *, big=True, compress=None, tags=(), once=False):
    """A TIFF file of grey pages (y, x), in big-endian order if asked; with ``once``, one header for all pages."""
    order, names = (">", b"MM\0*") if big else ("<", b"II*\0")
    text, body, entries = description.encode() + b"\0", b"", []
    start = 8 + len(text)
    for page in pages:
        data = page.astype(page.dtype.newbyteorder(order)).tobytes()
        data = zlib.compress(data) if compress == 8 else data
        entries.append((page, start + len(body), len(data)))
        body += data
    result = names + struct.pack(order + "I", start + len(body)) + text + body
    for i, (page, offset, size) in enumerate(entries[:1] if once else entries):
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        values = {256: page.shape[1], 257: page.shape[0], 258: 8 * page.itemsize, 259: compress or 1, 262: 1}
        values |= {273: offset, 277: 1, 278: page.shape[0], 279: size, 339: kind}
        rows = [(tag, 4, 1, struct.pack(order + "I", value)) for tag, value in values.items()]
        here, extra = len(result), b""
        count = len(rows) + len(tags) + bool(description)
        after = here + 2 + 12 * count + 4
        if description and i == 0:
            rows.append((270, 2, len(text), struct.pack(order + "I", 8)))
        else:
            count -= bool(description)
            after = here + 2 + 12 * count + 4
        for tag, (above, below) in tags:
            rows.append((tag, 5, 1, struct.pack(order + "I", after + len(extra))))
            extra += struct.pack(order + "II", above, below)
        last = once or i == len(entries) - 1
        result += struct.pack(order + "H", count)
        result += b"".join(struct.pack(order + "HHI", *row[:3]) + row[3] for row in sorted(rows))
        result += struct.pack(order + "I", 0 if last else after + len(extra)) + extra
    return result


LAYERS = VOXELS.T  # z, y, x
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
    'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="3" SizeY="4" SizeZ="5" SizeC="1" SizeT="1" '
    'PhysicalSizeX="2" PhysicalSizeY="3" PhysicalSizeZ="4.5" PhysicalSizeXUnit="nm"><TiffData/></Pixels></Image></OME>'
)
IMAGEJ = "ImageJ=1.53\nimages=5\n{}=5\nunit=micron\nspacing=3.0\n"
RESOLUTION = [(282, (1, 2)), (283, (2, 5))]  # pixels per unit along x and y


@pytest.mark.parametrize(
    ("content", "spacing", "unit"),
    [
        (tiff(LAYERS), None, ""),
        (tiff(LAYERS, big=False), None, ""),
        (tiff(LAYERS, compress=8), None, ""),
        (tiff(LAYERS, tags=RESOLUTION), None, ""),  # for a printer
        (tiff(LAYERS, IMAGEJ.format("slices"), tags=RESOLUTION), (2, 2.5, 3), "micron"),
        (tiff(LAYERS, IMAGEJ.format("frames"), tags=RESOLUTION), (2, 2.5, 3), "micron"),  # saved as times
        (tiff(LAYERS, IMAGEJ.format("slices"), tags=RESOLUTION, once=True), (2, 2.5, 3), "micron"),  # as above 4 GB
        (tiff(LAYERS, OME), (2, 3, 4.5), "nm"),
    ],
    ids=["big", "little", "deflate", "resolution", "imagej", "times", "once", "ome"],
)
def test_tiff_stacks(tmp_path, content, spacing, unit):
    (tmp_path / "scan.tif").write_bytes(content)
    (source,) = find_sources(tmp_path / "scan.tif")
    assert (source.axes, source.dtype, source.unit) == ("zyx", np.uint8, unit)
    images = read_images(tmp_path / "scan.tif")
    np.testing.assert_array_equal(images[0], VOXELS)
    assert ("spacing" in source.stated) == (spacing is not None)
    assert images.spacing == (spacing or (1, 1, 1))
    blocks = read_images(tmp_path / "scan.tif", blocks=(3, 2, 2), spacing=(1, 1, 2))
    np.testing.assert_array_equal(blocks[3], VOXELS[:, 2:4, 2:4])
    assert blocks.spacing == (1, 1, 2)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_tiff_of_other_numbers(tmp_path, dtype):
    (tmp_path / "scan.tif").write_bytes(tiff(LAYERS.astype(dtype) * 100))
    images = read_images(tmp_path / "scan.tif", threshold=[5000.0])
    np.testing.assert_array_equal(images[0], VOXELS >= 50)


@pytest.mark.parametrize(
    ("mode", "compression"), [("L", "tiff_lzw"), ("L", "zstd"), ("L", "packbits"), ("P", "tiff_lzw"), ("1", "group4")]
)
def test_tiff_of_pillow(tmp_path, mode, compression):
    """Codecs that tifffile leaves to another package; palettes give their indices."""
    layers = LAYERS % 2 * 255 if mode == "1" else LAYERS
    pages = [Image.fromarray(page) for page in layers]
    if mode == "P":
        for page in pages:
            page.putpalette([int(c) for c in np.random.default_rng(0).integers(0, 256, 768)])
    pages = [page.convert(mode) for page in pages]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:], compression=compression)
    expected = VOXELS % 2 if mode == "1" else VOXELS
    np.testing.assert_array_equal(read_images(tmp_path / "scan.tif")[0], expected)
    part = read_images(tmp_path / "scan.tif", crop=[(1, 3), (0, 2), (3, 5)])
    np.testing.assert_array_equal(part[0], expected[1:3, 0:2, 3:5])


def test_a_folder_of_slices(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    for z, page in enumerate(LAYERS):
        Image.fromarray(page).save(folder / f"s{z + 7}.tif")  # 7, 8, 9, 10, 11: in natural order
    images = read_images(folder)
    np.testing.assert_array_equal(images[0], VOXELS)
    Image.fromarray(LAYERS[0, :3]).save(folder / "s12.tif")
    with pytest.raises(
        ValueError, match=r"s12.tif: has \(3, 3\) pixels .* must be a slice as s7.tif, of \(4, 3\) pixels"
    ):
        read_images(folder)
    for file in folder.glob("*.tif"):
        file.unlink()
    with pytest.raises(ValueError, match=r"slices: has no file \.tif or \.tiff"):
        read_images(folder)


def test_tiff_that_is_refused(tmp_path):
    file = tmp_path / "scan.tif"
    Image.fromarray(np.zeros((4, 3, 3), np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"scan.tif: is a colour image; must have one value for each voxel"):
        read_images(file)
    file.write_bytes(tiff([LAYERS[0], LAYERS[0, :3]]))
    with pytest.raises(ValueError, match=r"scan.tif: has pages of different sizes, \(4, 3\), \(3, 3\); must have one"):
        read_images(file)
    file.write_bytes(tiff(LAYERS.astype(np.float32)))
    with pytest.raises(ValueError, match=r"scan.tif: values are float32: must be integer labels; or give a threshold"):
        read_images(file)
    file.write_bytes(tiff(LAYERS, compress=50001))  # WebP, which is not written here
    with pytest.raises(ValueError, match=r"scan.tif: .*imagecodecs"):
        read_images(file)[0]


HEADER = "ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\nElementSpacing = 1 2 3\n"


def metaimage(dtype="u1", msb="False", packed=False, file="LOCAL"):
    types = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "i4": "MET_LONG", "f4": "MET_FLOAT"}
    text = f"{HEADER}BinaryDataByteOrderMSB = {msb}\nCompressedData = {packed}\nElementType = {types[dtype]}\n"
    data = VOXELS.T.astype((">" if msb == "True" else "<") + dtype).tobytes()
    return (text + f"ElementDataFile = {file}\n").encode(), zlib.compress(data) if packed else data


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "i2", "msb": "True"}, {"dtype": "i4"}, {"packed": True}, {"dtype": "f4"}]
)
def test_metaimage(tmp_path, options):
    threshold = {"threshold": [50]} if options.get("dtype") == "f4" else {}
    expected = VOXELS >= 50 if threshold else VOXELS
    (tmp_path / "scan.mha").write_bytes(b"".join(metaimage(**options)))
    images = read_images(tmp_path / "scan.mha", **threshold)
    np.testing.assert_array_equal(images[0], expected)
    assert images.spacing == (1, 2, 3)
    header, data = metaimage(**options, file="scan.raw")
    (tmp_path / "scan.mhd").write_bytes(header)
    (tmp_path / "scan.raw").write_bytes(data)
    np.testing.assert_array_equal(read_images(tmp_path / "scan.mhd", **threshold)[0], expected)
    (tmp_path / "scan.mhd").write_bytes(header.replace(b"scan.raw", b"../scan.raw"))
    with pytest.raises(
        ValueError, match=r"ElementDataFile = \.\./scan.raw: must be LOCAL or a file in the same folder"
    ):
        read_images(tmp_path / "scan.mhd")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_nrrd(tmp_path, encoding):
    header = {"space directions": np.diag([1.0, 2.0, 3.0]), "space": "left-posterior-superior", "encoding": encoding}
    header["space units"] = ["um"] * 3
    nrrd.write(str(tmp_path / "scan.nrrd"), VOXELS.astype(">u2"), header)
    images = read_images(tmp_path / "scan.nrrd")
    np.testing.assert_array_equal(images[0], VOXELS)
    assert (images.spacing, images.sources[0].unit) == ((1, 2, 3), "um")
    nrrd.write(str(tmp_path / "scan.nhdr"), VOXELS, {"encoding": encoding}, detached_header=True)
    (name,) = (line for line in (tmp_path / "scan.nhdr").read_text().splitlines() if line.startswith("data file"))
    assert read_images(tmp_path / "scan.nhdr")[0].tolist() == VOXELS.tolist()
    text = (tmp_path / "scan.nhdr").read_bytes()
    (tmp_path / "scan.nhdr").write_bytes(text.replace(name.encode(), b"data file: /etc/passwd"))
    with pytest.raises(ValueError, match=r"data file = /etc/passwd: must be a file in the same folder"):
        read_images(tmp_path / "scan.nhdr")


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti(tmp_path, ending):
    image = nibabel.Nifti1Image(VOXELS.astype(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / f"scan.{ending}")
    images = read_images(tmp_path / f"scan.{ending}")
    np.testing.assert_array_equal(images[0], VOXELS)
    assert (images.spacing, images.sources[0].unit) == ((1, 2, 3), "micron")
    np.testing.assert_array_equal(read_images(tmp_path / f"scan.{ending}", blocks=2)[1], VOXELS[:2, :2, 2:4])


@pytest.mark.parametrize(
    ("raw", "voxels"),
    [
        ({"shape": [3, 4, 5], "dtype": "uint8"}, VOXELS.T),
        ({"shape": [3, 4, 5], "dtype": ">u2", "header": 7}, VOXELS.T.astype(">u2")),
        ({"shape": [3, 4, 5], "dtype": "uint8", "order": "C"}, VOXELS),
        ({"shape": [2, 3, 4, 5], "dtype": "uint8"}, np.stack([VOXELS.T, VOXELS.T[:, ::-1]])),
    ],
)
def test_raw_voxels(tmp_path, raw, voxels):
    (tmp_path / "scan.raw").write_bytes(b"x" * raw.get("header", 0) + voxels.tobytes())
    images = read_images(tmp_path / "scan.raw", raw=raw)
    np.testing.assert_array_equal(images[0], VOXELS)
    if len(images) == 2:
        np.testing.assert_array_equal(images[1], VOXELS[:, ::-1])
    with pytest.raises(ValueError, match=r"scan.raw: has \d+ bytes after the header of \d; must have \d+ for"):
        read_images(tmp_path / "scan.raw", raw=raw | {"dtype": "float64"})
    with pytest.raises(ValueError, match=r"raw = .*: must be 2 to 4 positive integers, a type of numbers"):
        read_images(tmp_path / "scan.raw", raw=raw | {"shape": [3, 0, 5]})
    with pytest.raises(ValueError, match=r"scan.raw: unknown format; must be a folder of slices, or end in \.npy"):
        read_images(tmp_path / "scan.raw")


def damaged():
    """Each file cut at several places and with some bytes changed."""
    rng = np.random.default_rng(0)
    whole = {
        "a.tif": tiff(LAYERS),
        "b.tif": tiff(LAYERS, IMAGEJ.format("slices"), compress=8, tags=RESOLUTION),
        "a.mha": b"".join(metaimage()),
        "b.mha": b"".join(metaimage(packed=True)),
        "a.nii": nibabel.Nifti1Image(VOXELS, np.eye(4)).to_bytes(),
        "a.nii.gz": gzip.compress(nibabel.Nifti1Image(VOXELS, np.eye(4)).to_bytes()),
        "a.nrrd": b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 4 5\nencoding: raw\nendian: little\n\n"
        + VOXELS.T.tobytes(),
    }
    for name, content in whole.items():
        yield from ((name, content[:end]) for end in rng.integers(0, len(content), 6))
        for _ in range(40):
            bytes_ = bytearray(content)
            bytes_[rng.integers(min(len(content), 400))] = rng.integers(256)
            yield name, bytes(bytes_)


def test_damaged_files_are_images_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10**8)
    refused = 0
    for name, content in damaged():
        (tmp_path / name).write_bytes(content)
        message = ""
        try:
            images = read_images(tmp_path / name, threshold=[50])
            shape = images[0].shape
        except ValueError as error:
            message = str(error)
        assert message.startswith(str(tmp_path)) if message else shape == images.shape, message
        assert len(message.splitlines()) <= 1
        refused += bool(message)
    assert refused > 40
