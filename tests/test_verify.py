"""`lspipe verify` finds what checksums cannot: values that were written wrong, a store that is another one."""

import json
import shutil

import numpy as np
import pytest
from conftest import call, run

from lspipe import Isotropic, open_dataset, solve
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.store import Store
from lspipe.verify import repair, verify

COUNT, PER_SHARD = 11, 4
LOAD = [1e-3, 0, 0, 0, 0, 5e-4]


def allocate(cells, fields, **changed):
    problem = Problem([Isotropic(120, 0.3), Isotropic(1200, 0.2)], LOAD, scheme="full")
    create_fields(fields, cells, problem, **{"tol": 1e-5, "per_shard": PER_SHARD} | changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_microstructures(folder / "micro.zarr", count=COUNT, n=6, seed=7, split="test", per_shard=PER_SHARD)
    allocate(folder / "micro.zarr", folder / "c/test.zarr")
    solve_fields(folder / "c/test.zarr", folder / "micro.zarr")
    return folder


@pytest.fixture
def stores(made, tmp_path):
    """11 microstructures of 6³ in shards of 4, and their fields, moved since they were made."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "micro.zarr", tmp_path / "c/test.zarr"


def rewrite(path, shard, change):
    """Writes a shard as a program with a fault would: with a receipt."""
    data = Store.open(path)
    arrays = {name: array[slice(*data.samples(shard))] for name, array in data.arrays.items()}
    change(arrays)
    data.write(shard, arrays, {k: v for k, v in data.receipt(shard).items() if k in ("not_converged", "phase")})


def test_a_whole_store(stores):
    for path, again in zip(stores, ("made again", "solved again"), strict=True):
        verdict = verify(path, again=COUNT)
        assert not verdict.faults
        assert verdict.checks == {
            "attributes and arrays": "the store",
            "receipts and checksums": "3 shards",
            "values": "11 samples",
            "leftovers": "files",
            again: "samples 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        }


def not_finite(arrays):
    arrays["strain"][2, 3, 0, 1, 2] = np.nan


def another_mean(arrays):
    arrays["strain"][0, 5] += 1e-7


def other_moduli(arrays):
    """A field that satisfies everything but the equation of these materials."""
    materials = [Isotropic(120, 0.3), Isotropic(1100, 0.2)]
    arrays["strain"][:] = solve(other_moduli.phase, materials, LOAD, scheme="full", tol=1e-5).strain


def another_phase(arrays):
    arrays["phase"][1, 0, 0, 0] = 2


def another_fraction(arrays):
    arrays["volume_fraction"][3] += [1e-6, -1e-6]


def another_sample(arrays):
    for values in arrays.values():
        values[0] = values[1]


@pytest.mark.parametrize(
    ("store", "change", "check", "said"),
    [
        (1, not_finite, "values", "1 samples not finite or not written"),
        (1, another_mean, "values", "1 samples with another mean than the macroscopic strain"),
        (1, other_moduli, "solved again", "off in the energy norm"),
        (0, another_phase, "values", "1 samples not written or with a phase above 1"),
        (0, another_fraction, "values", "1 samples with other volume fractions than stated"),
        (0, another_sample, "made again", "sample 4: phase differs"),
    ],
)
def test_values_that_were_written_wrong(stores, store, change, check, said):
    path = stores[store]
    truth = open_dataset(path).load()
    other_moduli.phase = open_dataset(stores[0]).phase[4:8].values
    rewrite(path, 1, change)
    verdict = verify(path, again=COUNT)
    assert {(c, shard) for c, shard, _ in verdict.faults} == {(check, 1)}
    assert said in verdict.faults[0][2]
    repair(verdict)
    assert not verify(path).faults
    assert open_dataset(path).equals(truth)


def edit(file, change):
    text = json.loads(file.read_text())
    change(text)
    file.write_text(json.dumps(text))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("zarr.json", lambda m: m["attributes"].update(tol=1e-3), "are not those that the receipts were written for"),
        ("zarr.json", lambda m: m["attributes"].pop("scheme"), "test.zarr/zarr.json: is damaged: scheme ="),
        (
            "zarr.json",
            lambda m: m["attributes"].update(data_version=1),
            "data_version = 1: this lspipe reads and writes 3",
        ),
        (
            "residual/zarr.json",
            lambda m: m.update(data_type="float32"),
            "residual/zarr.json: is damaged: data_type = 'float32'",
        ),
        (
            "residual/zarr.json",
            lambda m: m.update(shape=[12]),
            "residual/zarr.json: is damaged: shape = (12,); lspipe writes (11,)",
        ),
        ("residual/zarr.json", None, "residual/zarr.json: is missing"),
    ],
)
def test_a_broken_store_is_allocated_again_and_keeps_its_shards(stores, file, change, said):
    cells, fields = stores
    truth = open_dataset(fields).load()
    edit(fields / file, change) if change else (fields / file).unlink()
    verdict = verify(fields)
    assert [(check, shard) for check, shard, _ in verdict.faults] == [("attributes and arrays", None)]
    assert said in verdict.faults[0][2]
    with pytest.raises(ValueError, match="run lspipe allocate to make the store again; whole shards are kept"):
        repair(verdict)
    allocate(cells, fields)
    assert not verify(fields).faults
    assert open_dataset(fields).equals(truth)


def test_fields_without_their_microstructures(stores, tmp_path):
    cells, fields = stores
    cells.rename(tmp_path / "elsewhere.zarr")
    ((check, _, said),) = verify(fields).faults
    stated = f"{cells}: is no store; lspipe generate, import and allocate make stores"
    assert (check, said) == ("attributes and arrays", stated)


def test_command(stores, tmp_path):
    run("lspipe", "verify", "c/test.zarr", cwd=tmp_path)
    (stores[1] / "bound/c/2").unlink()
    (stores[1].with_suffix(".receipts") / f".1.json.{'0123' * 8}").touch()
    broken = call("verify", "c/test.zarr", "--workers", 1, cwd=tmp_path, check=False)
    assert broken.returncode == 1
    assert "| receipts and checksums | 3 shards" in broken.stdout
    assert "shard 2: bound/c/2: missing" in broken.stdout
    assert broken.stderr.splitlines()[-1] == "lspipe: c/test.zarr: 2 faults in shard 2"
    repaired = call("verify", "c/test.zarr", "--repair", "--workers", 1, cwd=tmp_path)
    assert "bound/c/2: missing" in repaired.stdout
    assert not verify(stores[1]).faults


def test_fields_of_microstructures_that_changed_are_solved_again(stores):
    """Made by another version of the generator, say: store, seeds and shapes are the same."""
    cells, fields = stores

    def swap_phases(arrays):
        arrays["phase"], arrays["volume_fraction"] = 1 - arrays["phase"], arrays["volume_fraction"][:, ::-1]

    rewrite(cells, 1, swap_phases)
    verdict = verify(fields, again=0)
    assert verdict.faults == [("values", 1, "belongs to other microstructures than those on disk")]
    repair(verdict)
    assert not verify(fields, again=COUNT).faults
