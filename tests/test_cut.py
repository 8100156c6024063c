"""Cells that are cut from images, and published strain in place of the solver's."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st
from test_images import blobs

from lspipe import Isotropic, open_dataset, solve
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, import_microstructures, solve_fields
from lspipe.evaluate import evaluate
from lspipe.images import arrays, read_images
from lspipe.images.source import Crystals
from lspipe.models.files import load_model
from lspipe.store import Store
from lspipe.verify import verify

SCAN = np.random.default_rng(0).integers(0, 200, (2, 11, 10, 9)).astype(np.uint8)  # n, z, y, x


@pytest.fixture
def scan(tmp_path):
    np.save(tmp_path / "scan.npy", SCAN)
    return tmp_path / "scan.npy"


@given(
    crop=st.lists(st.tuples(st.integers(0, 3), st.integers(7, 9)), min_size=3, max_size=3),
    factor=st.integers(1, 2),
    block=st.tuples(*[st.integers(1, 2)] * 3),
    mirror=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_cells_are_those_of_slices_of_the_whole_array(tmp_path_factory, crop, factor, block, mirror):
    """Crop, mean, threshold, blocks and mirror with plain numpy, on an image that is asymmetric in every way."""
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    np.save(path, SCAN)
    options = {"crop": crop, "downsample": factor, "threshold": [60, 120.5], "blocks": block, "mirror": mirror}
    images = read_images(path, axes="nzyx", spacing=(1, 2, 3), **options)
    whole = SCAN.transpose(0, 3, 2, 1)[(slice(None), *(slice(*c) for c in crop))].astype(float)
    n = np.array(whole.shape[1:]) // factor
    whole = whole[(slice(None), *(slice(m * factor) for m in n))]
    whole = whole.reshape(2, n[0], factor, n[1], factor, n[2], factor).mean(axis=(2, 4, 6))
    phase = (whole >= 60).astype(int) + (whole >= 120.5)
    expected = []
    for image in phase:
        for z in range(0, n[2] - block[2] + 1, block[2]):
            for y in range(0, n[1] - block[1] + 1, block[1]):
                for x in range(0, n[0] - block[0] + 1, block[0]):
                    expected.append(image[x : x + block[0], y : y + block[1], z : z + block[2]])
    assert images.spacing == (factor, 2 * factor, 3 * factor)
    assert len(images) == len(expected)
    for cell, block_ in zip(images, expected, strict=True):
        pads = [(0, m) if mirror and m > 1 else (0, 0) for m in block_.shape]
        np.testing.assert_array_equal(cell, np.pad(block_, pads, mode="symmetric"))
        assert cell.shape == images.shape


def test_labels_become_the_most_frequent_one(tmp_path):
    image = np.array([[[5, 5], [7, 9]], [[9, 5], [5, 9]]], np.int16)  # four times 5
    np.save(tmp_path / "a.npy", np.tile(image, (2, 1, 1)))
    assert read_images(tmp_path / "a.npy", downsample=2)[0].tolist() == [[[5]], [[5]]]


def test_channels_of_a_one_hot_code(tmp_path):
    """The layout of the paper's cells: axes z, y, x after the channels, channel 0 the soft phase."""
    phase = SCAN.astype(int) % 3
    np.save(tmp_path / "a.npy", np.eye(3, dtype=int)[phase].transpose(0, 4, 1, 2, 3))
    images = read_images(tmp_path / "a.npy", axes="nczyx")
    np.testing.assert_array_equal(np.stack(list(images)), phase.transpose(0, 3, 2, 1))
    np.save(tmp_path / "a.npy", SCAN[None])
    with pytest.raises(ValueError, match=r"a.npy: axis c of axes = ncxyz: is no one-hot code"):
        read_images(tmp_path / "a.npy", axes="ncxyz")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"axes": "nzy"}, r"axes = 'nzy': must be 4 different letters of x, y, z, n \(images\) and c"),
        ({"axes": "nzyy"}, "axes = 'nzyy': must be 4 different letters"),
        ({"dataset": "ct"}, "dataset = 'ct': must be one of none: the file has one array"),
        ({"spacing": (1, 0, 1)}, "spacing = "),
        ({"threshold": [3, 1]}, r"threshold = \[3, 1\]: must be ascending numbers"),
        ({"threshold": [np.nan]}, r"threshold = \[nan\]: must be ascending numbers"),
        (
            {"crop": [(0, 9), (0, 10), (3, 12)]},
            r"crop = .*: must be the first voxel and the end along x, y, z; the image has",
        ),
        ({"crop": [(5, 5), (0, 10), (0, 9)]}, "crop = .*: must be"),
        ({"downsample": 12}, "downsample = 12: must be at most the number of voxels, 9"),
        ({"blocks": 10}, r"blocks = 10: must be 1 or 3 numbers of voxels, at most \(9, 10, 11\)"),
        ({"blocks": (2, 2)}, "blocks = .*: must be 1 or 3 numbers"),
    ],
)
def test_wrong_options(scan, options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        read_images(scan, **{"axes": "nzyx", **options})


def test_files_that_follow_each_other(tmp_path):
    phase = blobs(4, (8, 9, 10))
    for i, labels in enumerate(([0, 1, 2], [0, 1, 255])):
        np.save(tmp_path / f"{i}.npy", np.array(labels, np.uint8)[phase[2 * i : 2 * i + 2]])
    files = [tmp_path / "0.npy", tmp_path / "1.npy"]
    with pytest.raises(
        ValueError,
        match=r"1.npy has the labels \[0, 1, 255\], .*0.npy has \[0, 1, 2\]: state all of them with --labels",
    ):
        import_microstructures(tmp_path / "c.zarr", files, split="test", per_shard=2)
    np.save(files[1], phase[2:].astype(np.uint8))
    import_microstructures(tmp_path / "c.zarr", files, split="test", per_shard=3)
    np.testing.assert_array_equal(open_dataset(tmp_path / "c.zarr").phase, phase)
    assert not verify(tmp_path / "c.zarr").faults
    np.save(files[1], phase[2:, :8, :8])
    with pytest.raises(ValueError, match=r"1.npy: has \(8, 8, 10\) voxels .*; must be as .*0.npy, \(8, 9, 10\) voxels"):
        read_images(files)


def test_blocks_of_a_scan_keep_apart(tmp_path):
    """A scan with an empty corner: repeated blocks are dropped, and no block of one split touches one of another."""
    scan = np.random.default_rng(1).integers(0, 2, (18, 12, 12)).astype(np.uint8) * 200
    scan[:6, :6] = scan[15:, 6:] = 0  # 16 and 8 equal blocks
    np.save(tmp_path / "scan.npy", scan)
    options = ["--axes", "zyx", "--threshold", "100", "--blocks", "3"]
    for split, count, others in (("test", 12, []), ("valid", 8, ["test"]), ("train", 24, ["test", "valid"])):
        apart = [word for other in others for word in ("--apart-from", f"{other}.zarr")]
        call(
            "import",
            f"{split}.zarr",
            "scan.npy",
            *options,
            "--count",
            count,
            *apart,
            "--split",
            split,
            cwd=tmp_path,
        )
    images = read_images(tmp_path / "scan.npy", axes="zyx", threshold=[100], blocks=3)
    numbers = {s: Store.open(tmp_path / f"{s}.zarr").attributes["image_numbers"] for s in ("test", "valid", "train")}
    assert [len(n) for n in numbers.values()] == [12, 8, 24]
    assert numbers["test"][:3] == [0, 8, 9]  # along x first; 1 to 7 repeat block 0
    places = {s: np.array([images.locate(k)[1] for k in n]) for s, n in numbers.items()}
    for a, b in (("test", "valid"), ("test", "train"), ("valid", "train")):
        assert np.abs(places[a][:, None] - places[b][None]).max(axis=-1).min() > 1
    digests = [d for s in numbers for d in Store.open(tmp_path / f"{s}.zarr").attributes["images"]]
    assert len(digests) == len(set(digests))
    for split, where in places.items():
        cells = open_dataset(tmp_path / f"{split}.zarr").phase.values
        assert len({cell.tobytes() for cell in cells}) == len(cells)
        for cell, (x, y, z) in zip(cells, where, strict=True):
            expected = scan[3 * z : 3 * z + 3, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].T >= 100
            np.testing.assert_array_equal(cell, expected)
        assert not verify(tmp_path / f"{split}.zarr").faults
    apart = [word for split in numbers for word in ("--apart-from", f"{split}.zarr")]
    done = call("import", "more.zarr", "scan.npy", *options, *apart, "--first-image", 95, cwd=tmp_path, check=False)
    assert "scan.npy has 0 blocks" in done.stderr
    assert "leave out a store of --apart-from" in done.stderr
    assert "count" not in done.stderr
    done = call("import", "more.zarr", "scan.npy", *options, "--count", 95, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "count = 95: scan.npy has 73 blocks" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "more.zarr").exists()


def abaqus(strain):
    """Strain (N, 6, x, y, z) as published: axes z, y, x, components 11, 22, 33, 12, 13, 23, engineering shear."""
    factor = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)
    return (strain[:, [0, 1, 2, 5, 4, 3]] * factor).transpose(0, 1, 4, 3, 2)


