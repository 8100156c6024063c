"""Stores of effective properties: they resume, are verified, and their table is that of the library."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lspipe
from lspipe.cell.problem import Problem
from lspipe.dataset import create_effective, solve_fields, write_microstructures
from lspipe.homogenization import tabulate_effective
from lspipe.microstructure import read_generator
from lspipe.store import Store
from lspipe.verify import repair, verify

PAIR = (lspipe.Isotropic(120, 0.3, expansion=1e-5), lspipe.Isotropic(1200, 0.2))
COPPER = {"c11": 168.4, "c12": 121.4, "c44": 75.4}


def make(folder, materials=PAIR, tol=1e-3, **options):
    """A store of the effective properties of five cells of 6³ voxels in shards of two."""
    cells, path = folder / "cells.zarr", folder / "effective.zarr"
    write_microstructures(cells, count=5, n=6, seed=3, split="test", per_shard=2, **options)
    problem = Problem(materials, (0.0,) * len(materials[0].physics.components))
    create_effective(path, cells, problem, tol=tol, per_shard=2)
    return cells, path


def test_an_interrupted_run_goes_on_and_keeps_what_is_done(tmp_path):
    cells, path = make(tmp_path)
    solve_fields(path, cells, [0])
    first = (tmp_path / "effective.receipts/0.json").read_bytes()
    (path / "stiffness/c/1/0").mkdir(parents=True)
    (path / "stiffness/c/1/0/0").write_bytes(b"the beginning of a shard")
    with pytest.raises(ValueError, match="shard 1: no receipt"):
        tabulate_effective(path)
    create_effective(path, cells, Problem(PAIR, (0.0,) * 6), tol=1e-3, per_shard=2)
    solve_fields(path, cells)
    assert (tmp_path / "effective.receipts/0.json").read_bytes() == first
    assert not verify(path).faults
    with pytest.raises(ValueError, match=r"holds 3 shards of a store with tol = 0\.001; --replace removes them"):
        create_effective(path, cells, Problem(PAIR, (0.0,) * 6), tol=1e-4, per_shard=2)


def test_the_table_is_that_of_the_library(tmp_path):
    """C is the mean stress of a solution to 1e-8, and lies within each interval; fractions and bounds are counted."""
    cells, path = make(tmp_path)
    solve_fields(path, cells)
    table, phase = tabulate_effective(path), Store.open(cells).arrays["phase"][:]
    for j, load in enumerate(np.diag([1, 1, 1, 0.5, 0.5, 0.5])):
        stress = lspipe.solve(phase, PAIR, load, tol=1e-8).stress.mean(axis=(2, 3, 4))
        for i in range(j + 1):
            name, slack = f"C{i + 1}{j + 1}", 1e-6
            assert (table[f"{name}_low"] - slack <= stress[:, i]).all(), name
            assert (stress[:, i] <= table[f"{name}_high"] + slack).all(), name
    f = phase.mean(axis=(1, 2, 3))
    assert_allclose(table["f1"], f)
    K = np.array([120 / 3 / 0.4, 1200 / 3 / 0.6])
    assert_allclose(table["K_voigt"], (1 - f) * K[0] + f * K[1])
    assert_allclose(table["K_reuss"], 1 / ((1 - f) / K[0] + f / K[1]))
    alpha = lspipe.effective_expansion(phase, PAIR)
    assert_allclose(table[[f"a{k}" for k in range(1, 7)]], alpha, atol=1e-10)
    assert table["converged"].all()
    assert (table["gap"] <= 1e-3).all()


@pytest.mark.parametrize(
    ("materials", "generator", "present", "absent"),
    [
        ((lspipe.Conductor(1), lspipe.Conductor(10)), {}, {"k", "k_low", "k33", "k_hs_high"}, {"K", "E_x", "a1"}),
        ((lspipe.Isotropic(1, 0.3), lspipe.Void()), {}, {"K_high", "G_hs_high"}, {"a1"}),
        ((lspipe.Cubic(**COPPER),), {"kind": "polycrystal", "grains": 5}, {"G_hs_low", "K_voigt"}, {"f1"}),
    ],
    ids=["conduction", "voids", "polycrystal"],
)
def test_every_kind_of_cell_has_its_table(tmp_path, materials, generator, present, absent):
    options = {"generator": read_generator(generator)} if generator else {}
    cells, path = make(tmp_path, materials, **options)
    solve_fields(path, cells)
    table = tabulate_effective(path)
    assert present <= {*table}
    assert not absent & {*table}
    modulus = "k" if "k" in table else "K"
    assert (table[f"{modulus}_reuss"] <= table[f"{modulus}_high"] * (1 + 1e-9)).all()
    assert (table[f"{modulus}_high"] <= table[f"{modulus}_voigt"] * 1.001).all()
    if generator:  # the bounds of Hashin & Shtrikman (1962) for copper
        assert_allclose(table[["G_hs_low", "G_hs_high"]], [[45.96, 49.45]] * 5, atol=5e-3)
    assert not verify(path, again=5).faults


def test_verify_finds_values_that_were_written_wrong(tmp_path):
    cells, path = make(tmp_path)
    solve_fields(path, cells)
    data = Store.open(path)
    for shard, changes in ((0, {"upper": 0.9}), (1, dict.fromkeys(("stiffness", "lower", "upper"), 1.01))):
        arrays = {name: array[slice(*data.samples(shard))] for name, array in data.arrays.items()}
        for name, factor in changes.items():
            arrays[name] = factor * arrays[name]
        data.write(shard, arrays, {k: data.receipt(shard)[k] for k in ("phase", "not_converged")})
    found = verify(path, again=5)
    assert found.broken == [0, 1]
    assert {text for _, shard, text in found.faults if shard == 0} >= {"2 samples with bounds that cross"}
    assert any("does not overlap that of the solver" in text for _, shard, text in found.faults if shard == 1)
    before = json.loads((tmp_path / "effective.receipts/2.json").read_text())
    repair(found)
    assert not verify(path, again=5).faults
    assert json.loads((tmp_path / "effective.receipts/2.json").read_text()) == before


def test_xarray_opens_the_store(tmp_path):
    cells, path = make(tmp_path)
    solve_fields(path, cells)
    data = lspipe.open_dataset(path)
    assert data.stiffness.sel(component="xy").shape == (5, 6)
    assert_array_equal(pd.Series(data.gap.values) <= data.attrs["tol"], True)
