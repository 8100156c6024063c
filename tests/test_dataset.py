"""Stores written through Dask: complete, readable by xarray and zarr as they are, equal to the solver."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import xarray as xr
import zarr
from maps import engine

from lspipe import Isotropic, generate, open_dataset, solve
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged, solve_problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.store import Store

MATERIALS = [Isotropic(120, 0.3), Isotropic(1200, 0.2)]
LOAD = [1e-3, 0, 0, 0, 0, 5e-4]


@pytest.fixture
def stores(tmp_path):
    """11 microstructures of 6³ in shards of 4, and room for their fields."""
    cells, fields = tmp_path / "micro.zarr", tmp_path / "c/test.zarr"
    write_microstructures(cells, count=11, n=6, seed=7, split="test", per_shard=4)
    create_fields(fields, cells, Problem(MATERIALS, LOAD, scheme="full"), tol=1e-6, per_shard=4)
    return cells, fields


def test_fields_are_those_of_the_solver(stores):
    cells, fields = stores
    receipts = solve_fields(fields, cells)
    phase = generate(11, 6, 7, "test").phase
    truth = solve(phase, MATERIALS, LOAD, scheme="full", tol=1e-6)
    data = open_dataset(fields)
    np.testing.assert_array_equal(open_dataset(cells).phase, phase)
    np.testing.assert_array_equal(data.strain, truth.strain.astype(np.float32))
    for name in ("iterations", "residual", "bound"):
        np.testing.assert_array_equal(data[name], getattr(truth, name))
    for k, (first, last) in enumerate([(0, 4), (4, 8), (8, 11)]):
        receipt = json.loads((fields.parent / f"test.receipts/{k}.json").read_text())
        assert receipt == receipts[k]
        assert receipt["samples"] == [first, last]
        assert receipt["iterations"]["mean"] == truth.iterations[first:last].mean()
        assert receipt["bound_max"] == truth.bound[first:last].max()
        assert receipt["not_converged"] == []
        for file, digest in receipt["sha256"].items():
            assert hashlib.sha256((fields / file).read_bytes()).hexdigest() == digest
        assert {file.split("/")[0] for file in receipt["sha256"]} == {"strain", "iterations", "residual", "bound"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"materials": MATERIALS, "strain": [1e-30, 0, 0, 0, 0, 0]},
            "strain",
        ),
        (
            {"materials": [Isotropic(1e20, 0.3)] * 2, "strain": LOAD},
            "stiffness",
        ),
    ],
)
def test_what_single_precision_cannot_hold_is_refused(stores, changed, message):
    cells, fields = stores
    with pytest.raises(ValueError, match=f"^{message} = .*: must lie between 1e-15 and 1e.15 in size"):
        create_fields(fields.with_name("new.zarr"), cells, Problem(**changed), tol=1e-6, per_shard=4)
    assert not fields.with_name("new.zarr").exists()


def test_a_store_that_no_solution_would_satisfy_is_refused(stores):
    cells, fields = stores
    with pytest.raises(ValueError, match=r"^tol = 0\.0: must lie in \(0, 1\), or no solution would reach it"):
        create_fields(fields.with_name("new.zarr"), cells, Problem(MATERIALS, LOAD), tol=0, per_shard=4)
    assert not fields.with_name("new.zarr").exists()


@pytest.mark.parametrize("old", ["cells", "fields"])
def test_stores_of_another_data_version_are_refused(stores, old):
    """Cells of one version and fields of another may be of the same seed, and not belong together."""
    cells, fields = stores
    path = {"cells": cells, "fields": fields}[old]
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"data_version": 3', '"data_version": 2'))
    message = f"^{path}: data_version = 2: this lspipe reads and writes 3; run lspipe .* to make the store again"
    with pytest.raises(ValueError, match=message):
        solve_fields(fields, cells)
    if old == "cells":
        with pytest.raises(ValueError, match=message):
            create_fields(fields, cells, Problem(MATERIALS, LOAD, scheme="full"), tol=1e-6, per_shard=4)


def test_a_device_has_one_worker_that_solves_whole_shards(stores, monkeypatch):
    """On PyTorch's engine, here on the CPU."""
    cells, fields = stores
    asked = []

    def on_device(phase, problem, *, device, **options):
        asked.append((device, len(phase)))
        return solve_problem(phase, problem, **options)

    monkeypatch.setattr("lspipe.dataset.check_device", lambda device: None)
    monkeypatch.setattr("lspipe.solving.BATCH", 2)
    monkeypatch.setattr("lspipe.solving.solve_problem", on_device)
    monkeypatch.setattr("lspipe.cell.solver.build_operator", lambda *a: engine("torch", *a[:2]))
    solve_fields(fields, cells, workers=2, device="cuda:1")
    assert sorted(asked) == [("cuda:1", 3), ("cuda:1", 4), ("cuda:1", 4)]
    monkeypatch.undo()
    truth = solve(generate(11, 6, 7, "test").phase, MATERIALS, LOAD, scheme="full", tol=1e-9)
    np.testing.assert_allclose(open_dataset(fields).strain, truth.strain, rtol=0, atol=1e-7)


