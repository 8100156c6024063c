"""What a CUDA card computes is what the processor computes. `make gpu` runs these tests."""

import json

import numpy as np
import pytest
import torch
from test_train import DOMAIN, RECIPE, history, of, same, samples

from lspipe import generate, homogenize, load_model, solve
from lspipe.interrupt import Unfinished
from lspipe.loader import Samples, copy_to, move_to
from lspipe.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card")
ON_CARD = RECIPE | {"device": "cuda"}


@pytest.fixture(scope="module")
def sets():
    return samples(10, "train"), samples(5, "valid")


@pytest.mark.parametrize("scheme", ["bbar", "full", "reduced"])
def test_solve(scheme):
    phase = generate(3, (15, 16, 9), 0).phase
    card, processor = (
        solve(phase, DOMAIN.materials, DOMAIN.strain, scheme=scheme, tol=1e-6, device=device)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(card.strain, processor.strain, rtol=0, atol=1e-5 * DOMAIN.strain[0])
    assert (card.residual <= 1e-6).all()


def test_homogenize():
    phase = generate(2, 12, 0).phase
    card, processor = (homogenize(phase, DOMAIN.materials, device=device) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(card.stiffness, processor.stiffness, rtol=2e-3, atol=1e-3 * processor.stiffness.max())


@pytest.mark.parametrize("name", ["fln-c10", "rln-c10", "rln-cg"])
def test_predict(name, sets):
    phase = sets[1].phase.numpy()
    card, processor = (
        load_model(name, device).predict(phase, DOMAIN.materials, DOMAIN.strain).strain for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(card, processor, rtol=0, atol=1e-3 * DOMAIN.strain[0])


def test_a_set_stays_on_the_card(sets):
    stays = move_to("cuda", sets[0])
    assert isinstance(stays, Samples)
    assert stays.phase.is_cuda
    for batch, expected in zip(stays.batches(4, [0, 1]), sets[0].batches(4, [0, 1]), strict=True):
        assert torch.equal(batch.y.cpu(), expected.y)
    assert torch.equal(copy_to("cuda", sets[0].y).cpu(), sets[0].y)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_train(precision, sets, tmp_path):
    for device in ("cuda", "cpu"):
        chosen = precision if device == "cuda" else "float32"
        recipe = RECIPE | {"epochs": 4, "device": device, "precision": chosen}
        train(tmp_path / device, *of(DOMAIN, *sets), **recipe)
    card, processor = (float(history(tmp_path / device)[-1]["valid_mase"]) for device in ("cuda", "cpu"))
    assert card == pytest.approx(processor, rel=0.02 if precision == "float32" else 0.1)
    assert json.loads((tmp_path / "cuda/model.json").read_text())["gpu_gb"] > 0


def test_stopped_and_resumed_equals_undisturbed(sets, tmp_path):
    """With algorithms of cuDNN that do not depend on measured times."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    may = iter([False] * 3 + [True])
    with pytest.raises(Unfinished, match="4 of 9 steps"):
        train(tmp_path / "stopped", *of(DOMAIN, *sets), **ON_CARD, stop=lambda: next(may))
    train(tmp_path / "stopped", *of(DOMAIN, *sets), **ON_CARD)
    train(tmp_path / "undisturbed", *of(DOMAIN, *sets), **ON_CARD)
    torch.use_deterministic_algorithms(False)
    assert same(tmp_path / "stopped", tmp_path / "undisturbed")
