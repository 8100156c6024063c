"""The paper's networks: layers, invariants, files."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv3d, conv_transpose3d, pad, prelu

from lspipe import Isotropic, generate, load_model, solve
from lspipe.cell.operator import Constants
from lspipe.cell.operator_torch import TorchOperator
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.files import SHIPPED, read_model, save_model, writing
from lspipe.models.localization import LocalizationModel, at_once
from lspipe.models.rln import PAPER
from lspipe.models.vnet import VNet
from lspipe.models.winograd import WinogradConv3d
from lspipe.summary import networks

MATERIALS = (Isotropic(120, 0.3), Isotropic(1200, 0.3))
LOAD = (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0)


def network(architecture, seed=0):
    torch.manual_seed(seed)
    return build(architecture, phases=2).eval()


def cells(count, *grid, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (count, *grid), dtype=np.uint8))


# Layers of the published network: weight shape, in the order of the data.
LAYERS = [
    ("begin_1.conv", (16, 6, 3, 3, 3)),
    ("begin_2.conv", (16, 16, 3, 3, 3)),
    ("down.conv", (32, 16, 2, 2, 2)),
    ("down_1.conv", (32, 32, 3, 3, 3)),
    ("down_2.conv", (32, 32, 3, 3, 3)),
    ("up.conv", (32, 32, 2, 2, 2)),
    ("end_1.conv", (32, 48, 3, 3, 3)),
    ("end_2", (16, 32, 3, 3, 3)),
    ("flat", (1, 16, 1, 1, 1)),
]


def test_vnet_has_the_published_layers():
    weights = {k: tuple(v.shape) for k, v in VNet().state_dict().items() if v.ndim == 5}
    assert weights == {f"{name}.weight": shape for name, shape in LAYERS}


@pytest.mark.parametrize(("architecture", "parameters"), [("fln", 132_801), ("rln-t", 132_801), ("rln", 664_005)])
def test_parameter_counts_are_the_papers(architecture, parameters):
    assert sum(p.numel() for p in network(architecture).parameters()) == parameters


SHEARED = (1e-3, -5e-4, 0.0, 0.0, 0.0, 5e-4)


def sheared(architecture):
    """A network of all six components."""
    torch.manual_seed(0)
    return build(architecture, 2, Domain(MATERIALS, SHEARED).relative(6)).eval()


def test_all_components_widen_the_first_and_the_last_layer_alone():
    weights = {k: tuple(v.shape) for k, v in sheared("fln").nets[0].state_dict().items() if v.ndim == 5}
    wide = {"begin_1.conv": (16, 36, 3, 3, 3), "flat": (6, 16, 1, 1, 1)}
    assert weights == {f"{name}.weight": shape for name, shape in (dict(LAYERS) | wide).items()}


def test_all_components_follow_the_papers_recurrence():
    """Each phase's indicator times each component; component c starts at Ē_c/Ē_xx and keeps that mean."""
    net, phase = sheared("rln-t"), cells(2, 8, 9, 10)
    mean = torch.tensor(SHEARED).reshape(6, 1, 1, 1) / 1e-3
    past = [mean.expand(2, 6, 8, 9, 10), *[torch.zeros(2, 6, 8, 9, 10)] * 2]
    for iterate in net(phase):
        features = [(phase == p).float() * y[:, c].clone() for y in past for p in (0, 1) for c in range(6)]
        p = net.nets[0](torch.stack(features, dim=1))
        past = [mean + p - torch.stack([a.mean(dim=(1, 2, 3), keepdim=True) for a in p]), *past[:2]]
        torch.testing.assert_close(iterate, past[0])
        torch.testing.assert_close(iterate.mean(dim=(2, 3, 4)), mean.flatten().expand(2, 6), rtol=0, atol=1e-5)


