"""A training that starts from trained weights."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, invoke
from safetensors.torch import load_file, save_file
from test_config import TEST
from test_train import DOMAIN, RECIPE, history, of, same, samples
from test_train import stores as stores

from lspipe import Conductor, Isotropic, load_model
from lspipe.cell.physics import CONDUCTION
from lspipe.interrupt import Unfinished
from lspipe.loader import Samples
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.shipped import SHIPPED, find_model
from lspipe.models.start import start_from
from lspipe.plan import Plan
from lspipe.read_config import parse_config
from lspipe.train import train

SECTION = (
    (REPOSITORY / "docs/training.md").read_text().partition("## Start from trained weights")[2].partition("\n## ")[0]
)
COMMAND, NETWORKS, OF_IMAGES = re.findall(r"^```\w+\n(.*?)^```", SECTION, re.M | re.S)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are faster on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sets():
    return samples(10, "train"), samples(5, "valid")


@pytest.mark.parametrize("name", ["fln-c10", "rln-t-c10", "rln-c10"])
def test_untied_weights_begin_as_copies_of_tied_ones(sets, name):
    """So the network gives the same iterates as its start; with passes of its own it keeps them."""
    network, start = build("rln", 2).eval(), load_model(name).network
    start_from(name, network, "rln", DOMAIN)
    mean = torch.ones(1, 1, 1, 1)
    with torch.no_grad():
        for iterate, expected in zip(network(sets[1].phase, mean), start(sets[1].phase, mean, 5), strict=True):
            assert torch.equal(iterate, expected)
    assert len({id(parameter) for parameter in network.parameters()}) == 5 * len([*network.nets[0].parameters()])


def test_before_it_learns_a_network_predicts_as_its_start(sets, tmp_path):
    """The learning rate is all but 0."""
    train(tmp_path, *of(DOMAIN, *sets), **RECIPE | {"epochs": 1, "learning_rate": 1e-12, "start": "fln-c10"})
    tuned, start = (
        load_model(m).predict(sets[1].phase.numpy(), DOMAIN.materials, DOMAIN.strain).strain
        for m in (tmp_path, "fln-c10")
    )
    np.testing.assert_allclose(tuned, start, rtol=0, atol=1e-5 * DOMAIN.strain[0])


def test_the_command_of_the_page_beats_a_training_from_nothing(stores, tmp_path, monkeypatch):
    """The same steps on another contrast than that of the start."""
    for split in stores:
        for store in split:
            (tmp_path / store.name).symlink_to(store)
            (tmp_path / store.with_suffix(".receipts").name).symlink_to(store.with_suffix(".receipts"))
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(COMMAND.replace("\\\n", ""))
    invoke(*words, "--threads", 1)
    at = words.index("--start")
    nothing = [word.replace("models/fine", "models/nothing") for word in words[:at] + words[at + 2 :]]
    invoke(*nothing, "--threads", 1)
    fine, begun = (float(history(tmp_path / "models" / name)[-1]["valid_mase"]) for name in ("fine", "nothing"))
    assert fine < 0.7 * begun
    training = json.loads((tmp_path / "models/fine/model.json").read_text())["training"]
    assert training["start"] == "fln-c50"


def test_stopped_and_resumed_equals_undisturbed_and_another_start_begins_anew(sets, tmp_path):
    recipe = RECIPE | {"epochs": 2, "start": "fln-c10"}
    may = iter([False, False, False, True])
    with pytest.raises(Unfinished, match="3 of 6 steps"):
        train(tmp_path / "a", *of(DOMAIN, *sets), **recipe, stop=lambda: next(may))
    moved = shutil.copytree(SHIPPED / "fln-c10", tmp_path / "moved")  # the same weights in another place
    train(tmp_path / "a", *of(DOMAIN, *sets), **recipe | {"start": moved})
    train(tmp_path / "b", *of(DOMAIN, *sets), **recipe)
    assert same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(Unfinished):
        train(tmp_path / "c", *of(DOMAIN, *sets), **recipe, stop=lambda: True)
    with pytest.warns(UserWarning, match="belongs to another training"), pytest.raises(Unfinished, match="1 of 6"):
        train(tmp_path / "c", *of(DOMAIN, *sets), **recipe | {"start": "fln-c50"}, stop=lambda: True)


THREE = Domain((*DOMAIN.materials, Isotropic(1, 0.2)), DOMAIN.strain)


@pytest.mark.parametrize(
    ("start", "change", "said"),
    [
        ("nowhere", {}, "nowhere: must be a folder with a model.json, or one of 'fln-c10', .*, 'rln-t-c50'$"),
        ("cg", {}, "cg: must be a folder"),
        ("rln-c10", {}, r"start = 'rln-c10': its architecture is rln; must be fln or rln-t$"),
        ("rln-cg", {}, r"start = 'rln-cg': its architecture is rln-cg; must be fln or rln-t$"),
        ("fln-c10", {"architecture": "rln-cg"}, r"its architecture is fln; must be rln-cg$"),
        ("fln-c10", {"components": 6}, r"its components are \['xx'\]; must be \['xx', 'yy', 'zz', 'yz', 'xz', 'xy'\]$"),
        ("fln-c10", {"domain": THREE}, r"its number of phases is 2; must be 3$"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_line(sets, tmp_path, start, change, said):
    y = sets[0].y.expand(-1, 6 if change.get("architecture") else change.get("components", 1), -1, -1, -1)
    some = Samples(sets[0].phase, y), change.get("domain", DOMAIN)
    recipe = RECIPE | {"start": start, "architecture": change.get("architecture", "fln")}
    with pytest.raises(ValueError, match=said) as refused:
        train(tmp_path / "out", [some], [some], **recipe)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_lacks_weights_is_refused_in_a_line(tmp_path):
    """The file is that of an earlier version, which has no checksum."""
    folder = shutil.copytree(find_model("fln-c10"), tmp_path / "old")
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "flat.bias" not in name}, folder / "model.safetensors")
    description = json.loads((folder / "model.json").read_text())
    old = {name: value for name, value in description.items() if name not in ("sha256", "model_version")}
    (folder / "model.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"old': its weights do not fit this network: .*flat\.bias"):
        start_from(folder, build("fln", 2), "fln", DOMAIN)


def test_weights_of_another_physics_are_refused():
    domain = Domain((Conductor(1), Conductor(10)), (1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="start = 'rln-cg': its physics is elasticity; must be conduction"):
        start_from("rln-cg", build("rln-cg", 2, 3, CONDUCTION), "rln-cg", domain)


def test_each_seed_starts_from_its_seed_of_the_network_that_is_named():
    """The configuration of the page; the third network starts from weights that are not of the run."""
    networks = yaml.safe_load(NETWORKS)["networks"]
    plan = Plan(parse_config(TEST | {"networks": networks, "training": {"seeds": [3, 5]}}))
    files = [f"results/test/models/rln-t/seed5/model.{suffix}" for suffix in ("json", "safetensors")]
    assert plan.start("rln/seed5") == files
    assert plan.start("rln-t/seed5") == plan.start("fine/seed5") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": "nowhere"}, "nowhere: must be a folder with a model.json, or one of 'fln-c10', "),
        ({"start": "rln-c10"}, r"its architecture is rln; must be fln or rln-t$"),
        ({"start": "fln-c10", "predict": "all"}, r"its components are \['xx'\]; must be \['xx', 'yy', .*\]$"),
        ({"start": "fln-c10"}, "its number of phases is 2; must be 3$"),
        ({"start": "rln-cg", "architecture": "fno"}, "its architecture is rln-cg; must be fno$"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_solved(change, said):
    config = TEST | {"networks": [{"name": "fln", "architecture": "fln", "train_on": ["c10"]} | change]}
    if "phases" in said:
        config["microstructures"] = {"images": "three.npy", "train": 2, "valid": 1, "test": 1}
        config["cases"] = {"c10": [{"young": young, "poisson": 0.3} for young in (1, 2, 3)]}
    plan = Plan(parse_config(config))
    with pytest.raises(ValueError, match=f"^config: networks.0.start = .*{said}"):
        plan.check_starts()


def test_a_start_that_fits_is_taken():
    networks = [
        {"name": "a", "architecture": "rln", "train_on": ["c10"], "start": "rln-t-c50"},
        {"name": "b", "architecture": "rln-cg", "train_on": ["c10", "c50"], "start": "rln-cg"},
    ]
    Plan(parse_config(TEST | {"networks": networks})).check_starts()
    Plan(parse_config(yaml.safe_load(OF_IMAGES))).check_starts()
