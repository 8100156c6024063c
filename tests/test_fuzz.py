"""Files with one thing wrong: a command refuses them in a line that names the file, or its result is the same.

Every kind of file that the project reads is damaged many times, with a fixed seed: bits flipped, bytes replaced, the
end cut off, a part missing or twice, a value or a key of JSON and YAML exchanged. A command that ends with exit code 0
must have written what it writes from undamaged files, wherever a file has a checksum of ours.
"""

import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, as_before
from test_published import checkpoint, save

from lspipe import cli

STRANGE = (None, True, -1, 0, 4, 10**12, 1e308, "", "4", [], {}, [[]], "\udcff\n")


def lspipe(*words):
    """Run a command as `lspipe` does, in this process; return its message, or None where it succeeds."""
    sys.argv = ["lspipe", *map(str, words)]
    with as_before():
        try:
            cli.main()
        except SystemExit as end:
            return None if end.code in (0, None) else str(end.code)
    return None


def damaged(data, rng):
    """A copy of ``data`` with one thing wrong."""
    where, more = (int(i) for i in np.sort(rng.integers(0, max(1, len(data)), 2)))
    match int(rng.integers(6)):
        case 0:
            return data[:where]
        case 1:
            return data[:where] + data[more:]
        case 2:
            return data[:more] + data[where:]
        case 3:
            return data[:where] + rng.bytes(8) + data[where + 8 :]
        case _:
            bit = 1 << int(rng.integers(8))
            return data[:where] + bytes([data[where] ^ bit]) + data[where + 1 :] if data else b"x"


def exchanged(node, rng):
    """A copy of a tree of lists and mappings in which one value is another, or one key is missing."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return STRANGE[int(rng.integers(len(STRANGE)))]
    key, copy = keys[int(rng.integers(len(keys)))], node.copy()
    if isinstance(node[key], dict | list) and rng.integers(4):
        copy[key] = exchanged(node[key], rng)
    elif rng.integers(4):
        copy[key] = STRANGE[int(rng.integers(len(STRANGE)))]
    else:
        copy.pop(key)
    return copy


def damages(file, count, rng):
    """So many damaged contents of a file; of JSON and YAML half of them are text that can be read."""
    data = file.read_bytes()
    forms = {".json": (json.loads, json.dumps), ".yaml": (yaml.safe_load, yaml.safe_dump)}
    read, write = forms.get(file.suffix, (None, None))
    for k in range(count):
        if read and k % 2:
            yield write(exchanged(read(data), rng)).encode()
        else:
            yield damaged(data, rng)


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """One of each file, tiny, as the commands write them."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("products")
        patch.chdir(folder)
        patch.setattr(sys, "argv", [])
        for split in ("train", "test"):
            stores = f"{split}.zarr", f"{split}-c10.zarr"
            commands = [
                ("generate", stores[0], "--count", 3, "--n", 8, "--split", split, "--samples-per-shard", 2),
                ("allocate", stores[1], stores[0], *ALLOCATE),
                ("solve", *stores, "--workers", 1),
            ]
            for command in commands:
                assert lspipe(*command) is None
        np.save("images.npy", np.random.default_rng(0).integers(0, 2, (3, 8, 8, 8)))
        np.savez("images.npz", a=np.load("images.npy"))
        save(checkpoint("fln")[1], Path("RLN.pth"))
        shutil.copy(REPOSITORY / "config/test.yaml", "config.yaml")
        assert lspipe("train", "model", *TRAIN) is None
        assert lspipe("train", "begun", *TRAIN, "--minutes", 1e-4) == "75"  # with a checkpoint after one step
        assert lspipe(*EVALUATE) is None
        yield folder


TRAIN = "--train train.zarr,train-c10.zarr --valid test.zarr,test-c10.zarr --architecture fln --epochs 1"
TRAIN = (*TRAIN.split(), "--batch", 1, "--threads", 1)
ALLOCATE = ("--material", "120,0.3", "--material", "1200,0.3", "--samples-per-shard", 2)
STORES = ("test.zarr", "test-c10.zarr")
EVALUATE = ("evaluate", "cg", *STORES, "--errors", "errors.parquet", "--examples", "examples.zarr", "--threads", 1)
# What is damaged, the command that reads it, what the command writes, and how many times each file is damaged. A file
# of the user's own has no checksum of ours: of what is written from it, only that there is no traceback is known.
KINDS = {
    "microstructures": ("test.zarr/**/* test.receipts/*", ("export", "out", *STORES, "--sample", 0), "out/0.vti", 4),
    "fields": ("test-c10.zarr/**/* test-c10.receipts/*", ("export", "out", *STORES, "--sample", 0), "out/0.vti", 4),
    "receipts": ("test-c10.receipts/*", ("solve", *STORES, "--workers", 1), "test-c10.zarr/strain/c/0/0/0/0/0", 12),
    "model": ("model/model.*", ("export", "out", *STORES, "--sample", 0, "--model", "model"), "out/0.vti", 40),
    "training": ("begun/checkpoint.pt", ("train", "begun", *TRAIN), "begun/model.safetensors", 40),
    "errors": ("errors.parquet", ("table", "out/t.csv", "--input", "c10,cg,errors.parquet"), "out/t.csv", 60),
    "examples": (
        "examples.zarr/**/*",
        ("figure", "density", "out/d.png", "--input", "cg,examples.zarr"),
        "out/d.png",
        4,
    ),
    "npy": ("images.npy", ("import", "out/i.zarr", "images.npy", "--count", 3, "--replace"), None, 40),
    "npz": ("images.npz", ("import", "out/i.zarr", "images.npz", "--count", 3, "--replace"), None, 40),
    "published": ("RLN.pth", ("import-published", "RLN.pth", "out/p", "--contrast", 10), None, 60),
    "configuration": ("config.yaml", ("config", "config.yaml"), None, 60),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_a_line_or_the_same_result(products, tmp_path, monkeypatch, capfd, kind):
    patterns, command, written, count = KINDS[kind]
    monkeypatch.setattr(sys, "argv", [])
    files = sorted({f.relative_to(products) for p in patterns.split() for f in products.glob(p) if f.is_file()})
    assert files
    read = {file.parts[0] for file in files} | {part for word in command for part in str(word).split(",")}
    read |= {name.replace(".zarr", ".receipts") for name in read}
    unread = shutil.ignore_patterns(*(file.name for file in products.iterdir() if file.name not in read))
    work = shutil.copytree(products, tmp_path / "work", ignore=unread)
    monkeypatch.chdir(work)
    assert lspipe(*command) is None
    right = Path(written).read_bytes() if written else None
    rng = np.random.default_rng(0)
    accepted = refused = 0
    for file in files:  # restored with all that the command wrote
        whole = (products / file).read_bytes()
        for data in damages(products / file, count, rng):
            if data == whole:
                continue
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(work)
            monkeypatch.chdir(shutil.copytree(products, work, ignore=unread))
            file.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                message = lspipe(*command)
            if message is None:
                accepted += 1
                assert right is None or Path(written).read_bytes() == right, f"{file}: {data[:80]!r}"
            else:
                refused += 1
                lines = message.splitlines()
                assert kind == "configuration" or len(lines) == 1, message
                assert all(len(line) < 1000 for line in lines), message
                assert re.match(r"lspipe: ", message)
                assert file.parts[0].split(".")[0] in message, message
    assert refused or kind == "receipts"  # whose shards are solved again
