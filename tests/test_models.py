"""The paper's networks: layers, invariants, files."""

import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_published import PublishedVNet

from lspipe import Isotropic, generate, load_model, solve
from lspipe.cell.operator import Constants
from lspipe.cell.operator_torch import TorchOperator
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged
from lspipe.models.architectures import PAPER, build, source_file
from lspipe.models.domain import Domain
from lspipe.models.files import read_model, save_model, writing
from lspipe.models.localization import LocalizationModel, at_once
from lspipe.models.periodic import convolve
from lspipe.models.published import LAYERS, from_zyx
from lspipe.models.shipped import SHIPPED
from lspipe.models.vnet import VNet
from lspipe.summary import describe_networks

MATERIALS = (Isotropic(120, 0.3), Isotropic(1200, 0.3))
LOAD = (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0)
ONE = torch.ones(1, 1, 1, 1)  # ε̄_xx, relative to itself


def network(architecture, seed=0):
    torch.manual_seed(seed)
    return build(architecture, phases=2).eval()


def cells(count, *grid, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (count, *grid), dtype=np.uint8))


@pytest.mark.parametrize(("architecture", "parameters"), [("fln", 132_801), ("rln-t", 132_801), ("rln", 664_005)])
def test_parameter_counts_are_the_papers(architecture, parameters):
    assert sum(p.numel() for p in network(architecture).parameters()) == parameters


SHEARED = (1e-3, -5e-4, 0.0, 0.0, 0.0, 5e-4)


def sheared(architecture):
    """A network of all six components."""
    torch.manual_seed(0)
    return build(architecture, 2, 6).eval()


def test_all_components_widen_the_first_and_the_last_layer_alone():
    first, all_components = network("fln").state_dict(), sheared("fln").state_dict()
    wider = {name: tuple(w.shape) for name, w in all_components.items() if w.shape != first[name].shape}
    assert wider == {
        "nets.0.begin_1.conv.weight": (16, 36, 3, 3, 3),
        "nets.0.flat.weight": (6, 16, 1, 1, 1),
        "nets.0.flat.bias": (6,),
    }


def test_all_components_follow_the_papers_recurrence():
    """Each phase's indicator times each component; component c starts at Ē_c/Ē_xx and keeps that mean."""
    net, phase = sheared("rln-t"), cells(2, 8, 9, 10)
    mean = torch.tensor(SHEARED).reshape(6, 1, 1, 1) / 1e-3  # strains are relative to ε̄_xx
    past = [mean.expand(2, 6, 8, 9, 10), *[torch.zeros(2, 6, 8, 9, 10)] * 2]
    for iterate in net(phase, net.mean(Problem(MATERIALS, SHEARED), "cpu")):
        features = [(phase == p).float() * y[:, c].clone() for y in past for p in (0, 1) for c in range(6)]
        p = net.nets[0](torch.stack(features, dim=1))
        past = [mean + p - torch.stack([a.mean(dim=(1, 2, 3), keepdim=True) for a in p]), *past[:2]]
        torch.testing.assert_close(iterate, past[0])
        torch.testing.assert_close(iterate.mean(dim=(2, 3, 4)), mean.flatten().expand(2, 6), rtol=0, atol=1e-5)


def published_vnet(net):
    """The published V-Net with the weights of ours; its arrays are in (z, y, x) order."""
    reference = PublishedVNet().to(next(net.parameters()).dtype)
    with torch.no_grad():
        for ours, theirs in LAYERS.items():
            for name, parameter in net.get_submodule(ours).named_parameters():
                reference.get_submodule(theirs).get_parameter(name).copy_(from_zyx(parameter))
    return reference


def backward(field):
    return field.transpose(2, 4)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("n", [5, 6, 7, 8])
def test_a_single_field_is_convolved_like_one_of_several(n, dilation):
    torch.manual_seed(0)
    x, W = torch.randn(1, 2, n, 6, 7, dtype=torch.float64), torch.randn(4, 2, 3, 2, 3, dtype=torch.float64)
    results = []
    for fields in (x, torch.cat([x, x.new_zeros(x.shape)])):
        fields, weights, bias = (
            fields.requires_grad_(),
            W.clone().requires_grad_(),
            torch.ones(4).double().requires_grad_(),
        )
        y = convolve(fields, weights, bias, dilation)[:1]
        results.append([y, *torch.autograd.grad(y.pow(3).sum(), (fields, weights, bias))])
    results[1][1] = results[1][1][:1]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("grid", [(8, 8, 8), (9, 10, 11)])
