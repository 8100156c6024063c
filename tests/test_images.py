"""A user's own microstructures: what is refused, what is made of them, and all the way through the pipeline."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, run

from lspipe import Isotropic, open_dataset, solve
from lspipe.dataset import import_microstructures
from lspipe.images import NotPeriodic, jumps, phase_values, read, renumber
from lspipe.verify import verify


def blobs(count, shape, phases=3, seed=0):
    """Smooth periodic images with phases of about equal volume."""
    rng = np.random.default_rng(seed)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    noise = np.fft.fftn(rng.random((count, *shape)), axes=(1, 2, 3))
    smooth = np.fft.ifftn(noise * np.exp(-((8 * k) ** 2)), axes=(1, 2, 3)).real
    edges = np.quantile(smooth, np.arange(1, phases) / phases)
    return np.searchsorted(edges, smooth)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 1, 2], "uint8"), ([-5, 0, 70000], "int64"), ([3, 7, 65535], "uint16"), ([0, 2**63, 2**64 - 1], "uint64")],
)
def test_integers_of_any_kind(tmp_path, values, dtype):
    """Stored in any order of bytes and axes."""
    phase = blobs(4, (8, 9, 10))
    images = np.array(values, dtype=dtype)[phase]
    for order in (images, np.asfortranarray(images), images.astype(images.dtype.newbyteorder(">"))):
        np.save(tmp_path / "images.npy", order)
        made = {"first": 1, "count": 3, "split": "test", "per_shard": 2}
        import_microstructures(tmp_path / "c.zarr", tmp_path / "images.npy", **made, replace=True)
        cells = open_dataset(tmp_path / "c.zarr")
        np.testing.assert_array_equal(cells.phase, phase[1:])
        assert cells.attrs["phase_values"] == values
        assert cells.attrs["axes"] == "x, y, z in array order"
        assert cells.phase.dims == ("sample", "x", "y", "z")
        np.testing.assert_allclose(cells.volume_fraction[:, 2], (phase[1:] == 2).mean(axis=(1, 2, 3)))
        assert not verify(tmp_path / "c.zarr").faults


def test_forms_of_files(tmp_path):
    phase = blobs(3, (8, 8, 8), phases=2).astype(bool)
    np.save(tmp_path / "one.npy", phase[0])
    np.savez(tmp_path / "some.npz", b=phase[0], a=phase[1:])
    np.savez_compressed(tmp_path / "small.npz", phase)
    np.testing.assert_array_equal(read(tmp_path / "one.npy"), phase[:1])
    np.testing.assert_array_equal(read(tmp_path / "some.npz"), phase)
    np.testing.assert_array_equal(read(tmp_path / "small.npz"), phase)
    assert phase_values(read(tmp_path / "some.npz")) == [0, 1]
    np.testing.assert_array_equal(renumber(phase[0], [0, 1]), phase[0])


GOOD = blobs(3, (8, 8, 8))


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("a.npy", GOOD.astype(float), "a.npy of type float64: must be integers, which name the phases"),
        ("a.npy", GOOD[0, 0], r"a.npy of shape \(8, 8\): must be \(N, nx, ny, nz\)"),
        ("a.npy", GOOD[:, :7], r"a.npy: images of \(7, 8, 8\) voxels: must have at least 8 along each axis"),
        ("a.npy", GOOD[:0], "a.npy: holds no image"),
        ("a.npz", {"a": GOOD, "b": GOOD[0].repeat(2, 0)}, r"images of \(8, 8, 8\) and \(16, 8, 8\) voxels: must be of"),
        ("a.npz", {"a": GOOD, "b": GOOD[0] / 2}, "a.npz: b of type float64"),
        ("a.npy", GOOD[[0, 1, 0]], "images 0 and 2 are the same"),
        ("a.npy", np.arange(3 * 512).reshape(3, 8, 8, 8), "1536 different integers: must be at most 255"),
        ("a.npy", GOOD[:2], "first = 1, count = 2: .*a.npy has 2 images"),
    ],
)
def test_what_is_refused(tmp_path, name, arrays, said):
    np.savez(tmp_path / name, **arrays) if isinstance(arrays, dict) else np.save(tmp_path / name, arrays)
    with pytest.raises(ValueError, match=said):
        import_microstructures(tmp_path / "c.zarr", tmp_path / name, first=1, count=2, split="test", per_shard=2)
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_images_that_are_not_periodic(tmp_path):
    whole = blobs(6, (24, 24, 24), phases=2)
    assert not [jump for image in whole for jump in jumps(image)]
    cut = whole[:, :, :11]
    assert [sorted({axis for axis, *_ in jumps(image)}) for image in cut] == [["y"]] * 6
    layers = np.zeros((8, 8, 8), int)
    layers[4:] = 1
    assert not list(jumps(layers))
    np.save(tmp_path / "cut.npy", cut)
    with pytest.warns(
        NotPeriodic, match=r"4 of 4 images do not look periodic, .* along y of image \d, \d+% of the voxels"
    ):
        import_microstructures(tmp_path / "c.zarr", tmp_path / "cut.npy", first=1, count=4, split="test", per_shard=2)


def test_a_shard_of_images_is_made_again(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    import_microstructures(tmp_path / "c.zarr", tmp_path / "a.npy", first=0, count=3, split="test", per_shard=2)
    truth = open_dataset(tmp_path / "c.zarr").load()
    (tmp_path / "c.zarr/phase/c/1/0/0/0").unlink()
    run("lspipe", "verify", "c.zarr", "--repair", cwd=tmp_path)
    assert open_dataset(tmp_path / "c.zarr").equals(truth)
    (tmp_path / "c.zarr/phase/c/1/0/0/0").unlink()
    np.save(tmp_path / "a.npy", GOOD[::-1])
    other = run("lspipe", "verify", "c.zarr", "--repair", cwd=tmp_path, check=False)
    assert other.returncode == 1
    assert "a.npy: holds other images than those that the store was made of" in other.stderr


def test_through_the_whole_pipeline(tmp_path):
    """Three phases on a cell that is no cube; test takes the first images, then valid, then train."""
    phase, values = blobs(9, (8, 9, 10)), np.array([-1, 40, 300])
    np.save(tmp_path / "mine.npy", values[phase])
    config = yaml.safe_load((REPOSITORY / "config/test.yaml").read_text())
    config["microstructures"] = {"images": "mine.npy", "train": 4, "valid": 2, "test": 3}
    config["cases"] = {"soft": [{"young": e, "poisson": 0.3} for e in (10, 50, 20)]}
    config["networks"] = [{"name": "fln", "architecture": "fln", "train_on": ["soft"]}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/test/figures/slices/fln/seed0/soft.png"
    where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", "config.yaml")
    run("snakemake", *where, "--cores", 2, target, cwd=tmp_path)
    for split, part in {"test": phase[:3], "valid": phase[3:5], "train": phase[5:]}.items():
        cells = open_dataset(tmp_path / f"results/test/microstructures/{split}.zarr")
        np.testing.assert_array_equal(cells.phase, part)
        assert cells.attrs["phase_values"] == values.tolist()
        materials = [Isotropic(e, 0.3) for e in (10, 50, 20)]
        truth = solve(part, materials, [1e-3, 0, 0, 0, 0, 0]).strain.astype(np.float32)
        np.testing.assert_array_equal(open_dataset(tmp_path / f"results/test/fields/soft/{split}.zarr").strain, truth)
    assert len(pd.read_parquet(tmp_path / "results/test/evaluation/fln/seed0/soft.parquet")) == 3
    model = json.loads((tmp_path / "results/test/models/fln/seed0/model.json").read_text())
    assert len(model["domains"][0]["materials"]) == 3


def test_one_image_under_two_names_is_found(tmp_path):
    """Whatever its type: a network would be tested on what it saw."""
    phase = blobs(2, (8, 8, 8), phases=2)
    np.savez(tmp_path / "types.npz", a=phase.astype(np.uint8), b=phase[:1].astype(np.int64))
    with pytest.raises(ValueError, match="images 0 and 2 are the same"):
        import_microstructures(tmp_path / "c.zarr", tmp_path / "types.npz", first=0, count=3, split="test", per_shard=2)
    assert not (tmp_path / "c.zarr").exists()


def test_arrays_of_several_types(tmp_path):
    phase = blobs(3, (8, 8, 8))
    np.savez(tmp_path / "mix.npz", a=phase[:2].astype(np.uint8), b=np.array([-1, 300, 1])[phase[2:]].astype(np.int32))
    import_microstructures(tmp_path / "c.zarr", tmp_path / "mix.npz", first=0, count=3, split="test", per_shard=2)
    cells = open_dataset(tmp_path / "c.zarr")
    values = np.array(cells.attrs["phase_values"])
    assert {-1, 0, 300} < set(values) <= {-1, 0, 1, 2, 300}
    np.testing.assert_array_equal(values[cells.phase[0]], phase[0])
    np.testing.assert_array_equal(values[cells.phase[2]], np.array([-1, 300, 1])[phase[2]])


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_file_that_is_none(tmp_path, content):
    (tmp_path / "images.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.npy: is no \.npy file"):
        read(tmp_path / "images.npy")
