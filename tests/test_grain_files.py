"""Readers of HDF5, DREAM.3D and Neper: the layouts of other programs, and their conventions of orientations."""

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lspipe import open_dataset
from lspipe.dataset import import_microstructures
from lspipe.images import find_sources, read_images
from lspipe.verify import verify

VOXELS = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7) % 60  # x, y, z
GRAINS = 1 + VOXELS % 4


def test_hdf5_of_fans_and_msutils(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/sphere/3x4x5/ms"] = VOXELS.T.astype(np.uint16)
        file["/sphere/other/ms"] = VOXELS.astype(np.uint16)
        file["/sphere/other/ms"].attrs["permute_order"] = "xyz"
        packed = file.create_dataset("/packed", data=VOXELS.T, chunks=(2, 2, 3), compression="gzip")
        packed.attrs["L"] = [15.0, 8.0, 3.0]  # edge lengths along z, y, x
        file["/text"] = "no array"
        file["/elsewhere"] = h5py.ExternalLink("b.h5", "/ms")
        file["/again"] = h5py.SoftLink("/packed")
    assert [source.dataset for source in find_sources(tmp_path / "a.h5")] == [
        "/packed",
        "/sphere/3x4x5/ms",
        "/sphere/other/ms",
    ]
    for dataset in ("/sphere/3x4x5/ms", "sphere/other/ms", "packed", "3x4x5/ms"):
        images = read_images(tmp_path / "a.h5", dataset=dataset)
        np.testing.assert_array_equal(images[0], VOXELS)
        assert images.spacing == ((1, 2, 3) if dataset == "packed" else (1, 1, 1))
    with pytest.raises(
        ValueError, match=r"a.h5: dataset = 'ms': must be one of /packed, /sphere/3x4x5/ms, /sphere/other"
    ):
        read_images(tmp_path / "a.h5", dataset="ms")
    said = r"a.h5: has several arrays; choose one with --dataset or dataset: /packed, /sphere"
    with pytest.raises(ValueError, match=said):
        read_images(tmp_path / "a.h5")


def test_the_papers_microstructures(tmp_path):
    """One-hot micros (N, 2, z, y, x) beside their parameters, as the authors publish them."""
    phase = np.stack([VOXELS % 2, VOXELS % 3 == 0]).astype(int)
    with h5py.File(tmp_path / "micros.h5", "w") as file:
        one_hot = np.eye(2, dtype=np.int64)[phase.transpose(0, 3, 2, 1)].transpose(0, 4, 1, 2, 3)
        file.create_dataset("micros", data=one_hot, chunks=(1, 2, 5, 4, 3), compression="gzip")
        file["params_gx"] = np.arange(2.0)
    images = read_images(tmp_path / "micros.h5")
    np.testing.assert_array_equal(np.stack(list(images)), phase)


EULER = np.random.default_rng(0).uniform(0, [2 * np.pi, np.pi, 2 * np.pi], (5, 3))
R = Rotation.from_euler("ZXZ", EULER)  # crystal to sample


def dream3d(path, version, orientations):
    """The layouts of DREAM.3D 6 and of simplnx: geometry, FeatureIds, grains and ensembles; row 0 is a dummy."""
    tables = {
        "AvgQuats": R.inv().as_quat().astype(np.float32),  # x, y, z, w, sample to crystal
        "AvgEulerAngles": EULER.astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        file.attrs["FileVersion"] = f"{version}.0"
        if version == 7:
            image = file.create_group("DataContainers/Synthetic")
            geometry = image.create_group("_SIMPL_GEOMETRY")
            geometry["DIMENSIONS"] = np.array(VOXELS.shape, np.int64)
            geometry["SPACING"] = np.array([0.5, 1, 2], np.float32)
            geometry["ORIGIN"] = np.zeros(3, np.float32)
        else:
            image = file.create_group("DataStructure/Synthetic")
            image.attrs["_DIMENSIONS"] = np.array(VOXELS.shape, np.uint64)
            image.attrs["_SPACING"] = np.array([0.5, 1, 2], np.float32)
        image["CellData/FeatureIds"] = GRAINS.T[..., None].astype(np.int32)
        image["CellData/Confidence"] = np.ones((*GRAINS.T.shape, 1), np.float32)
        image["Grain Data/Phases"] = np.array([0, 1, 2, 1, 2], np.int32)[:, None]
        image[f"Grain Data/{orientations}"] = tables[orientations]
        image["CellEnsembleData/CrystalStructures"] = np.array([999, 1, 0], np.uint32)[:, None]
        image["CellEnsembleData/MaterialName"] = np.array([b"Invalid", b"Copper", b"Zinc"])


@pytest.mark.parametrize("version", [7, 8])
@pytest.mark.parametrize("orientations", ["AvgQuats", "AvgEulerAngles"])
def test_dream3d(tmp_path, version, orientations):
    dream3d(tmp_path / "grains.dream3d", version, orientations)
    images = read_images(tmp_path / "grains.dream3d")
    np.testing.assert_array_equal(images[0], GRAINS)
    assert images.spacing == (0.5, 1, 2)
    crystals = images.crystals
    assert crystals.names == ("Cubic_High Copper", "Hexagonal_High Zinc")
    assert crystals.material.tolist() == [-1, 0, 1, 0, 1]
    matrices = Rotation.from_quat(np.roll(crystals.orientation[1:], -1, axis=1)).as_matrix()
    np.testing.assert_allclose(matrices, R[1:].as_matrix(), atol=1e-6)
    import_microstructures(tmp_path / "c.zarr", tmp_path / "grains.dream3d", split="test", per_shard=1)
    cells = open_dataset(tmp_path / "c.zarr")
    np.testing.assert_array_equal(cells.phase[0], GRAINS - 1)
    np.testing.assert_allclose(cells.orientation[0], crystals.orientation[1:])
    assert cells.material[0].values.tolist() == [0, 1, 0, 1]
    assert cells.attrs["spacing"] == [0.5, 1, 2]
    assert not verify(tmp_path / "c.zarr").faults


def descriptors():
    """The orientations of grains 1 to 4 in Neper's descriptors, by Bunge's matrix g, sample to crystal."""
    one = R[1:]
    axis = one.as_rotvec()
    angle = np.linalg.norm(axis, axis=1, keepdims=True)
    return {
        "rodrigues": np.tan(angle / 2) * axis / angle,
        "euler-bunge": np.degrees(EULER[1:]),
        "rotmat": bunge(EULER[1:]).reshape(-1, 9),
        "axis-angle": np.column_stack([axis / angle, np.degrees(angle)]),
        "quaternion": np.roll(one.as_quat(), 1, axis=1),
    }


def bunge(euler):
    """Bunge's matrix g (1982, eq. 2.11) from φ₁, Φ, φ₂."""
    (c1, c, c2), (s1, s, s2) = np.cos(euler.T), np.sin(euler.T)
    return np.array(
        [
            [c1 * c2 - s1 * s2 * c, s1 * c2 + c1 * s2 * c, s2 * s],
            [-c1 * s2 - s1 * c2 * c, -s1 * s2 + c1 * c2 * c, c2 * s],
            [s1 * s, -c1 * s, c],
        ]
    ).transpose(2, 0, 1)


FORMS = {
    "ascii": None,
    "binary8": "u1",
    "binary16": "<u2",
    "binary16_big": ">u2",
    "binary32": "<u4",
    "binary32_big": ">u4",
}


@pytest.mark.parametrize(
    ("form", "descriptor", "outside"),
    [
        ("ascii", "rodrigues", False),
        ("ascii", "euler-bunge:passive", True),
        ("binary8", "rotmat", False),
        ("binary16", "axis-angle", True),
        ("binary16_big", "quaternion", False),
        ("binary32", "rodrigues:passive", False),
        ("binary32_big", "", True),
    ],
)
def test_tesr(tmp_path, form, descriptor, outside):
    flat = GRAINS.ravel(order="F")
    data = flat.astype(FORMS[form]).tobytes() if FORMS[form] else " ".join(map(str, flat)).encode()
    cell = "**cell\n  4\n *crysym\n  cubic\n"
    if descriptor:
        rows = descriptors()[descriptor.partition(":")[0]]
        cell += f" *ori\n  {descriptor}\n" + "".join("  " + " ".join(f"{x:.12f}" for x in row) + "\n" for row in rows)
    head = f"***tesr\n **format\n  2.1\n **general\n  3\n  3 4 5\n  0.5 1 2\n {cell} **data\n  {form}\n"
    body = b" *file voxels.raw\n" if outside else data + b"\n"
    (tmp_path / "a.tesr").write_bytes(head.encode() + body + b"***end\n")
    if outside:
        (tmp_path / "voxels.raw").write_bytes(data)
    images = read_images(tmp_path / "a.tesr")
    np.testing.assert_array_equal(images[0], GRAINS)
    assert images.spacing == (0.5, 1, 2)
    if not descriptor:
        assert images.crystals is None
        return
    matrices = Rotation.from_quat(np.roll(images.crystals.orientation[1:], -1, axis=1)).as_matrix()
    np.testing.assert_allclose(matrices, bunge(EULER[1:]).transpose(0, 2, 1), atol=1e-9)
    assert images.crystals.material.tolist() == [-1, 0, 0, 0, 0]
    assert images.crystals.names == ("cubic",)
    text = (tmp_path / "a.tesr").read_bytes()
    (tmp_path / "a.tesr").write_bytes(text.replace(descriptor.encode(), b"rodrigues:active"))
    with pytest.raises(ValueError, match=r"a.tesr: \*ori rodrigues:active: must be one of rodrigues, .* passive"):
        read_images(tmp_path / "a.tesr")
    if outside:
        (tmp_path / "a.tesr").write_bytes(text.replace(b"voxels.raw", b"/etc/passwd"))
        with pytest.raises(ValueError, match=r"a.tesr: \*file /etc/passwd: must be a file in the same folder"):
            read_images(tmp_path / "a.tesr")


def test_damaged_files_are_images_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10**8)
    dream3d(tmp_path / "a.dream3d", 7, "AvgQuats")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ms", data=VOXELS.T, chunks=(2, 2, 3), compression="gzip")
    (tmp_path / "a.tesr").write_text(
        "***tesr\n **format\n 2.1\n **general\n 3\n 3 4 5\n 1 1 1\n **cell\n 4\n *ori\n rodrigues\n"
        + "0 0 0.1\n" * 4 + " **data\n ascii\n" + " ".join(map(str, GRAINS.ravel())) + "\n***end\n"
    )  # fmt: skip
    rng, refused = np.random.default_rng(0), 0
    for name in ("a.dream3d", "a.h5", "a.tesr"):
        whole = (tmp_path / name).read_bytes()
        contents = [whole[:end] for end in rng.integers(0, len(whole), 10)]
        for _ in range(40):
            changed = bytearray(whole)
            for place in rng.integers(len(whole), size=1 if name == "a.tesr" else 8):
                changed[place] = rng.integers(256)
            contents.append(bytes(changed))
        for content in contents:
            (tmp_path / name).write_bytes(content)
            message = ""
            try:
                images = read_images(tmp_path / name)
                shape = images[0].shape
            except ValueError as error:
                message = str(error)
            assert message.startswith(str(tmp_path)) if message else shape == images.shape, message
            assert len(message.splitlines()) <= 1
            refused += bool(message)
    assert refused > 30
