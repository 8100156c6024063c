"""Training by two processes that torchrun starts is training by one."""

import re
import signal
import subprocess

import pytest
import torch
from conftest import BIN, environment
from test_train import RECIPE, command, history
from test_train import stores as stores
from torch import nn

from lspipe.loader import load
from lspipe.models import processes
from lspipe.train import train


def test_two_processes_train_as_one_does(stores, tmp_path):
    """Batches of 3, 3, 3 and 1: one is shared unevenly, and the last one is too small to share.

    SIGTERM to torchrun stops the first call, and the second call goes on.
    """
    options = ("--epochs", "12", "--batch", "3", "--learning-rate", "1e-4")
    torchrun = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "lspipe"]
    words = [*torchrun, *command(stores, *options)[1:]]
    where = {"cwd": tmp_path, "env": environment(), "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, **where)
    for line in process.stderr:
        if " 0/48" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode != 0
    (stopped,) = re.findall(r"^lspipe: fln: not finished, (\d+) of 48 steps are done and saved", said, re.M)
    assert [file.name for file in (tmp_path / "fln").iterdir()] == ["checkpoint.pt"]
    done = subprocess.run(words, **where, check=False)
    assert done.returncode == 0, done.stderr
    assert f" {stopped}/48 " in done.stderr
    assert len(re.findall(" 48/48 ", done.stderr)) == 1

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(
        tmp_path / "one",
        *[[load(*paths)] for paths in stores],
        **RECIPE | {"epochs": 12, "batch": 3, "learning_rate": 1e-4},
    )
    torch.set_num_threads(threads)
    for rows in zip(history(tmp_path / "fln"), history(tmp_path / "one"), strict=True):
        for key in ("train_loss", "valid_loss", "valid_mase"):
            values = [float(row[key]) for row in rows]
            assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_batch_normalization_is_refused_by_several_processes(monkeypatch):
    network = nn.Sequential(nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1))
    processes.check_network(network)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match=r"^architecture: has batch normalization, .*; train it in one process$"):
        processes.check_network(network)
