"""A user's own microstructures: what is refused, what is made of them, and all the way through the pipeline."""

import io
import json
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from conftest import REPOSITORY, call, perform, run

from lspipe import Isotropic, cli, load_model, open_dataset, solve
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, import_microstructures, solve_fields
from lspipe.evaluate import evaluate
from lspipe.export import export
from lspipe.images import read_images
from lspipe.images.labels import NotPeriodic, check_labels, find_jumps, renumber
from lspipe.loader import load
from lspipe.models.architectures import build
from lspipe.models.files import save_model
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
        assert cells.attrs["labels"] == values
        assert cells.attrs["axes"] == "x, y, z in array order"
        assert cells.phase.dims == ("sample", "x", "y", "z")
        np.testing.assert_allclose(cells.volume_fraction[:, 2], (phase[1:] == 2).mean(axis=(1, 2, 3)))
        assert not verify(tmp_path / "c.zarr").faults


def test_forms_of_files(tmp_path):
    phase = blobs(3, (8, 8, 8), phases=2).astype(bool)
    np.save(tmp_path / "one.npy", phase[0])
    np.savez(tmp_path / "some.npz", b=phase[0], a=phase[1:])
    np.savez_compressed(tmp_path / "small.npz", phase)
    np.testing.assert_array_equal(read_images(tmp_path / "one.npy"), phase[:1])
    np.testing.assert_array_equal(read_images(tmp_path / "some.npz"), phase)
    np.testing.assert_array_equal(read_images(tmp_path / "small.npz"), phase)
    assert check_labels(read_images(tmp_path / "some.npz")) == [0, 1]
    np.testing.assert_array_equal(renumber(phase[0], [0, 1]), phase[0])


GOOD = blobs(3, (8, 8, 8))


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("a.npy", GOOD.astype(float), "a.npy: values are float64: must be integer labels; or give a threshold"),
        ("a.npy", GOOD[0, 0, 0], r"a.npy of shape \(8,\): must have 2 to 5 axes, such as \(N, nx, ny, nz\)"),
        ("a.npy", GOOD[:, :0], r"a.npy of shape \(3, 0, 8, 8\): has no voxels"),
        ("a.npz", {"b": GOOD[0, :0]}, r"a.npz: b of shape \(0, 8, 8\): has no voxels"),
        ("a.npy", GOOD[..., None], r"a.npy of shape \(3, 8, 8, 8, 1\): state the axes, such as ncxyz"),
        ("a.npy", GOOD.astype(object), "a.npy of type object: must be numbers"),
        ("a.npz", {"a": GOOD, "b": GOOD.astype(object)}, "a.npz: b of type object: must be numbers"),
        ("a.npy", GOOD[:0], "first = 1, count = 2: .*a.npy has 0 images"),
        ("a.npz", {"a": GOOD, "b": GOOD[0].repeat(2, 0)}, r"images of \(8, 8, 8\) and \(16, 8, 8\) voxels: must be of"),
        ("a.npz", {"a": GOOD, "b": GOOD[0] / 2}, "a.npz: values are float64: must be integer labels"),
        ("a.npz", {}, "a.npz: holds no image"),
        ("a.npy", GOOD[[0, 1, 0]], "a.npy: images 0 and 2 are the same"),
        (
            "a.npy",
            np.arange(3 * 512).reshape(3, 8, 8, 8) + 5,
            "a.npy: more than 255 different integers, 5, 6, 7, 8, …: must be one for each phase",
        ),
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
    assert not [jump for image in whole for jump in find_jumps(image)]
    cut = whole[:, :, :11]
    assert [sorted({axis for axis, *_ in find_jumps(image)}) for image in cut] == [["y"]] * 6
    layers = np.zeros((8, 8, 8), int)
    layers[4:] = 1
    assert not list(find_jumps(layers))
    np.save(tmp_path / "cut.npy", cut)
    with pytest.warns(
        NotPeriodic, match=r"4 of 4 images do not look periodic, .* along y of image [1-4], \d+% of the voxels"
    ):
        import_microstructures(tmp_path / "c.zarr", tmp_path / "cut.npy", first=1, count=4, split="test", per_shard=2)