def test_shards_are_solved_apart_and_unwritten_samples_show(stores):
    cells, fields = stores
    assert [r["samples"] for r in solve_fields(fields, cells, [1])] == [[4, 8]]
    written = np.isfinite(open_dataset(fields).strain).all(("component", "x", "y", "z")).values
    assert written.tolist() == [False] * 4 + [True] * 4 + [False] * 3
    part = open_dataset(fields).strain[4:8].values
    solve_fields(fields, cells)
    np.testing.assert_array_equal(open_dataset(fields).strain[4:8], part)
    assert np.isfinite(open_dataset(fields).strain).all()


@pytest.mark.filterwarnings("error")
def test_stores_open_with_plain_xarray_and_zarr(stores):
    cells, fields = stores
    solve_fields(fields, cells)
    plain = xr.open_zarr(fields)
    assert plain.strain.dims == ("sample", "component", "x", "y", "z")
    assert plain.attrs["components"] == ["xx", "yy", "zz", "yz", "xz", "xy"]
    assert plain.attrs["shear"] == "tensor"
    assert json.loads(plain.attrs["materials"]) == [
        {"kind": "isotropic", "young": 120, "poisson": 0.3},
        {"kind": "isotropic", "young": 1200, "poisson": 0.2},
    ]
    array = zarr.open_group(fields, mode="r")["strain"]
    assert (array.chunks, array.shards) == ((1, 6, 6, 6, 6), (4, 6, 6, 6, 6))
    mean = open_dataset(fields).strain.mean(("x", "y", "z"))
    np.testing.assert_allclose(mean.sel(component="xy"), LOAD[5], rtol=1e-5)
    fractions = open_dataset(cells).volume_fraction
    np.testing.assert_allclose(fractions[:, 0], (open_dataset(cells).phase == 0).mean(("x", "y", "z")))


def test_another_store_replaces_what_is_solved_only_when_asked(stores):
    cells, fields = stores
    solve_fields(fields, cells)
    before = open_dataset(fields).load()
    other = {"problem": Problem(MATERIALS, LOAD), "tol": 1e-6, "per_shard": 8}
    with pytest.raises(ValueError, match="holds 3 shards of a store with samples_per_shard = 4, scheme = 'full'"):
        create_fields(fields, cells, **other)
    xr.testing.assert_identical(open_dataset(fields), before)
    assert Store.open(fields).find_fault(2) is None
    create_fields(fields, cells, **other, replace=True)
    assert open_dataset(fields).attrs["scheme"] == "bbar"
    assert np.isnan(open_dataset(fields).strain).all()


def times(path):
    """What changes when a file is written again."""
    return {str(f.relative_to(path)): f.stat().st_mtime_ns for f in path.glob("*/c/**/*") if f.is_file()}