@pytest.mark.parametrize("form", ["xx", "before", "after"])
def test_published_strain(tmp_path, form):
    """The solver's own field, in each layout, on cells that are no cubes: nothing is lost on the way."""
    phase = blobs(3, (6, 5, 4), phases=2)
    materials = (Isotropic(120, 0.3), Isotropic(1200, 0.3))
    load = (1e-3, 0, 0, 0, 0, 0)
    strain = solve(phase, materials, load, tol=1e-6).strain
    np.save(tmp_path / "micros.npy", np.eye(2, dtype=int)[phase.transpose(0, 3, 2, 1)].transpose(0, 4, 1, 2, 3))
    published = abaqus(strain).astype(np.float32)
    published = {
        "xx": published[:, 0].reshape(3, -1),
        "before": published,
        "after": published.reshape(3, 6, -1).transpose(0, 2, 1),
    }[form]
    np.save(tmp_path / "strain.npy", published)
    options = {"split": "test", "per_shard": 2}
    import_microstructures(tmp_path / "c.zarr", tmp_path / "micros.npy", axes="nczyx", **options)
    problem, per_shard = Problem(materials, load), 2
    arguments = (tmp_path / "f.zarr", tmp_path / "c.zarr")
    create_fields(*arguments, problem, tol=1e-4, per_shard=per_shard, truth=[tmp_path / "strain.npy"])
    solve_fields(*arguments)
    stored = open_dataset(tmp_path / "f.zarr")
    known = slice(0, 1) if form == "xx" else slice(None)
    np.testing.assert_allclose(stored.strain.values[:, known], strain[:, known], rtol=0, atol=1e-9)
    assert np.isnan(stored.strain.values[:, 1:]).all() == (form == "xx")
    assert np.isnan(stored.bound).all()
    assert not verify(tmp_path / "f.zarr").faults
    errors, _ = evaluate(load_model("cg"), tmp_path / "c.zarr", tmp_path / "f.zarr")
    assert errors.groupby("passes")["mase"].max().iloc[-1] < 0.1
    np.save(tmp_path / "strain.npy", published / 2e-4)
    create_fields(*arguments, problem, tol=1e-4, per_shard=per_shard, truth=[tmp_path / "strain.npy"], replace=True)
    with pytest.raises(ValueError, match=r"strain.npy: the mean strain of image 0 is 5; must be the load, 0.001"):
        solve_fields(*arguments)


