"""Stores that were moved, linked, damaged, filled by several processes, or extended with a user's own arrays."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import call

from lspipe import Isotropic, open_dataset
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.evaluate import evaluate
from lspipe.models.files import load_model
from lspipe.store import Store
from lspipe.store.creation import save_examples
from lspipe.verify import repair, verify

MATERIALS = [Isotropic(120, 0.3), Isotropic(1200, 0.3)]
MOVED = "holds shards without receipts; move their receipts to"


def generate(cells, **changed):
    write_microstructures(cells, **{"count": 5, "n": 6, "seed": 7, "split": "test", "per_shard": 2} | changed)


def allocate(cells, fields, scheme="bbar", **changed):
    problem = Problem(MATERIALS, [1e-3, 0, 0, 0, 0, 0], scheme=scheme)
    create_fields(fields, cells, problem, **{"tol": 1e-3, "per_shard": 2} | changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "cells.zarr")
    allocate(folder / "cells.zarr", folder / "f.zarr")
    solve_fields(folder / "f.zarr", folder / "cells.zarr")
    return folder


@pytest.fixture
def stores(made, tmp_path):
    """5 microstructures of 6³ in shards of 2, and their fields."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made/cells.zarr", tmp_path / "made/f.zarr"


def content(*folders):
    """Every file in these folders, with the time when it was written."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def shards(path):
    """The files of the shards, and the receipts, of a store."""
    files = content(path, path.with_suffix(".receipts"))
    return {name: file for name, file in files.items() if re.search(r"/c/|/\d+\.json$", name)}


def test_a_link_names_the_store_that_it_leads_to(stores, tmp_path):
    """Whether the store or a folder above it is linked."""
    cells, fields = stores
    (tmp_path / "link.zarr").symlink_to(fields)
    (tmp_path / "results").symlink_to(fields.parent)
    before = content(fields.parent)
    for link in (tmp_path / "link.zarr", tmp_path / "results/f.zarr"):
        with pytest.raises(ValueError, match="holds 3 shards of a store with scheme = 'bbar'; --replace removes them"):
            allocate(cells, link, scheme="full")
        solve_fields(link, cells)
        assert content(fields.parent) == before
        assert not verify(link).faults
        kept = shards(fields)
        allocate(tmp_path / "results/cells.zarr", link)
        assert shards(fields) == kept
        assert not verify(fields).faults
        assert open_dataset(link).equals(open_dataset(fields))
        before = content(fields.parent)
    assert {entry.name for entry in tmp_path.iterdir()} == {"made", "link.zarr", "results"}


def test_a_store_made_through_links_is_found_from_its_true_place(stores, tmp_path):
    disk = tmp_path / "mnt/deep/disk"
    disk.mkdir(parents=True)
    (tmp_path / "run").symlink_to(disk)
    (tmp_path / "cells.zarr").symlink_to(stores[0])
    allocate(tmp_path / "cells.zarr", tmp_path / "run/f.zarr")
    solve_fields(tmp_path / "run/f.zarr", tmp_path / "cells.zarr")
    assert not verify(disk / "f.zarr").faults
    assert (disk / "f.receipts/2.json").is_file()


def test_a_link_to_nowhere_is_refused(stores, tmp_path):
    """The disk that it leads to is not mounted."""
    for link, path in {"f.zarr": "f.zarr", "results": "results/f.zarr"}.items():
        (tmp_path / link).symlink_to(tmp_path / "disk/f.zarr")
        with pytest.raises(
            ValueError, match=rf"{link} is a link to .*disk/f\.zarr, which does not exist; remove or mend the link"
        ):
            allocate(stores[0], tmp_path / path)
    assert not (tmp_path / "disk").exists()


def test_a_store_that_was_moved_with_its_receipts_is_not_solved_again(stores, tmp_path):
    cells, fields = stores
    before = list(shards(fields).values())
    for name in ("f.zarr", "f.receipts"):
        (tmp_path / "disk").mkdir(exist_ok=True)
        shutil.move(fields.parent / name, tmp_path / "disk" / name)
    fields.symlink_to(tmp_path / "disk/f.zarr")
    wanted = fields.parent / "f.receipts/1.json"
    message = f"{wanted}: the receipts of .*disk/f.zarr are in .*disk/f.receipts; make {wanted.parent} a link to it"
    with pytest.raises(ValueError, match=message):
        Store.open(fields).parse_shard(str(wanted))
    with pytest.raises(ValueError, match="shard = one: must be a number or a receipt"):
        Store.open(fields).parse_shard("one")
    wanted.parent.symlink_to(tmp_path / "disk/f.receipts")
    call("solve", cells, fields, wanted, "--workers", 1, cwd=tmp_path)
    solve_fields(fields, cells)
    allocate(cells, fields)
    assert list(shards(tmp_path / "disk/f.zarr").values()) == before


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", ["cells", "f"])
def test_a_store_that_was_moved_alone_is_refused(stores, tmp_path, name, linked):
    """Nothing is made again, and nothing is deleted, not even where another store is to replace it."""
    path, moved = stores[name == "f"], tmp_path / f"disk/{name}.zarr"
    (tmp_path / "disk").mkdir()
    shutil.move(path, moved)
    if linked:
        path.symlink_to(moved)
    else:
        (tmp_path / f"disk/{name}.receipts").mkdir()  # as Snakemake makes the folders of outputs
    here, before = path if linked else moved, content(moved)
    if name == "f":
        attempts = [lambda: allocate(stores[0], here), lambda: allocate(stores[0], here, scheme="full", replace=True)]
        attempts += [lambda: solve_fields(here, stores[0]), lambda: Store.open(here).check_whole()]
    else:
        attempts = [lambda: generate(here), lambda: generate(here, seed=8, replace=True)]
        attempts += [lambda: solve_fields(stores[1], here)]
    for attempt in [*attempts, lambda: repair(verify(here))]:
        with pytest.raises(ValueError, match=f"{MOVED} .*disk/{name}.receipts"):
            attempt()
    assert content(moved) == before
    shutil.copytree(path.with_suffix(".receipts"), tmp_path / f"disk/{name}.receipts", dirs_exist_ok=True)
    Store.open(here).check_whole()


def test_receipts_of_another_store_are_no_reason_to_solve_again(stores, tmp_path):
    """A store took the place of another, whose receipts stayed; or a bit of the attributes changed."""
    cells, fields = stores
    edit(fields / "zarr.json", lambda m: m["attributes"].update(tol=2e-3))
    before = content(fields)
    remedy = "run lspipe allocate to make the store again"
    with pytest.raises(ValueError, match=f"shard 0: receipt of another store; {remedy}"):
        solve_fields(fields, cells)
    assert content(fields) == before


def test_what_a_user_adds_to_a_store_stays(stores):
    cells, fields = stores
    group = zarr.open_group(fields)
    group.create_array("stress", shape=(5,), dtype="f8", dimension_names=["sample"])[:] = 1
    group.create_array("phase", shape=(5,), dtype="f8", dimension_names=["sample"])[:] = 2
    (fields / "notes.txt").write_text("mine")
    (fields / ".DS_Store").touch()
    kept = shards(fields)
    assert not verify(fields).faults
    (fields / "bound/c/1").unlink()
    repair(verify(fields))
    allocate(cells, fields)
    assert shards(fields).keys() == kept.keys()
    allocate(cells, fields, scheme="full", replace=True)
    assert (zarr.open_array(fields / "stress")[:] == 1).all()
    assert (zarr.open_array(fields / "phase")[:] == 2).all()
    assert (fields / "notes.txt").read_text() == "mine"
    assert (fields / ".DS_Store").exists()
    assert np.isnan(open_dataset(fields).strain).all()


def test_attributes_are_what_netcdf_has(stores):
    """Text, numbers, and lists of one of them: the attribute types of the netCDF-4 data model."""
    for path in stores:
        for data in (xr.open_zarr(path), open_dataset(path)):
            for name, value in data.attrs.items():
                kinds = {type(v) for v in (value if isinstance(value, list) else [value])}
                assert kinds in ({str}, {int}, {float}, {int, float}), name


def edit(file, change):
    text = json.loads(file.read_text())
    change(text)
    file.write_text(json.dumps(text))


def test_a_store_of_an_earlier_version_goes_on(stores):
    """It has mappings as attributes, no number of samples, no consolidated metadata, no mark among its receipts."""
    for path in stores:
        stated = Store.open(path).attributes
        del stated["samples"]
        edit(path / "zarr.json", lambda m, stated=stated: m.update(attributes=stated, consolidated_metadata=None))
        (path.with_suffix(".receipts") / "description").unlink()
    cells, fields = stores
    kept = shards(fields)
    assert not verify(fields).faults
    solve_fields(fields, cells)
    generate(cells, count=6)
    allocate(cells, fields)
    assert shards(fields).items() <= {k: v for k, v in kept.items() if "/2" not in k}.items()


def attribute(**values):
    return lambda m: m["attributes"].update(values)


def other_codec(metadata):
    metadata["codecs"][0]["configuration"]["codecs"][0]["configuration"]["endian"] = "big"


def other_chunks(metadata):
    metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = 1


DAMAGES = {
    "zero": ("zarr.json", attribute(samples_per_shard=0), "samples_per_shard = 0"),
    "negative": ("zarr.json", attribute(samples_per_shard=-4), "samples_per_shard = -4"),
    "text": ("zarr.json", attribute(samples_per_shard="2"), "samples_per_shard = '2'"),
    "missing": ("zarr.json", lambda m: m["attributes"].pop("samples_per_shard"), "samples_per_shard = .* required"),
    "huge": ("zarr.json", attribute(samples=10**12), "shape = "),
    "no JSON in it": ("zarr.json", attribute(materials="[{"), "materials: is damaged"),
    "format": ("zarr.json", lambda m: m.update(zarr_format=2), "zarr_format = 2"),
    "consolidated": ("zarr.json", lambda m: m["consolidated_metadata"].update(metadata=[]), "metadata"),
    "list": ("zarr.json", b"[]", r"its text = \[\]"),
    "empty": ("zarr.json", b"", "its text"),
    "no UTF-8": ("zarr.json", b"\xff\xfe", "its text"),
    "codec": ("strain/zarr.json", other_codec, "codecs = .*big.*; lspipe writes .*little"),
    "long": ("strain/zarr.json", lambda m: m.update(shape=[10**12, *m["shape"][1:]]), "shape = .1000000000000, 6, 6"),
    "short": ("strain/zarr.json", lambda m: m.update(shape=[5]), "is damaged: "),
    "chunks": ("strain/zarr.json", other_chunks, "chunk_grid = .*1, 6, 6, 6, 6.*; lspipe writes .*2, 6, 6, 6, 6"),
    "fill": ("strain/zarr.json", lambda m: m.update(fill_value=0), "fill_value = 0.0; lspipe writes 'NaN'"),
    "scale": ("strain/zarr.json", attribute(scale_factor=2), "attributes = .'scale_factor': 2"),
    "null": ("strain/zarr.json", b"null", "is damaged: "),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metadata_are_named_and_made_again(stores, damage):
    cells, fields = stores
    truth, kept = open_dataset(fields).load(), shards(fields)
    name, change, said = DAMAGES[damage]
    (fields / name).write_bytes(change) if isinstance(change, bytes) else edit(fields / name, change)
    remedy = "run lspipe allocate to make the store again; whole shards are kept"
    line = rf"^{fields}/({name}|strain/zarr.json): .*{said}.*; {remedy}$"
    for attempt in (
        lambda: repair(verify(fields)),
        lambda: solve_fields(fields, cells),
        lambda: open_dataset(fields),
        lambda: evaluate(load_model("cg"), cells, fields),
    ):
        with pytest.raises(ValueError, match=line) as raised:
            attempt()
        assert "\n" not in str(raised.value)
    allocate(cells, fields)
    assert not verify(fields).faults
    assert shards(fields) == kept
    assert open_dataset(fields).equals(truth)


def test_a_trillion_samples_end_the_check(stores):
    """Every array states them, so that the arrays agree."""
    cells, _ = stores
    truth = open_dataset(cells).load()
    for file in cells.glob("*/zarr.json"):
        edit(file, lambda m: m.update(shape=[10**12, *m["shape"][1:]]))
        group = json.loads((cells / "zarr.json").read_text())
        group["consolidated_metadata"]["metadata"][file.parent.name]["shape"][0] = 10**12
        (cells / "zarr.json").write_text(json.dumps(group))
    ((check, _, said),) = verify(cells).faults
    assert check == "attributes and arrays"
    assert "shape = (1000000000000, 6, 6, 6); lspipe writes (5, 6, 6, 6)" in said
    generate(cells)
    assert open_dataset(cells).equals(truth)


@pytest.mark.parametrize(
    ("mend", "data"),
    [(m, d) for m in ("repair", "solve") for d in (b"[]", None, "samples")]
    + [("allocate", d) for d in (b"", b"null", b"\xff", None, "samples", "sha256", "store")],
)
def test_a_damaged_receipt_costs_its_shard(stores, data, mend):
    cells, fields = stores
    truth, kept = open_dataset(fields).load(), shards(fields)
    receipt = fields.with_suffix(".receipts") / "1.json"
    if isinstance(data, bytes):
        receipt.write_bytes(data)
    elif data is None:
        edit(receipt, lambda m: m.update(samples=[2, "4"]))
    else:  # a bit of the key
        receipt.write_text(receipt.read_text().replace(f'"{data}"', f'"{data[:-1]}{chr(ord(data[-1]) ^ 1)}"'))
    verdict = verify(fields, again=0)
    assert verdict.faults == [("receipts and checksums", 1, "unreadable receipt")]
    if mend == "repair":
        repair(verdict)
    elif mend == "allocate":
        allocate(cells, fields)
    if mend != "repair":
        solve_fields(fields, cells)
    assert not verify(fields).faults
    assert open_dataset(fields).equals(truth)
    assert {k: v for k, v in shards(fields).items() if "/1" not in k} == {
        k: v for k, v in kept.items() if "/1" not in k
    }


def test_stores_are_made_by_one_process_at_a_time(stores):
    """Four of them start together, again and again; what is solved outlives it."""
    cells, fields = stores
    kept = shards(fields)
    program = f"""if True:
        import sys
        from pathlib import Path
        from lspipe import Isotropic
        from lspipe.cell.problem import Problem
        from lspipe.dataset import create_fields
        problem = Problem([Isotropic(120, 0.3), Isotropic(1200, 0.3)], [1e-3, 0, 0, 0, 0, 0])
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                create_fields(Path({str(fields)!r}), Path({str(cells)!r}), problem, tol=1e-3, per_shard=2, replace=True)
                print("made", flush=True)
            except Exception as error:
                print(repr(error), flush=True)"""
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    makers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        assert {maker.stdout.readline() for maker in makers} == {"ready\n"}
        said = []
        for _ in range(10):
            for maker in makers:
                maker.stdin.write("go\n")
                maker.stdin.flush()
            said += [maker.stdout.readline() for maker in makers]
            assert shards(fields) == kept
    finally:
        for maker in makers:
            maker.kill()
            maker.wait()
    refused = f"ValueError('{fields}: another process is writing here; wait until it has ended')\n"
    assert set(said) == {"made\n", refused}
    assert not verify(fields).faults


class Death(BaseException):
    """Ends a call as SIGKILL ends a process: nothing that handles errors takes it for one."""


def test_a_replacement_that_dies_leaves_no_shard_that_passes_for_another(stores, made, monkeypatch):
    """Dies before each file that is put in its place or removed; the same call then makes the store."""
    cells, fields = stores
    finished, last = False, 0
    while not finished:
        shutil.rmtree(fields)
        shutil.rmtree(fields.with_suffix(".receipts"))
        shutil.copytree(made, fields.parent, dirs_exist_ok=True)
        steps = itertools.count()

        def die(call, *arguments, steps=steps, last=last, **options):
            if next(steps) >= last:
                raise Death
            return call(*arguments, **options)

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "rmdir"):
                patch.setattr(os, name, partial(die, getattr(os, name)))
            try:
                allocate(cells, fields, scheme="full", replace=True)
                finished = True
            except Death:
                last += 1
        if (fields / "zarr.json").exists():
            data = Store.open(fields)
            done = [k for k in data.shards if data.find_fault(k) is None]
            assert not done or data.attributes["scheme"] == "bbar"
        allocate(cells, fields, scheme="full", replace=True)
        assert [said for *_, said in verify(fields).faults] == ["no receipt"] * 3
        assert not any(shards(fields))
    assert last > 20


def test_examples_replace_earlier_ones_alone(tmp_path):
    """What a writer left that was killed goes with the next one; what a user put there is not removed."""
    data = xr.Dataset({name: (("example", "x"), np.eye(2)) for name in ("truth", "iterates")}, attrs={"passes": 1})
    path = tmp_path / "ex.zarr"
    save_examples(path, data)
    shutil.copytree(path, tmp_path / ".ex.zarr.new")
    save_examples(path, data + 1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".ex.zarr.lock", "ex.zarr"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xr.open_zarr(path).equals(data + 1)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt: is no part of the examples"):
        save_examples(path, data)
    assert (path / "notes.txt").exists()
    assert open_dataset(path).equals(data + 1)