def straightforward(net, x):
    """The published V-Net as it is described: pad, nine layers with periodic padding, crop."""
    grid = x.shape[2:]
    padded = [next(m for m in range(n + 4, n + 8) if m % 4 == 0) for n in grid]
    before = [(m - n) // 2 for m, n in zip(padded, grid, strict=True)]
    sides = [s for m, n, b in zip(padded[::-1], grid[::-1], before[::-1], strict=True) for s in (b, m - n - b)]

    def periodic(conv, x):
        return conv3d(pad(x, (1,) * 6, mode="circular"), conv.weight, conv.bias)

    def layer(block, x, conv=periodic):
        return prelu(conv(block.conv, x), block.activ.weight)

    x = pad(x, sides, mode="circular")
    skip = layer(net.begin_2, layer(net.begin_1, x))
    x = layer(net.down, skip, lambda conv, x: conv3d(x, conv.weight, conv.bias, stride=2))
    x = layer(net.down_2, layer(net.down_1, x))
    x = layer(net.up, x, lambda conv, x: conv_transpose3d(x, conv.weight, conv.bias, stride=2))
    x = periodic(net.end_2, layer(net.end_1, torch.cat([x, skip], dim=1)))
    x = net.flat(x)
    bx, by, bz = (slice(b, b + n) for b, n in zip(before, grid, strict=True))
    return x[..., bx, by, bz]


@pytest.mark.parametrize("grid", [(8, 8, 8), (9, 10, 11), (12, 31, 8)])
def test_vnet_equals_the_straightforward_network_in_value_and_gradient(grid):
    torch.manual_seed(0)
    net = VNet().double()
    for activation in (m for m in net.modules() if isinstance(m, torch.nn.PReLU)):
        activation.weight.data.uniform_(0.1, 0.5)
    x = torch.randn(2, 6, *grid, dtype=torch.float64)
    gradients = []
    for y in (net(x), straightforward(net, x)):
        net.zero_grad()
        y.pow(3).sum().backward()
        gradients.append((y.detach(), *(p.grad.clone() for p in net.parameters())))
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", range(1, 9))
def test_winograd_convolution_is_the_direct_one_in_value_and_gradient(n):
    torch.manual_seed(0)
    conv = WinogradConv3d(3, 4, 3).double()
    x = torch.randn(2, 3, n + 2, 5, 6, dtype=torch.float64, requires_grad=True)
    fast, slow = conv(x), conv3d(x, conv.weight, conv.bias)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    of = [x, *conv.parameters()]
    gradients = zip(*(torch.autograd.grad(y.pow(3).sum(), of) for y in (fast, slow)), strict=True)
    for mine, direct in gradients:
        torch.testing.assert_close(mine, direct, rtol=0, atol=1e-10)


def test_single_precision_costs_the_fast_network_no_more_digits_than_the_straightforward_one():
    torch.manual_seed(0)
    net, x = VNet(), torch.randn(2, 6, 31, 31, 31)
    with torch.inference_mode():
        fast, slow = net(x), straightforward(net, x)
        exact = straightforward(net.double(), x.double())
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
    for iterate in net(phase):
        features = torch.cat([indicator * y for y in past for indicator in (soft, stiff)], dim=1)
        p = net.nets[0](features)
        past = [1 + p - p.mean(), *past[:2]]
        torch.testing.assert_close(iterate, past[0])


@pytest.mark.parametrize("architecture", PAPER)
@pytest.mark.parametrize("grid", [(8, 8, 8), (9, 12, 11)])
def test_mean_strain_is_exact_and_the_batch_does_not_matter(architecture, grid):
    net, phase = network(architecture), cells(3, *grid)
    with torch.inference_mode():
        together, alone = net(phase), [net(p[None]) for p in phase]
    assert len(together) == PAPER[architecture]["passes"]
    for t, iterate in enumerate(together):
        torch.testing.assert_close(iterate.mean(dim=(2, 3, 4)), torch.ones(3, 1), rtol=0, atol=1e-5)
        torch.testing.assert_close(iterate, torch.cat([a[t] for a in alone]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", PAPER)
def test_every_parameter_learns(architecture):
    net = network(architecture).train()
    sum(y.square().mean() for y in net(cells(2, 8, 8, 8))).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A constant added to the last layers' output is subtracted again as the mean: their biases are idle.
    assert all(name.endswith(("end_2.bias", "flat.bias")) for name in still)


def test_a_model_survives_its_file(tmp_path):
    model = LocalizationModel(network("rln"), Domain(MATERIALS, LOAD))
    save_model(tmp_path, "rln", model.network, [model.domain], {"note": 1})
    phase = cells(20, 8, 8, 8).numpy()
    again = load_model(tmp_path).predict(phase, MATERIALS, LOAD)
    np.testing.assert_array_equal(again.strain, model.predict(phase, MATERIALS, LOAD).strain)
    assert again.strain.shape == (20, 1, 8, 8, 8)
    assert again.components == ("xx",)
    assert again.bound is None
    assert json.loads((tmp_path / "model.json").read_text())["note"] == 1


def test_all_components_survive_their_file(tmp_path):
    model = LocalizationModel(sheared("fln"), Domain(MATERIALS, SHEARED))
    save_model(tmp_path, "fln", model.network, [model.domain], {})
    phase = cells(2, 8, 8, 8).numpy()
    again, field = (m.predict(phase, MATERIALS, [-2 * e for e in SHEARED]) for m in (load_model(tmp_path), model))
    np.testing.assert_array_equal(again.strain, field.strain)
    assert again.components == ELASTICITY.components
    np.testing.assert_allclose(field.strain.mean(axis=(2, 3, 4)), -2 * np.tile(SHEARED, (2, 1)), atol=1e-7)


def test_prediction_scales_with_the_load_and_not_with_the_unit_of_stress():
    model = LocalizationModel(network("fln"), Domain(MATERIALS, LOAD))
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
        (MATERIALS, [1e-3, None, 0, 0, 0, 0], "strain"),
    ],
)
def test_a_model_refuses_what_it_was_not_trained_for(materials, load, named):
    model = LocalizationModel(network("fln"), Domain(MATERIALS, LOAD))
    with pytest.raises(ValueError, match=f"{named} = .*trained for"):
        model.predict(cells(1, 8, 8, 8).numpy(), materials, load)


def test_a_model_knows_its_element_and_its_smallest_grid():
    model = LocalizationModel(network("fln"), Domain(MATERIALS, LOAD))
    with pytest.raises(ValueError, match=r"scheme = 'reduced': .* trained for fields of 'bbar'"):
        model.predict_problem(cells(1, 8, 8, 8).numpy(), Problem(MATERIALS, LOAD, scheme="reduced"))
    with pytest.raises(ValueError, match=r"spacing = \[1.0, 2.0, 1.0\]: .* trained for multiples of"):
        model.predict_problem(cells(1, 8, 8, 8).numpy(), Problem(MATERIALS, LOAD, spacing=(1, 2, 1)))
    with pytest.raises(ValueError, match="at least 8 voxels"):
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
    model = LocalizationModel(network("rln"), Domain(MATERIALS, LOAD))
    phase = cells(2, 8, 8, 8)
    with torch.inference_mode():
        iterates = model.network(phase)
    for passes in model.counts:
        field = model.predict(phase.numpy(), MATERIALS, LOAD, passes=passes).strain
        np.testing.assert_allclose(field, 1e-3 * iterates[passes - 1].numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="passes = 6: must lie between 1 and 5"):
        model.predict(phase.numpy(), MATERIALS, LOAD, passes=6)


@pytest.mark.parametrize("n", [12, 31, 200])
def test_networks_take_as_many_cells_at_once_as_the_solver_on_a_card(n):
    solver = TorchOperator(Constants(MATERIALS, (n, 8, n), (1.0, 1.0, 1.0), "bbar"), "cpu")
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


def refused(folder, message=""):
    """That a model is refused in one line, where it is used and in the report."""
    for read in (load_model, lambda folder: networks({"fln": folder / "model.json"})):
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
        ({"domains": [{}]}, r"make no model: .*materials"),
        ({"domains": [{"materials": [], "strain": LOAD, "scheme": "bbar"}]}, "materials = "),
        (
            {"domains": [{"materials": [{"young": 1.0}], "strain": LOAD, "scheme": "bbar"}]},
            "kind = None: must be one of",
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
    with pytest.raises(ValueError, match=r"the weights nets\.0\.flat\.bias must be finite float32 numbers"):
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
