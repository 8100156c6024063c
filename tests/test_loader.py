"""The loader: a set from memory and from the disk holds the same samples, each once an epoch, in an order that the seed
decides."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lspipe import Cubic, Isotropic, Void, load_model, open_dataset
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.loader import Samples, Stream, check_apart, load
from lspipe.microstructure import Gaussian, Polycrystal
from lspipe.store import Store
from lspipe.train import train

COUNT, PER_SHARD = 22, 5
LOAD = [2e-3, 0, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """22 microstructures in shards of 8, and their fields in shards of 5."""
    folder = tmp_path_factory.mktemp("stores")
    cells, fields = folder / "micro.zarr", folder / "fields.zarr"
    write_microstructures(cells, count=COUNT, n=8, seed=0, split="train", per_shard=8)
    materials = [Isotropic(120, 0.3), Isotropic(1200, 0.3)]
    create_fields(fields, cells, Problem(materials, LOAD, scheme="bbar"), tol=1e-3, per_shard=PER_SHARD)
    solve_fields(fields, cells)
    return cells, fields


@pytest.fixture(scope="module")
def truth(stores):
    cells, fields = map(open_dataset, stores)
    return cells.phase.values, (fields.strain[:, :1] / np.float32(LOAD[0])).values


BYTES = COUNT * 8**3 * 5


@pytest.fixture(params=[BYTES, BYTES - 1], ids=["memory", "disk"])
def samples(request, stores):
    loaded, domain = load(*stores, request.param)
    assert isinstance(loaded, Samples if request.param == BYTES else Stream)
    assert loaded.total == COUNT
    assert domain.strain == tuple(LOAD)
    return loaded


@pytest.mark.parametrize("size", [1, 4, 5, 7, 30])
def test_in_order(samples, truth, size):
    parts = list(samples.batches(size))
    assert [len(p.y) for p in parts] == [size] * (COUNT // size) + [COUNT % size] * (COUNT % size > 0)
    for name, expected in zip(("phase", "y"), truth, strict=True):
        np.testing.assert_array_equal(torch.cat([getattr(part, name) for part in parts]), expected)


@pytest.mark.parametrize("memory", [COUNT * 8**3 * 25, COUNT * 8**3 * 25 - 1], ids=["memory", "disk"])
def test_all_components(stores, memory):
    loaded, _ = load(*stores, memory, "all")
    assert isinstance(loaded, Samples) == (memory == COUNT * 8**3 * 25)
    y = torch.cat([part.y for part in loaded.batches(5)])
    fields = open_dataset(stores[1])
    np.testing.assert_array_equal(y, fields.strain / np.float32(LOAD[0]))
    assert loaded.channels == 6
    with pytest.raises(ValueError, match="components = 'yy': must be first or all"):
        load(*stores, components="yy")


def numbers(parts, truth):
    """Which sample each is; its phase and its strain must belong together."""
    found = []
    for phase, y in (pair for part in parts for pair in zip(part.phase, part.y, strict=True)):
        (i,) = np.flatnonzero((truth[1] == y.numpy()).all(axis=(1, 2, 3, 4)))
        np.testing.assert_array_equal(phase, truth[0][i])
        found.append(int(i))
    return found


@pytest.mark.parametrize("size", [4, 5, 7, 30])
def test_shuffled(samples, truth, size):
    epochs = [list(samples.batches(size, order=[0, epoch])) for epoch in (0, 1, 0)]
    assert [len(p.y) for p in epochs[0]] == [size] * (COUNT // size) + [COUNT % size] * (COUNT % size > 0)
    first, second, again = (numbers(parts, truth) for parts in epochs)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first == again != second
    assert first != sorted(first)


def test_a_stream_mixes_shards_and_what_is_in_them(stores, truth):
    order = numbers(load(*stores, 0)[0].batches(4, order=[1]), truth)
    shards = [i // PER_SHARD for i in order]
    runs = [shard for i, shard in enumerate(shards) if i == 0 or shard != shards[i - 1]]
    assert sorted(runs) == list(range(5))
    assert runs != sorted(runs)
    inside = [[i for i in order if i // PER_SHARD == shard] for shard in runs]
    assert any(run != sorted(run) for run in inside)


@pytest.mark.parametrize("memory", [0, np.inf], ids=["streamed", "preloaded"])
def test_broken_shards_are_named(stores, tmp_path, memory):
    """A flipped bit reads as any other strain."""
    for path in stores:
        for folder in (path, path.with_suffix(".receipts")):
            shutil.copytree(folder, tmp_path / folder.name)
    cells, fields = (tmp_path / path.name for path in stores)
    (file,) = (fields / "strain/c/2").rglob("0/0/0/0")
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"fields\.zarr: shard 2: .* checksum differs; run lspipe verify --repair"):
        load(cells, fields, memory)
    stream, _ = load(*stores, 0)
    shutil.rmtree(fields / "strain/c/2")
    lost = Stream(stream.cells, Store.open(fields))
    with pytest.raises(ValueError, match=r"samples \[10, 11, 12, 13, 14\] are not written"):
        list(lost.batches(4))


def test_sets_that_share_samples_are_refused(stores, tmp_path):
    for name, changed in {
        "part.zarr": {"count": 3},
        "split.zarr": {"split": "valid"},
        "seed.zarr": {"seed": 1},
    }.items():
        made = {"count": COUNT, "n": 8, "seed": 0, "split": "train", "per_shard": 8} | changed
        write_microstructures(tmp_path / name, **made)
    with pytest.raises(ValueError, match="share 3 samples"):
        check_apart(stores[0], tmp_path / "part.zarr")
    check_apart(stores[0], tmp_path / "split.zarr")
    check_apart(stores[0], tmp_path / "seed.zarr")


def test_training_from_the_disk(stores, tmp_path):
    """Validation from the disk chooses the same weights; a seed decides those that are trained from it."""
    recipe = {"architecture": "fln", "seed": 0, "epochs": 1, "batch": 4, "learning_rate": 2e-3, "device": "cpu"}
    whole, stream = ([load(*stores, memory)] for memory in (np.inf, 0))
    for folder, sets in {"a": (whole, whole), "b": (whole, stream), "c": (stream, whole), "d": (stream, whole)}.items():
        train(tmp_path / folder, *sets, **recipe)
    a, b, c, d = (load_file(tmp_path / f / "model.safetensors") for f in "abcd")
    assert all(torch.equal(a[k], b[k]) and torch.equal(c[k], d[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


PULLED = {"strain": (1e-3, *[None] * 5), "stress": (None, *[0.0] * 5)}
COPPER, CERAMIC = Cubic(168.4, 121.4, 75.4), Isotropic(300, 0.2, expansion=8e-6)
CELLS = {
    "grains": (Polycrystal(grains=4, fractions=(0.5, 0.5)), (6, 5, 4), Problem((COPPER, CERAMIC), **PULLED)),
    "voids": (Gaussian(), (8, 8, 8), Problem((Void(), CERAMIC), (0.0, 0.0, 0.0, 0.0, 1e-3, 0.0))),
    "heat": (Gaussian(), (8, 6, 1), Problem((COPPER, CERAMIC), [None] * 6, [0.0] * 6, temperature=100)),
}


@pytest.mark.parametrize("kind", CELLS)
def test_any_cells_and_loads_train_rln_cg(kind, tmp_path):
    """Samples on the disk are those in memory; the prediction is better than plain CG and within its bound."""
    generator, grid, problem = CELLS[kind]
    sets = []
    for split in ("train", "valid"):
        pair = tmp_path / f"{split}.zarr", tmp_path / f"{split}-fields.zarr"
        write_microstructures(pair[0], count=5, n=grid, seed=0, split=split, per_shard=2, generator=generator)
        create_fields(pair[1], pair[0], problem, tol=1e-7, per_shard=2)
        solve_fields(pair[1], pair[0])
        sets.append([load(*pair, components="all")])
    (whole, domain), (stream, _) = sets[0][0], load(tmp_path / "train.zarr", tmp_path / "train-fields.zarr", 0, "all")
    for mine, theirs in zip(whole.batches(3), stream.batches(3), strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    recipe = {"seed": 0, "epochs": 2, "batch": 3, "learning_rate": 3e-3, "device": "cpu"}
    train(tmp_path / "model", *sets, **recipe, architecture="rln-cg")
    phase, joined = whole.join(domain)
    learned, plain = (
        load_model(m).predict_problem(phase.numpy(), joined, passes=3) for m in (tmp_path / "model", "cg")
    )
    exact = open_dataset(tmp_path / "train-fields.zarr").strain.values
    off = joined.compute_energy(phase.numpy(), learned.strain - exact)
    assert (off < joined.compute_energy(phase.numpy(), plain.strain - exact)).all()
    assert (np.sqrt(off / joined.compute_energy(phase.numpy(), learned.strain)) <= learned.bound + 1e-5).all()
    if kind == "voids":
        train(tmp_path / "fln", *sets, **recipe | {"epochs": 1}, architecture="fln")
        strain = load_model(tmp_path / "fln").predict_problem(phase.numpy(), joined).strain
        np.testing.assert_array_equal(np.isnan(strain), np.isnan(exact))
        return
    refused = {"grains": "architecture = 'fln': needs phases, not grains; use rln-cg", "heat": "strain = .* rln-cg"}
    with pytest.raises(ValueError, match=refused[kind]):
        train(tmp_path / "fln", *sets, **recipe, architecture="fln")
