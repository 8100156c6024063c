"""Training: the paper's loss, the same weights again, nothing lost to an interruption."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lspipe import Isotropic, generate, load_model, solve
from lspipe.loader import Samples
from lspipe.models.localization import Domain
from lspipe.train import loss_of, train

DOMAIN = Domain((Isotropic(120, 0.3), Isotropic(1200, 0.3)), (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0), "bbar")
RECIPE = {"architecture": "fln", "seed": 0, "epochs": 3, "batch": 4, "learning_rate": 2e-3, "device": "cpu"}


def samples(count, split):
    phase = generate(count, 8, 0, split).phase
    strain = solve(phase, DOMAIN.materials, DOMAIN.strain).strain[:, 0] / DOMAIN.strain[0]
    return Samples(torch.from_numpy(phase), torch.from_numpy(strain.astype(np.float32)))


@pytest.fixture(scope="module")
def sets():
    return samples(10, "train"), samples(5, "valid")


def history(folder):
    with open(folder / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_loss_is_the_papers():
    y = torch.tensor([[1.0, 3.0]])
    iterates = [torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 4.0]])]
    assert loss_of(iterates, y).item() == pytest.approx(100 * (np.sqrt(2) / 2 + 1 / 2) / 2)


def test_training_learns_and_describes_itself(sets, tmp_path):
    train(tmp_path, *sets, DOMAIN, **RECIPE | {"epochs": 8})
    rows = history(tmp_path)
    assert [(r["epoch"], r["step"]) for r in rows] == [(str(e + 1), str(3 * (e + 1))) for e in range(8)]
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-8)
    description = json.loads((tmp_path / "model.json").read_text())
    best = min(float(r["valid_mase"]) for r in rows)
    assert description["valid_mase"] == best
    valid = sets[1]
    field = load_model(tmp_path).predict(valid.phase.numpy(), DOMAIN.materials, DOMAIN.strain).strain[:, 0] / 1e-3
    assert 100 * np.abs(field - valid.y.numpy()).mean() == pytest.approx(best, rel=1e-4)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_weights_trained_at_one_n_predict_at_another(sets, tmp_path):
    """Better than the macroscopic strain does, on microstructures of odd and even n that it has not seen."""
    train(tmp_path, *sets, DOMAIN, **RECIPE | {"epochs": 8})
    for n in (11, 14):
        phase = generate(4, n, 0, "test").phase
        truth = solve(phase, DOMAIN.materials, DOMAIN.strain).strain[:, 0]
        errors = [
            np.abs(load_model(model).predict(phase, DOMAIN.materials, DOMAIN.strain).strain[:, 0] - truth).mean()
            for model in (tmp_path, "constant")
        ]
        assert errors[0] < 0.8 * errors[1]


def test_a_seed_gives_the_same_weights(sets, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / folder, *sets, DOMAIN, **RECIPE | {"seed": seed, "epochs": 1})
    a, b, c = (load_file(tmp_path / f / "model.safetensors") for f in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


KILLED = """
import sys, torch
from pathlib import Path
from lspipe.train import train
from tests.test_train import DOMAIN, RECIPE
torch.set_num_threads(1)
sets = torch.load(sys.argv[1], weights_only=False)
train(Path(sys.argv[2]), *sets, DOMAIN, **RECIPE | {"epochs": 40})
"""


def test_killed_and_resumed_equals_undisturbed(sets, tmp_path):
    """SIGKILL after some epochs; the rest is done by the same call."""
    torch.save(sets, tmp_path / "sets.pt")
    out, checkpoint = tmp_path / "killed", tmp_path / "killed/checkpoint.pt"
    command = [sys.executable, "-c", KILLED, tmp_path / "sets.pt", out]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    while not checkpoint.exists() or len(torch.load(checkpoint, weights_only=True)["history"]) < 2:
        assert process.poll() is None, "training ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(torch.load(checkpoint, weights_only=True)["history"])
    assert 2 <= done < 40
    assert not (out / "model.json").exists()
    shutil.copytree(out, tmp_path / "kept")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(out, *sets, DOMAIN, **RECIPE | {"epochs": 40})
    train(tmp_path / "undisturbed", *sets, DOMAIN, **RECIPE | {"epochs": 40})
    # The checkpoint of another task is left alone: one more epoch is a new training.
    train(tmp_path / "kept", *sets, DOMAIN, **RECIPE | {"epochs": 1})
    torch.set_num_threads(threads)
    resumed, undisturbed = (load_file(f / "model.safetensors") for f in (out, tmp_path / "undisturbed"))
    assert all(torch.equal(resumed[k], undisturbed[k]) for k in resumed)
    for a, b in zip(history(out), history(tmp_path / "undisturbed"), strict=True):
        assert a | {"seconds": ""} == b | {"seconds": ""}
    assert len(history(tmp_path / "kept")) == 1


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_kept(sets, tmp_path):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(tmp_path, *sets, DOMAIN, **RECIPE | {"learning_rate": 1e12, "epochs": 20})
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"architecture": "unet"}, "architecture = 'unet'"), ({"epochs": 0}, "epochs = 0"), ({"batch": 0}, "batch = 0")],
)
def test_bad_arguments_are_named(sets, tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path / "out", *sets, DOMAIN, **RECIPE | changed)
    assert not (tmp_path / "out").exists()