@pytest.mark.parametrize("count", [12, 17, 9, 3])
def test_another_number_of_samples_keeps_the_shards_that_it_shares(stores, tmp_path, count):
    """And gives the same stores as to begin with that number. Fewer samples need ``replace``: others are removed."""
    solve_fields(stores[1], stores[0])
    before = [times(path) for path in stores]
    fewer = {"replace": True} if count < 11 else {}
    if fewer:
        with pytest.raises(ValueError, match=f"micro.zarr: holds 11 samples, more than {count}; --replace removes"):
            write_microstructures(stores[0], count=count, n=6, seed=7, split="test", per_shard=4)
        assert [times(path) for path in stores] == before
    fresh = tmp_path / "fresh/micro.zarr", tmp_path / "fresh/c/test.zarr"
    for cells, fields in (stores, fresh):
        write_microstructures(cells, count=count, n=6, seed=7, split="test", per_shard=4, **fewer)
        create_fields(fields, cells, Problem(MATERIALS, LOAD, scheme="full"), tol=1e-6, per_shard=4, **fewer)
        solve_fields(fields, cells)
    for path, other, files in zip(stores, fresh, before, strict=True):
        xr.testing.assert_identical(open_dataset(path), open_dataset(other))
        changed = {int(file.split("/")[2]) for file, _ in files.items() ^ times(path).items()}
        same = {k for k in range(3) if min(4 * k + 4, 11) == min(4 * k + 4, count)}
        assert changed == set(range(-(-max(count, 11) // 4))) - same
        assert len(list(path.with_suffix(".receipts").glob("*.json"))) == -(-count // 4)


def test_work_for_a_store_that_was_replaced_is_not_written(stores):
    """A job outlives the workflow that started it, and the configuration is another one by now."""
    cells, fields = stores
    solve_fields(fields, cells, [0])
    orphan = Store.open(fields)
    arrays = {name: array[0:4] for name, array in orphan.arrays.items()}
    other = {"problem": Problem(MATERIALS, LOAD), "tol": 1e-6, "per_shard": 4}
    create_fields(fields, cells, **other, replace=True)
    with pytest.raises(ValueError, match="was replaced while shard 0 was computed; run"):
        orphan.write(0, arrays, {})
    assert np.isnan(open_dataset(fields).strain).all()


def test_a_missed_tolerance_is_named_in_warning_and_receipt(stores, monkeypatch):
    cells, fields = stores
    monkeypatch.setattr("lspipe.solving.solve_problem", partial(solve_problem, max_iterations=9))
    with pytest.warns(NotConverged, match=r"samples \[.*\] did not reach"):
        receipts = solve_fields(fields, cells)
    late = np.flatnonzero(open_dataset(fields).residual > 1e-6).tolist()
    assert [i for receipt in receipts for i in receipt["not_converged"]] == late
    assert 0 < len(late) < 11


def test_part_of_a_shard_is_refused(stores):
    cells, fields = stores
    data = Store.open(fields)
    part = {name: np.zeros((3, *array.shape[1:]), array.dtype) for name, array in data.arrays.items()}
    with pytest.raises(ValueError, match=r"shard 1 has the shape \(3.*\); must be \(4"):
        data.write(1, part, {})
    assert not data.received
    with pytest.raises(ValueError, match=r"shard = 3: .* has shards 0 to 2"):
        solve_fields(fields, cells, [0, 3])


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zarr: is no store"):
        open_dataset(tmp_path / "nowhere.zarr")


def test_nothing_but_a_store_of_its_kind_is_replaced(stores, tmp_path):
    cells, fields = stores
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.tex").write_text("years")
    for path in (tmp_path / "precious", fields):
        with pytest.raises(ValueError, match="holds something else already and is not replaced"):
            write_microstructures(path, count=1, n=6, seed=0, split="test", per_shard=4)
    with pytest.raises(ValueError, match="holds something else already"):
        create_fields(cells, cells, Problem(MATERIALS, LOAD, scheme="full"), tol=1e-6, per_shard=4)
    assert (tmp_path / "precious/thesis.tex").read_text() == "years"
    assert "phase" in open_dataset(cells)


def test_fields_of_other_microstructures_are_refused(stores, tmp_path):
    cells, fields = stores
    for i, other in enumerate(({"n": 7}, {"count": 10}, {"seed": 8}, {"split": "valid"})):
        path = tmp_path / f"{i}.zarr"
        write_microstructures(path, **{"count": 11, "n": 6, "seed": 7, "split": "test", "per_shard": 4} | other)
        with pytest.raises(ValueError, match="belongs to other microstructures"):
            solve_fields(fields, path)
    with pytest.raises(ValueError, match="must be a store of microstructures and one of fields"):
        solve_fields(cells, fields)


def test_arrays_of_somebody_else_are_not_replaced(stores, tmp_path):
    """By the names of entries alone it could be what is left of a store."""
    zarr.create_array(tmp_path / "data.zarr/strain", shape=(4,), dtype="f8")[:] = 1
    with pytest.raises(ValueError, match="holds something else already"):
        create_fields(tmp_path / "data.zarr", stores[0], Problem(MATERIALS, LOAD, scheme="full"), tol=1e-6, per_shard=4)
    assert (zarr.open_array(tmp_path / "data.zarr/strain")[:] == 1).all()


def test_stores_end_in_zarr(stores, tmp_path):
    """What stands before it names the receipts: c1.5 and c1.10 would share them."""
    with pytest.raises(ValueError, match=r"c1\.5: must end in \.zarr"):
        write_microstructures(tmp_path / "c1.5", count=1, n=6, seed=0, split="test", per_shard=4)