def test_vnet_equals_the_published_network_in_value_and_gradient(grid):
    torch.manual_seed(0)
    net = VNet().double()
    for activation in (m for m in net.modules() if isinstance(m, torch.nn.PReLU)):
        activation.weight.data.uniform_(0.1, 0.5)
    reference, x = published_vnet(net), torch.randn(2, 6, *grid, dtype=torch.float64)
    fast, slow = net(x), backward(reference(backward(x)))
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    for y in (fast, slow):
        y.pow(3).sum().backward()
    for ours, theirs in LAYERS.items():
        pair = (network.get_submodule(name) for network, name in ((net, ours), (reference, theirs)))
        for mine, published in zip(*(layer.parameters() for layer in pair), strict=True):
            torch.testing.assert_close(mine.grad, from_zyx(published.grad), rtol=1e-9, atol=1e-9)


def test_single_precision_costs_the_fast_network_no_more_digits_than_the_published_one():
    torch.manual_seed(0)
    net, x = VNet(), torch.randn(1, 6, 31, 31, 31)
    with torch.inference_mode():
        fast, slow = net(x), backward(published_vnet(net)(backward(x)))
        exact = net.double()(x.double())
    assert (fast - exact).norm() < 2 * (slow - exact).norm()
    assert (slow - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("n", [28, 29])
@pytest.mark.parametrize("axis", range(3))
def test_receptive_field_is_18_voxels_along_each_axis(n, axis):
    """What a voxel depends on, counted by hand. At full resolution the last two 3³ convolutions reach from i − 2
    to i + 2. These lie in coarse voxels ⌊(i ± 2)/2⌋, from which the two coarse convolutions reach 2 further, each
    coarse voxel c being the voxels 2c and 2c + 1, and the first two convolutions reach 2 voxels further still."""
    torch.manual_seed(0)
    net, grid = VNet().double(), [8, 8, 8]
    grid[axis] = n
    x = torch.randn(1, 6, *grid, dtype=torch.float64, requires_grad=True)
    y = net(x)[0, 0].movedim(axis, 0)[:, 3, 3]
    before = (32 - n if n == 28 else 36 - n) // 2  # of the padding, which shifts the coarse grid
    for i in (n // 2, n // 2 + 1):
        (gradient,) = torch.autograd.grad(y[i], x, retain_graph=True)
        far = gradient[0].movedim(axis + 1, 0).flatten(1).abs().amax(dim=1)
        reached = (far > 1e-9 * far.max()).nonzero()[:, 0] + before  # beyond there is rounding
        first = 2 * ((i + before - 2) // 2 - 2) - 2
        last = 2 * ((i + before + 2) // 2 + 2) + 1 + 2
        assert reached.tolist() == list(range(first, last + 1))
        assert len(reached) == 18


def test_passes_follow_the_papers_recurrence():
    """Features are the phase indicators times the current iterate, then the two before it."""
    net, phase = network("rln-t"), cells(1, 8, 8, 8)
    soft, stiff = (phase == 0).float()[:, None], (phase == 1).float()[:, None]
    past = [torch.ones(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8)]
    for iterate in net(phase, ONE):
        features = torch.cat([indicator * y for y in past for indicator in (soft, stiff)], dim=1)
        p = net.nets[0](features)
        past = [1 + p - p.mean(), *past[:2]]
        torch.testing.assert_close(iterate, past[0])


@pytest.mark.parametrize("architecture", PAPER)
@pytest.mark.parametrize("grid", [(8, 8, 8), (9, 12, 11)])
def test_mean_strain_is_exact_and_the_batch_does_not_matter(architecture, grid):
    net, phase = network(architecture), cells(3, *grid)
    with torch.inference_mode():
        together, alone = net(phase, ONE), [net(p[None], ONE) for p in phase]
    assert len(together) == PAPER[architecture][0]
    for t, iterate in enumerate(together):
        torch.testing.assert_close(iterate.mean(dim=(2, 3, 4)), torch.ones(3, 1), rtol=0, atol=1e-5)
        torch.testing.assert_close(iterate, torch.cat([a[t] for a in alone]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", PAPER)
def test_every_parameter_learns(architecture):
    net = network(architecture).train()
    sum(y.square().mean() for y in net(cells(2, 8, 8, 8), ONE)).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A constant added to the last layers' output is subtracted again as the mean: their biases are idle.
    assert all(name.endswith(("end_2.bias", "flat.bias")) for name in still)


def test_a_model_survives_its_file(tmp_path):
    model = LocalizationModel(network("rln"), [Domain(MATERIALS, LOAD)])
    save_model(tmp_path, "rln", model.network, model.domains, {"note": 1})
    phase = cells(20, 8, 8, 8).numpy()
    again = load_model(tmp_path).predict(phase, MATERIALS, LOAD)
    np.testing.assert_array_equal(again.strain, model.predict(phase, MATERIALS, LOAD).strain)
    assert again.strain.shape == (20, 1, 8, 8, 8)
    assert again.components == ("xx",)
    assert again.bound is None
    assert json.loads((tmp_path / "model.json").read_text())["note"] == 1


def test_all_components_survive_their_file(tmp_path):
    model = LocalizationModel(sheared("fln"), [Domain(MATERIALS, SHEARED)])
    save_model(tmp_path, "fln", model.network, model.domains, {})
    phase = cells(2, 8, 8, 8).numpy()
    again, field = (m.predict(phase, MATERIALS, [-2 * e for e in SHEARED]) for m in (load_model(tmp_path), model))
    np.testing.assert_array_equal(again.strain, field.strain)
    assert again.components == ELASTICITY.components
    np.testing.assert_allclose(field.strain.mean(axis=(2, 3, 4)), -2 * np.tile(SHEARED, (2, 1)), atol=1e-7)


def test_prediction_scales_with_the_load_and_not_with_the_unit_of_stress():
    model = LocalizationModel(network("fln"), [Domain(MATERIALS, LOAD)])
    phase = cells(1, 8, 8, 8).numpy()
    once = model.predict(phase, MATERIALS, LOAD).strain
    pascal = [Isotropic(m.young * 1e9, m.poisson) for m in MATERIALS]
    np.testing.assert_allclose(model.predict(phase, pascal, [-2e-3, 0, 0, 0, 0, 0]).strain, -2 * once, rtol=1e-6)


@pytest.mark.parametrize(
    ("materials", "load", "named"),
    [
        ([Isotropic(120, 0.3), Isotropic(2400, 0.3)], LOAD, "materials"),
        ([Isotropic(120, 0.3), Isotropic(1200, 0.2)], LOAD, "materials"),
        ([Isotropic(120, 0.3), *MATERIALS], LOAD, "materials"),
        (MATERIALS, [1e-3, 1e-3, 0, 0, 0, 0], "strain"),
        (MATERIALS, [0, 1e-3, 0, 0, 0, 0], "strain"),
    ],
)
def test_a_model_refuses_what_it_was_not_trained_for(materials, load, named):
    model = LocalizationModel(network("fln"), [Domain(MATERIALS, LOAD)])
    with pytest.raises(ValueError, match=f"{named} = .*trained for"):
        model.predict(cells(1, 8, 8, 8).numpy(), materials, load)


def test_a_model_knows_its_element_and_its_smallest_grid():
    model = LocalizationModel(network("fln"), [Domain(MATERIALS, LOAD)])
    with pytest.raises(ValueError, match=r"scheme = 'reduced': .* trained for fields of 'bbar'"):
        model.predict_problem(cells(1, 8, 8, 8).numpy(), Problem(MATERIALS, LOAD, scheme="reduced"))
    with pytest.raises(ValueError, match=r"spacing = \[1.0, 2.0, 1.0\]: .* trained for multiples of"):
        model.predict_problem(cells(1, 8, 8, 8).numpy(), Problem(MATERIALS, LOAD, spacing=(1, 2, 1)))
    with pytest.raises(ValueError, match="has 8×7×8 voxels; this network needs at least 8 along each axis"):
        model.predict(cells(1, 8, 7, 8).numpy(), MATERIALS, LOAD)


@pytest.mark.parametrize("folder", sorted(SHIPPED.iterdir()), ids=lambda folder: folder.name)
def test_what_comes_with_the_package_has_learned(folder):
    """On unseen cells of the paper's size it is better than an iteration of the solver; and it has a card."""
    domain = Domain.from_json(read_model(folder)[0].domains[0])
    problem = (generate(2, 31, 0, "test").phase, domain.materials, domain.strain)
    truth = solve(*problem, tol=1e-5).strain[:, :1]
    learned, plain = (
        np.abs(load_model(name).predict(*problem, passes=k).strain[:, :1] - truth).mean()
        for name, k in ((folder.name, None), ("cg", 1))
    )
    assert learned < 0.8 * plain
    assert f'load_model("{folder.name}")' in (folder / "README.md").read_text()


def test_the_baseline_uses_the_element_of_the_fields():
    phase = cells(1, 5, 4, 6).numpy()
    for scheme in ("bbar", "reduced"):
        with pytest.warns(NotConverged):
            expected = solve(phase, MATERIALS, LOAD, scheme=scheme, max_iterations=2, tol=0).strain
        field = load_model("cg").predict(phase, MATERIALS, LOAD, scheme=scheme, passes=2).strain
        np.testing.assert_array_equal(field, expected)


def test_the_baseline_is_the_solver_stopped_early():
    phase, model = cells(2, 9, 8, 7).numpy(), load_model("cg")
    truth = solve(phase, MATERIALS, LOAD, tol=1e-9).strain
    errors = []
    for passes in (0, 1, 5):
        field = model.predict(phase, MATERIALS, LOAD, passes=passes)
        assert field.iterations.tolist() == [passes] * 2
        errors.append(np.abs(field.strain - truth).mean())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    np.testing.assert_allclose(model.predict(phase, MATERIALS, LOAD, passes=0).strain[:, 0], 1e-3)
    assert model.predict(phase, MATERIALS, LOAD).iterations.tolist() == [model.passes] * 2


def test_a_network_stops_after_any_of_its_passes():
    model = LocalizationModel(network("rln"), [Domain(MATERIALS, LOAD)])
    phase = cells(2, 8, 8, 8)
    with torch.inference_mode():
        iterates = model.network(phase, ONE)
    for passes in model.counts:
        field = model.predict(phase.numpy(), MATERIALS, LOAD, passes=passes).strain
        np.testing.assert_allclose(field, 1e-3 * iterates[passes - 1].numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="passes = 6: must lie between 1 and 5"):
        model.predict(phase.numpy(), MATERIALS, LOAD, passes=6)


@pytest.mark.parametrize("n", [12, 31, 200])
def test_networks_take_as_many_cells_at_once_as_the_solver_on_a_card(n):
    solver = TorchOperator(Constants(Problem(MATERIALS, LOAD), (n, 8, n)), "cpu")
    assert at_once("cuda:0", (n, 8, n)) == solver.batch
    assert at_once("cpu", (n, 8, n)) == max(1, solver.batch // 8)


def test_concurrent_predictions_do_not_warn():
    """A warning is an error here. The filters of warnings are the process's, not the thread's."""
    model, phase = load_model("cg"), cells(1, 4, 4, 4).numpy()
    with ThreadPoolExecutor(8) as pool:
        fields = list(pool.map(lambda _: model.predict(phase, MATERIALS, LOAD, passes=1).strain, range(200)))
    np.testing.assert_array_equal(np.ptp(fields, axis=0), 0)


@pytest.fixture
def saved(tmp_path):
    """The folder of a small model."""
    save_model(tmp_path / "model", "fln", network("fln"), [Domain(MATERIALS, LOAD)], {"training": {"seed": 0}})
    return tmp_path / "model"


def test_the_report_gives_the_epochs_and_the_rate_of_each_network():
    names = {"rln-t-c10": ("4", "0.004"), "rln-c50": ("1", "0.002")}
    rows = describe_networks({name: SHIPPED / name / "model.json" for name in names}).set_index("network")
    assert {name: tuple(rows.loc[name, ["epochs", "learning rate"]]) for name in names} == names


def refused(folder, message=""):
    """That a model is refused in one line, where it is used and in the report."""
    for read in (load_model, lambda folder: describe_networks({"fln": folder / "model.json"})):
        with pytest.raises(ValueError, match=f"^{re.escape(str(folder))}.*{message}") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_a_bit_that_is_flipped_in_a_model_is_noticed(saved):
    rng = np.random.default_rng(0)
    for file in sorted(saved.iterdir()):
        whole = file.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            data[rng.integers(min(len(data), rng.choice([1000, 10**9])))] ^= 1 << rng.integers(8)
            file.write_bytes(data)
            refused(saved)
        file.write_bytes(whole)
    load_model(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [("architecture", "rln-t"), ("domains", []), ("sha256", None), ("model_version", None), ("note", 1)],
)
def test_a_description_that_was_edited_is_refused(saved, key, value):
    described = json.loads((saved / "model.json").read_text())
    described = {k: v for k, v in (described | {key: value}).items() if v is not None}
    (saved / "model.json").write_text(json.dumps(described))
    refused(saved, r"model\.json: does not belong to model\.safetensors, or one of the two was changed")


def test_weights_of_another_model_are_refused(saved, tmp_path):
    save_model(tmp_path / "other", "fln", network("fln", seed=1), [Domain(MATERIALS, LOAD)], {})
    shutil.copy(tmp_path / "other/model.safetensors", saved)
    refused(saved, r"model\.json: does not belong to model\.safetensors")


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"fln", b'"fln"', b"[]", b"{}", b'{"architecture": 1}', b"[" * 10**5]
)
def test_a_description_that_is_none_is_refused(saved, text):
    (saved / "model.json").write_bytes(text)
    refused(saved, r"model\.json: is damaged")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"architecture": "unet"}, "architecture = 'unet': must be one of"),
        ({"architecture": "rln"}, "Missing key"),
        ({"components": []}, r"is damaged: components = \[\]"),
        ({"components": list(ELASTICITY.components)}, "size mismatch"),
        ({"domains": [{}]}, r"cannot be loaded: .*materials"),
        ({"domains": [{"materials": [], "strain": LOAD, "scheme": "bbar"}]}, "materials = "),
        (
            {"domains": [{"materials": [{"young": 1.0}], "strain": LOAD, "scheme": "bbar"}]},
            "poisson is missing",
        ),
        ({"seconds": "1"}, "is damaged: seconds = '1'"),
    ],
)
def test_a_model_of_an_earlier_version_has_no_checksum(saved, changed, message):
    """It is read as far as its parts make a model."""
    described = json.loads((saved / "model.json").read_text()) | changed
    del described["sha256"], described["model_version"]
    (saved / "model.json").write_text(json.dumps(described))
    if message is None:
        assert load_model(saved).passes == 1
    else:
        with pytest.raises(ValueError, match=message) as caught:
            load_model(saved)
        assert str(caught.value).startswith(str(saved))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(saved, tmp_path, value):
    net = network("fln")
    net.nets[0].flat.bias.data[:] = value
    with pytest.raises(ValueError, match=r"the weights nets\.0\.flat\.bias must be finite numbers"):
        save_model(tmp_path / "out", "fln", net, [Domain(MATERIALS, LOAD)], {})
    described = json.loads((saved / "model.json").read_text())
    del described["sha256"], described["model_version"]
    (saved / "model.json").write_text(json.dumps(described))
    save_file({name: w.contiguous() for name, w in net.state_dict().items()}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights nets\.0\.flat\.bias must be finite"):
        load_model(saved)


def test_a_folder_has_one_writer_who_removes_what_a_killed_one_left(saved):
    left = saved / f".model.safetensors.{'0' * 32}"
    left.write_bytes(b"half")
    with writing(saved):
        assert not left.exists()
        with pytest.raises(ValueError, match="another process is writing here"), writing(saved):
            pass


@pytest.mark.parametrize("name", ["cg0", "nothing", "cgx"])
def test_unknown_models_are_named(name):
    said = (
        f"{name}: must be a folder with a model.json, or one of 'fln-c10', .*, 'rln-cg', 'rln-t-c10', 'rln-t-c50', 'cg'"
    )
    with pytest.raises(ValueError, match=said):
        load_model(name)


CLASS = """
from torch import nn

class Net(nn.Module):
    {passes}

    def __init__(self, phases, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(phases, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Conv3d(4, channels, 1))

    def forward(self, indicators):
        {forward}
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """own(passes=..., forward=...): the architecture of a class in a file of the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    names = iter(range(9))

    def write(passes="", forward="return self.layers(indicators)", source=CLASS):
        module = f"own{abs(hash(request.node.name))}_{next(names)}"
        (tmp_path / f"{module}.py").write_text(source.replace("{passes}", passes).replace("{forward}", forward))
        return f"{module}:Net"

    return write


def test_a_class_in_a_users_file_is_a_network(own, tmp_path):
    """Its fields are told the phases, scaled by the load, and have the exact mean; its file is found without import."""
    architecture = own("passes = 2", "y = self.layers(indicators); return [y, 2 * y]")
    assert source_file(architecture) == tmp_path / f"{architecture[:-4]}.py"
    assert source_file("rln") is None
    net = build(architecture, 2, 6).eval()
    save_model(tmp_path / "model", architecture, net, [Domain(MATERIALS, SHEARED)], {})
    phase, model = cells(2, 8, 9, 10), load_model(tmp_path / "model")
    assert model.counts == (1, 2)
    with torch.inference_mode():
        y = net.network.layers(torch.stack([1.0 - phase, phase], dim=1))
    fluctuation = (y - y.mean(dim=(2, 3, 4), keepdim=True)).numpy()
    for passes in model.counts:
        field = model.predict(phase.numpy(), MATERIALS, [2 * e for e in SHEARED], passes=passes).strain
        mean = 2 * np.array(SHEARED).reshape(6, 1, 1, 1)
        np.testing.assert_allclose(field, mean + 2e-3 * passes * fluctuation, atol=1e-8)
    (tmp_path / f"{architecture[:-4]}.py").rename(tmp_path / "gone.py")
    with pytest.raises(ValueError, match=f"model: .* architecture = '{architecture}': there is no module"):
        load_model(tmp_path / "model")


def test_a_users_class_may_see_the_macroscopic_strain(own):
    """Relative to its first component; without seeing it, a class cannot learn several loads."""
    blind = own()
    source = CLASS.replace("forward(self, indicators)", "forward(self, indicators, mean)")
    seeing = own(source=source, forward="return self.layers(indicators) + mean * indicators[:, :1]")
    net, phase = build(seeing, 2, 6), cells(1, 8, 8, 8)
    net.check(phase, loads=2)
    mean = net.mean(Problem(MATERIALS, (0.0, 0.0, -2e-3, 0.0, 0.0, 1e-3)), "cpu")
    np.testing.assert_allclose(mean.flatten(), [0, 0, 1, 0, 0, -0.5])
    difference = net(phase, mean)[0] - net(phase, 0 * mean)[0]
    soft = (phase == 0).float()[:, None]
    torch.testing.assert_close(difference, mean * (1 + soft - soft.mean()), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="forward has no argument mean, which it needs to learn 2 loads"):
        build(blind, 2, 6).check(phase, loads=2)


def test_weights_that_layers_share_survive_their_file(own, tmp_path):
    architecture = own(forward="self.layers[2] = self.again = self.layers[2]; return self.layers(indicators)")
    net = build(architecture, 2).eval()
    with torch.inference_mode():
        (field,) = net(cells(1, 8, 8, 8), ONE)
    save_model(tmp_path / "model", architecture, net, [Domain(MATERIALS, LOAD)], {})
    assert load_file(tmp_path / "model" / "model.safetensors").keys() >= {
        "network.again.weight",
        "network.layers.2.weight",
    }
    assert field.shape == (1, 1, 8, 8, 8)


def test_a_module_of_this_name_that_python_has_already_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "json.py").write_text(
        CLASS.replace("{passes}", "").replace("{forward}", "return self.layers(indicators)")
    )
    with pytest.raises(
        ValueError, match=r"architecture = 'json:Net': Python has imported json from .*; rename the module"
    ):
        build("json:Net", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "class Net: pass"}, r"\.py has no class Net that extends torch\.nn\.Module$"),
        ({"source": "import torch\n\ntorch.nothing"}, r"import .* AttributeError: .* 'nothing' \(/.*\.py, line 3\)$"),
        ({"source": "Net ="}, r"import \S+ fails: SyntaxError: invalid syntax"),
        ({"source": "from torch.nn import Identity as Net"}, r"has no parameters to train"),
        (
            {"source": CLASS.replace("phases, channels)", "phases)")},
            r"Net\(phases=2, channels=1\) fails: TypeError: .* 'channels'",
        ),
        ({"passes": "passes = 0"}, r"passes = 0; must be an integer, at least 1$"),
        ({"passes": "passes = 2"}, r"returns \(1, 1, 8, 8, 8\); must return \(1, 1, 8, 8, 8\) 2 times"),
        ({"forward": "return None"}, r"returns NoneType; must return \(1, 1, 8, 8, 8\)$"),
        ({"forward": "return indicators"}, r"returns \(1, 2, 8, 8, 8\); must return \(1, 1, 8, 8, 8\)$"),
        ({"forward": "return self.layers(indicators[:, :1])"}, r"forward on .* RuntimeError: .* \(/.*\.py, line 12\)$"),
    ],
)
def test_a_users_class_that_cannot_serve_is_refused_in_one_line(own, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(own(**changes), 2).check(cells(1, 8, 8, 8), loads=1)
    assert str(caught.value).startswith("architecture = 'own")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["unet", ":Net", "unet:", "lspipe.models.nothing:Net", "nothing.nets:Net"])
def test_a_network_that_is_not_found_is_named(architecture):
    with pytest.raises(ValueError, match=f"^architecture = {architecture!r}: "):
        build(architecture, 2)