def test_grains_of_a_file(tmp_path, monkeypatch):
    """Labels of a scan that name grains: each block has its own list of grains, filled up to the longest."""
    labels = np.repeat(np.repeat(np.arange(1, 19).reshape(3, 3, 2), 2, 0), 2, 1).repeat(2, 2)
    labels[:2, :2, :2] = 2
    np.save(tmp_path / "scan.npy", labels)
    turns = np.random.default_rng(0).normal(size=(19, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    crystals = Crystals(np.array([-1, *[0, 1] * 9]), turns)
    find = arrays.find_sources
    monkeypatch.setattr(arrays, "find_sources", lambda path: [replace(find(path)[0], crystals=crystals)])
    import_microstructures(tmp_path / "c.zarr", tmp_path / "scan.npy", blocks=(6, 2, 2), split="test", per_shard=4)
    cells = open_dataset(tmp_path / "c.zarr")
    images = read_images(tmp_path / "scan.npy", blocks=(6, 2, 2))
    assert cells.sizes["grain"] == 3
    for k, cell in enumerate(images):
        np.testing.assert_array_equal(cells.orientation[k].values[cells.phase[k].values], turns[cell])
        np.testing.assert_array_equal(cells.material[k].values[cells.phase[k].values], crystals.material[cell])
    assert not verify(tmp_path / "c.zarr").faults
    labels[5, 5, 3] = 0
    np.save(tmp_path / "scan.npy", labels)
    with pytest.raises(ValueError, match=r"scan.npy: 1 voxels of cell \d have the label 0, which is no grain"):
        import_microstructures(tmp_path / "c.zarr", tmp_path / "scan.npy", split="test", per_shard=4, replace=True)