def test_a_shard_of_images_is_made_again(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    import_microstructures(tmp_path / "c.zarr", tmp_path / "a.npy", first=0, count=3, split="test", per_shard=2)
    truth = open_dataset(tmp_path / "c.zarr").load()
    (tmp_path / "c.zarr/phase/c/1/0/0/0").unlink()
    call("verify", "c.zarr", "--repair", "--workers", 1, cwd=tmp_path)
    assert open_dataset(tmp_path / "c.zarr").equals(truth)
    (tmp_path / "c.zarr/phase/c/1/0/0/0").unlink()
    np.save(tmp_path / "a.npy", GOOD[::-1])
    other = call("verify", "c.zarr", "--repair", "--workers", 1, cwd=tmp_path, check=False)
    assert other.returncode == 1
    assert "a.npy: holds other images than those that the store was made of" in other.stderr


def test_through_the_whole_pipeline(tmp_path, monkeypatch):
    """Three phases on a cell that is no cube; test takes the first images, then valid, then train. Then the file grows
    by an image, and then one of its images changes."""
    monkeypatch.chdir(tmp_path)
    phase, values = blobs(10, (8, 9, 10)), np.array([-1, 40, 300])
    young, labels = (10, 50, 20, 5), [-1, 40, 300, 7]  # no image has the last one
    config = yaml.safe_load((REPOSITORY / "config/test.yaml").read_text())
    config["cases"] = {"soft": [{"young": e, "poisson": 0.3} for e in young]}
    config["networks"] = [{"name": "fln", "architecture": "fln", "train_on": ["soft"]}]
    cells, fields, shards = ("results/test/" + path for path in ("microstructures", "fields/soft", "fields/soft/train"))

    def snakemake(target, phase):
        np.save(tmp_path / "mine.npy", values[phase])
        config["microstructures"] = {"images": "mine.npy", "labels": labels, "train": len(phase) - 5}
        config["microstructures"] |= {"valid": 2, "test": 3}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", "config.yaml")
        perform(run("snakemake", "-n", "-p", *where, "--cores", 1, target, cwd=tmp_path).stdout)
        for split, part in {"test": phase[:3], "valid": phase[3:5], "train": phase[5:]}.items():
            store = open_dataset(tmp_path / f"{cells}/{split}.zarr")
            np.testing.assert_array_equal(store.phase, part)
            assert store.attrs["labels"] == labels
            materials = [Isotropic(e, 0.3) for e in young]
            truth = solve(part, materials, [1e-3, 0, 0, 0, 0, 0]).strain.astype(np.float32)
            np.testing.assert_array_equal(open_dataset(tmp_path / f"{fields}/{split}.zarr").strain, truth)

    snakemake("results/test/figures/slices/fln/seed0/soft.png", phase[:9])
    assert len(pd.read_parquet(tmp_path / "results/test/evaluation/fln/seed0/soft.parquet")) == 3
    model = json.loads((tmp_path / "results/test/models/fln/seed0/model.json").read_text())
    assert len(model["domains"][0]["materials"]) == 4
    assert model["domains"][0]["labels"] == labels

    stores = [tmp_path / f"{folder}/train.zarr" for folder in (cells, fields)]
    for change, written in ((phase, {1}), (np.concatenate([phase[:5], phase[5:9][::-1], phase[9:]]), {0})):
        before = [files(path) for path in stores]
        snakemake(f"{shards}.receipts/all.jsonl", change)
        assert [shards_written(*pair) for pair in zip(stores, before, strict=True)] == [written, written]


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
    values = np.array(cells.attrs["labels"])
    assert {-1, 0, 300} < set(values) <= {-1, 0, 1, 2, 300}
    np.testing.assert_array_equal(values[cells.phase[0]], phase[0])
    np.testing.assert_array_equal(values[cells.phase[2]], np.array([-1, 300, 1])[phase[2]])


def npy(shape, data=b"", dtype="|u1"):
    """A .npy file whose header may say anything."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def npz(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def bomb(claim):
    """An archive that says to unpack to so many bytes, as the header of its array does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy((1, 8, 8, claim // 64)))
        archive.filelist[0].file_size += claim
    return file.getvalue()


WHOLE = npy((3, 8, 8, 8), GOOD.astype(np.uint8).tobytes())
PACKED = npz({"a.npy": WHOLE})
SAVE_AGAIN = r"is no image, or is damaged \(.*\); save it again$"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"", f"a.npy: {SAVE_AGAIN}"),
        ("a.npy", b"no array", f"a.npy: {SAVE_AGAIN}"),
        ("a.npy", b"\x93NUMPY\x01\x00", f"a.npy: {SAVE_AGAIN}"),
        ("a.npy", PACKED, f"a.npy: {SAVE_AGAIN}"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, f"a.npy: {SAVE_AGAIN}"),
        (
            "a.npy",
            WHOLE[:-1],
            r"a.npy of shape \(3, 8, 8, 8\) and type uint8: has 1535 bytes of data, which do not fit",
        ),
        ("a.npy", WHOLE * 2, "a.npy of shape .*: has 3200 bytes of data, which do not fit"),
        ("a.npy", npy((-1, 8, 8, 8)), r"a.npy of shape \(-1, 8, 8, 8\) and type uint8: has 0 bytes of data"),
        ("a.npy", npy((-1, -8, 8, 8), bytes(512)), r"a.npy of shape \(-1, -8, 8, 8\) .*: has 512 bytes of data"),
        ("a.npy", npy((10**15, 8, 8, 8)), "a.npy of shape .*: has 0 bytes of data"),
        ("a.npy", npy((10**99, 10**99, 8, 8)), "a.npy of shape .*: has 0 bytes of data"),
        ("a.npz", b"", f"a.npz: {SAVE_AGAIN}"),
        ("a.npz", WHOLE, f"a.npz: {SAVE_AGAIN}"),
        ("a.npz", PACKED[: len(PACKED) // 2], f"a.npz: {SAVE_AGAIN}"),
        ("a.npz", PACKED[:60] + b"x" + PACKED[61:], f"a.npz: a.*: {SAVE_AGAIN}"),
        ("a.npz", npz({"a.npy": WHOLE, "README.txt": b"text"}), f"a.npz: README.txt: {SAVE_AGAIN}"),
        ("a.npz", npz({"a.npy": WHOLE[:-1]}), "a.npz: a of shape .*: has 1535 bytes of data"),
        ("a.npz", npz({"a.npy": npy((10**12, 10, 10, 10))}), "a.npz: a of shape .*: has 0 bytes of data"),
        (
            "a.npz",
            bomb(2**31),
            "a.npz: unpacks to 2.15 GB: must take at most 0.5 GB, half of the memory; save",
        ),
    ],
)
def test_damaged_files(tmp_path, monkeypatch, name, content, said):
    """Each is refused in one line, and what it claims to hold is not made room for."""
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10**9)
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said) as error:
        read_images(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    tracemalloc.stop()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.filterwarnings("ignore")  # of NumPy, about what it reads
def test_any_byte_may_be_another(tmp_path, name):
    """The header of .npy and all of .npz: the file is refused in a line, or holds what it held."""
    whole = {"a.npy": WHOLE, "a.npz": PACKED}[name]
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        content = bytearray(whole)
        content[rng.integers(len(whole) if name == "a.npz" else len(whole) - GOOD.size)] ^= 1 << rng.integers(8)
        (tmp_path / name).write_bytes(content)
        try:
            np.testing.assert_array_equal(read_images(tmp_path / name), GOOD)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(said.startswith(f"{tmp_path / name}") and "\n" not in said for said in refused)


def imported(folder, images, count=None, **options):
    """A store of all images of a file, and its fields for as many materials as there are phases."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", images)
    given = {"first": 0, "count": count or len(images), "split": "test", "per_shard": 2, **options}
    import_microstructures(folder / "c.zarr", folder / "images.npy", **given)
    return folder / "c.zarr", folder / "f.zarr"


YOUNG = [10, 50, 20, 30]


def allocate(cells, fields, materials=3, **options):
    given = [Isotropic(young, 0.3) for young in YOUNG[:materials]]
    create_fields(fields, cells, Problem(given, [1e-3, 0, 0, 0, 0, 0]), tol=1e-4, per_shard=2, **options)


def files(path):
    """When each file of a shard was written, without strain, which Snakemake touches."""
    written = {f.relative_to(path).as_posix(): f.stat().st_mtime_ns for f in path.glob("*/c/**/*") if f.is_file()}
    return {file: when for file, when in written.items() if not file.startswith("strain")}


def shards_written(path, before):
    return {int(file.split("/")[2]) for file, _ in files(path).items() - before.items()}


@pytest.mark.parametrize(
    ("change", "written"),
    [
        (lambda images: images, set()),
        (lambda images: np.concatenate([images, blobs(1, (8, 8, 8), seed=1)]), {2}),
        (lambda images: np.concatenate([images, blobs(2, (8, 8, 8), seed=1)]), {2, 3}),
        (lambda images: images[[0, 1, 3, 2, 4]], {1}),
        (lambda images: np.roll(images, 1, axis=1), {0, 1, 2}),
        (lambda images: images[:4], set()),
    ],
    ids=["same", "appended", "two", "swapped", "changed", "fewer"],
)
def test_unchanged_images_keep_their_shards(tmp_path, change, written):
    """Of microstructures and of fields; the stores are those of a first import of the new file."""
    images = blobs(5, (8, 8, 8))
    stores = imported(tmp_path / "grown", images)
    allocate(*stores)
    solve_fields(*reversed(stores))
    before = [files(path) for path in stores]
    fresh = imported(tmp_path / "fresh", change(images))
    allocate(*fresh)
    solve_fields(*reversed(fresh))
    other = change(images)
    keeps = len(other) >= len(images) and np.array_equal(other[:4], images[:4])
    for make in (partial(imported, tmp_path / "grown", other), partial(allocate, *stores)):
        if not keeps:  # what was made is not removed unasked
            with pytest.raises(
                ValueError, match=r"holds \d (shards of other images|samples, more than 4); --replace removes the"
            ):
                make()
        make(replace=not keeps)
    solve_fields(*reversed(stores))
    for path, new, times in zip(stores, fresh, before, strict=True):
        xr.testing.assert_identical(open_dataset(path), open_dataset(new))
        assert shards_written(path, times) == written
        assert not verify(path, again=7).faults


def test_fields_of_images_that_changed_are_refused(tmp_path):
    """Until they are solved again; training and evaluation would learn and judge by other fields."""
    images = blobs(4, (8, 8, 8))
    cells, fields = imported(tmp_path, images)
    allocate(cells, fields)
    solve_fields(fields, cells)
    imported(tmp_path, images[[0, 1, 3, 2]], replace=True)
    for use in (load, partial(evaluate, load_model("cg"))):
        with pytest.raises(ValueError, match="belongs to other microstructures than"):
            use(cells, fields)


def test_labels_are_those_of_the_problem(tmp_path):
    """A file that lacks one of them is as good as another, and each label keeps its phase whatever the file."""
    values = np.array([0, 2, 3, 7])
    phases = [np.array([0, 1, 3])[blobs(1, (8, 8, 8))], np.array([0, 2, 3])[blobs(1, (8, 8, 8), seed=1)]]
    for labels in ([0, 2, 3, 7], [7, 0, 3, 2]):
        for name, phase in zip("ab", phases, strict=True):
            cells, fields = imported(tmp_path / name, values[phase], labels=labels, replace=True)
            np.testing.assert_array_equal(np.array(labels)[open_dataset(cells).phase], values[phase])
            assert open_dataset(cells).volume_fraction.shape == (1, 4)
            allocate(cells, fields, materials=4, replace=True)
            solve_fields(fields, cells)
            assert not verify(cells).faults
    materials = [Isotropic(young, 0.3) for young in YOUNG]
    as_labelled = np.array([1, 3, 2, 0])[phases[1]]
    truth = solve(as_labelled, materials, [1e-3, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(open_dataset(fields).strain, truth.strain.astype(np.float32))


def test_stores_of_different_labels_are_refused_together(tmp_path):
    """Label 2 is phase 2 of one file and phase 1 of the other."""
    train = imported(tmp_path / "train", blobs(2, (8, 8, 8)), split="train")
    test = imported(tmp_path / "test", np.array([0, 2, 3])[blobs(2, (8, 8, 8), seed=1)])
    for stores in (train, test):
        allocate(*stores)
        solve_fields(*reversed(stores))
    said = r"train/c.zarr, .*test/c.zarr: have the labels \[0, 1, 2\] and \[0, 2, 3\]: must have the same"
    pairs = [",".join(map(str, stores)) for stores in (train, test)]
    with pytest.raises(ValueError, match=said):
        cli.models.train(tmp_path / "model", pairs[:1], pairs[1:], "fln")
    valid = imported(tmp_path / "valid", blobs(2, (8, 8, 8), seed=2), split="valid")
    with pytest.raises(ValueError, match=said):  # two sets to learn
        cli.models.train(tmp_path / "model", pairs, [",".join(map(str, valid))], "rln-cg")
    assert not (tmp_path / "model").exists()
    _, domain = load(*train)
    save_model(tmp_path / "model", "fln", build("fln", 3, 1, domain.physics), [domain], {})
    model = load_model(tmp_path / "model")
    assert len(evaluate(model, *train)[0]) == 2
    for use in (partial(evaluate, model, *test), partial(export, tmp_path / "out", *test, [0], model)):
        with pytest.raises(ValueError, match=r"labels = \[0, 2, 3\]: this model was trained for \[0, 1, 2\]"):
            use()
    with pytest.raises(ValueError, match="other microstructures"):
        evaluate(model, train[0], test[1])


def test_a_stray_voxel_is_found(tmp_path):
    """In the message about phases and in that about labels."""
    images = np.array([0, 255])[blobs(3, (8, 8, 8), phases=2)]
    images[1, 2, 3, 4] = 127
    said = rf"label 0 \({(images == 0).sum()} voxels\), label 127 \(1 voxel, all in image 1\), label 255 \("
    with pytest.raises(ValueError, match=f"images.npy: has {said}.*: must have no label but labels = .0, 255."):
        imported(tmp_path, images, labels=[0, 255])
    assert {path.name for path in tmp_path.iterdir()} == {"images.npy"}
    cells, fields = imported(tmp_path, images)
    with pytest.raises(ValueError, match=rf"2 materials: .*c.zarr has 3 phases, {said}"):
        allocate(cells, fields, materials=2)


@pytest.mark.parametrize("labels", [[], [0, 1, 1], list(range(256))])
def test_labels_that_cannot_be(tmp_path, labels):
    with pytest.raises(ValueError, match=r"images.npy: labels = .*: must be 1 to 255 different integers"):
        imported(tmp_path, GOOD, labels=labels)
