"""A solver of load paths that is killed within a sample goes on from the steps that it has saved."""

import subprocess
import sys
import time

import numpy as np
import pytest
from test_path_networks import PATH

from lspipe import open_dataset
from lspipe.dataset import create_paths, solve_fields, write_microstructures
from lspipe.path_solving import load_sample, save_sample
from lspipe.store import Store

SOLVE = """
import sys, time
from pathlib import Path
import lspipe.path_solving as module
from lspipe.dataset import solve_fields
module.SAVE_AFTER = -1
save = module.save_sample
def save_and_wait(file, stamp, sample):
    save(file, stamp, sample)
    if file.stem == "1":  # The second sample has saved its first step.
        time.sleep(600)
module.save_sample = save_and_wait
solve_fields(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_path_goes_on_from_its_last_saved_step(tmp_path):
    cells, stores = tmp_path / "cells.zarr", [tmp_path / "undisturbed.zarr", tmp_path / "killed.zarr"]
    write_microstructures(cells, count=2, n=6, seed=0, split="test", per_shard=2)
    for store in stores:
        create_paths(store, cells, PATH, keep=(0, -1), tol=1e-4, per_shard=2)
    solve_fields(stores[0], cells)
    process = subprocess.Popen([sys.executable, "-c", SOLVE, stores[1], cells])
    data = Store.open(stores[1])
    file = data.partial(0) / "1.npz"
    deadline = time.monotonic() + 60
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    with np.load(file) as saved:
        stamp = str(saved["stamp"])
    assert 0 < load_sample(file, stamp)["steps"] < len(PATH.steps)
    assert load_sample(file, "another store") is None
    for part in data.partial(0).glob("*.npz"):  # The time that each sample has taken tells whether it was used.
        save_sample(part, stamp, load_sample(part, stamp) | {"seconds": 1000.0})
    with pytest.raises(ValueError, match=r"holds saved steps of a store with tol = 0\.0001; --replace removes them"):
        create_paths(stores[1], cells, PATH, keep=(0, -1), tol=1e-3, per_shard=2)
    solve_fields(stores[1], cells)
    assert open_dataset(stores[0]).equals(open_dataset(stores[1]))
    receipts = [Store.open(store).receipt(0) for store in stores]
    assert receipts[0]["sha256"] == receipts[1]["sha256"]
    assert receipts[1]["seconds"] > 2000
    assert not data.partial(0).exists()
