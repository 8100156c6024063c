"""Published weights: the network they hold is the one that predicts here; nothing in them is executed."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import pad

from lspipe import Isotropic, load_model, open_dataset
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.evaluate import evaluate
from lspipe.models.published import import_published

MATERIALS = [Isotropic(120, 0.3), Isotropic(6000, 0.3)]
LOAD = [1e-3, 0, 0, 0, 0, 0]
# What torch.save says of classes that come from no file.
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source")

PASSES = {"fln": 1, "rln-t": 5, "rln": 5}


class Conv(nn.Module):
    def __init__(self, channels_in, channels_out, activ=True):
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3)
        self.activ = nn.PReLU(channels_out) if activ else nn.Identity()

    def forward(self, x):
        return self.activ(self.conv(pad(x, (1,) * 6, mode="circular")))


class PublishedVNet(nn.Module):
    """The V-Net as published: names, padding, order of concatenation; arrays in (z, y, x) order."""

    def __init__(self):
        super().__init__()
        self.conv_begin_1, self.conv_begin_2 = Conv(6, 16), Conv(16, 16)
        self.down_block = nn.ModuleDict({"convdown": nn.Conv3d(16, 32, 2, stride=2), "activ_down": nn.PReLU(32)})
        self.conv_down_1, self.conv_down_2 = Conv(32, 32), Conv(32, 32)
        self.up_block = nn.ModuleDict({"conv_up": nn.ConvTranspose3d(32, 32, 2, stride=2), "activ_up": nn.PReLU(32)})
        self.conv_end_1, self.conv_end_2 = Conv(48, 32), Conv(32, 16, activ=False)
        self.output_block = nn.ModuleDict({"convflat": nn.Conv3d(16, 1, 1)})

    def forward(self, x):
        nz, ny, nx = x.shape[2:]
        more = [-(-(n + 4) // 4) * 4 - n for n in (nx, ny, nz)]
        x = pad(x, [side for m in more for side in (m // 2, m - m // 2)], mode="circular")
        skip = self.conv_begin_2(self.conv_begin_1(x))
        x = self.down_block.activ_down(self.down_block.convdown(skip))
        x = self.conv_down_2(self.conv_down_1(x))
        x = self.up_block.activ_up(self.up_block.conv_up(x))
        x = self.conv_end_2(self.conv_end_1(torch.cat([x, skip], dim=1)))
        x = self.output_block.convflat(x)
        bx, by, bz = (m // 2 for m in more)
        return x[:, :, bz : bz + nz, by : by + ny, bx : bx + nx]


class Published(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.passes = PASSES[architecture]
        if architecture == "rln":
            self.modlist = nn.ModuleList([PublishedVNet() for _ in range(5)])
        else:
            self.model = PublishedVNet()

    def forward(self, phase):
        """Iterates ε_xx/ε̄_xx of one microstructure (nz, ny, nx)."""
        indicator = torch.stack([phase == 0, phase == 1])[None].to(next(self.parameters()).dtype)
        y, y1, y2 = torch.ones_like(indicator[:, :1]), torch.zeros(()), torch.zeros(())
        iterates = []
        for t in range(self.passes):
            net = self.modlist[t] if hasattr(self, "modlist") else self.model
            p = net(torch.cat([indicator * y, indicator * y1, indicator * y2], dim=1))
            y, y1, y2 = 1 + (p - p.mean()), y, y1
            iterates.append(y[0, 0])
        return iterates


def checkpoint(architecture, seed=0):
    """The network and what the authors' script saves of it, after a step of training."""
    torch.manual_seed(seed)
    network = Published(architecture)
    for name, p in network.named_parameters():
        if "activ" in name:
            nn.init.uniform_(p, 0.05, 0.6)
        elif p.ndim == 5:
            nn.init.kaiming_normal_(p, a=0.3)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60, eta_min=1e-8)
    network(torch.randint(2, (8, 8, 8)))[-1].square().mean().backward()
    optimizer.step()
    scheduler.step()
    vnet = {"name": "v", "type": Stub("TinyVNet"), "d1": 16, "d2": 32, "din": 6, "ks": 3}
    return network, {
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict() | {"best": np.float64(3.2), "seen": torch.Size([2])},
        "n_epochs_elapsed": 60,
        "save_name": architecture,
        "net_params": {
            "name": architecture,
            "type": Stub("RecurrentLocalizationNet"),
            "model_type": Stub("TinyVNet"),
            "model_params": vnet,
            "nprev": 2,
            "npasses": network.passes,
            "ds": 31,
            "reuse_net": architecture != "rln",
            "enforce_avg": True,
        },
    }


class Stub(str):
    """Stands for a class of the authors' module until the file is written."""


def save(content, path, *, legacy=False, **options):
    """torch.save where the authors' module is there: their classes go into the file as such."""
    module = types.ModuleType("rln.model_types")

    def real(value):
        if isinstance(value, Stub):
            if not hasattr(module, value):
                setattr(module, value, type(str(value), (nn.Module,), {"__module__": module.__name__}))
            return getattr(module, value)
        return {k: real(v) for k, v in value.items()} if type(value) is dict else value

    content = real(content)
    sys.modules |= {"rln": types.ModuleType("rln"), module.__name__: module}
    try:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    finally:
        del sys.modules["rln"], sys.modules[module.__name__]
    return path


@pytest.fixture(scope="module", params=[*((name, "zip") for name in PASSES), ("rln", "legacy")], ids="-".join)
def imported(request, tmp_path_factory):
    """(architecture, published network, folder of the model that was made of its checkpoint)."""
    architecture, form = request.param
    folder = tmp_path_factory.mktemp("imported")
    network, content = checkpoint(architecture)
    save(content, folder / "published.pth", legacy=form == "legacy")
    import_published(folder / "published.pth", folder / "model", contrast=50)
    return architecture, network, folder / "model"


@pytest.mark.parametrize("grid", [(9, 12, 10), (14, 8, 11), (8, 11, 13)])
def test_an_imported_model_predicts_what_the_published_network_does(imported, grid):
    """Pass by pass, the published network in double precision and one microstructure at a time."""
    architecture, network, folder = imported
    phase = np.random.default_rng(0).integers(0, 2, (2, *grid), dtype=np.uint8)
    model = load_model(folder)
    assert model.passes == PASSES[architecture]
    iterates = [field for _, _, field in model.iterates(phase, Problem(MATERIALS, LOAD))]
    with torch.inference_mode():
        truth = [network.double()(torch.from_numpy(p.transpose(2, 1, 0).copy())) for p in phase]
    for t, field in enumerate(iterates):
        expected = np.stack([one[t].numpy().transpose(2, 1, 0) for one in truth])
        assert expected.std() > 0.1
        np.testing.assert_allclose(field.strain[:, 0] / 1e-3, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_an_imported_model_says_what_it_is_for(imported):
    architecture, network, folder = imported
    described = json.loads((folder / "model.json").read_text())
    assert described["architecture"] == architecture
    phases = [{"kind": "isotropic", "young": young, "poisson": 0.3} for young in (120.0, 6000.0)]
    assert described["domains"] == [{"materials": phases, "strain": LOAD, "scheme": "bbar"}]
    digest = hashlib.sha256((folder.parent / "published.pth").read_bytes()).hexdigest()
    assert described["imported"] == {"file": "published.pth", "sha256": digest}
    model = load_model(folder)
    assert (
        model.parameters == sum(p.numel() for p in network.parameters()) == {"rln": 664_005}.get(architecture, 132_801)
    )
    with pytest.raises(ValueError, match=r"materials = .*trained for"):
        model.predict(np.zeros((1, 8, 8, 8), np.uint8), [MATERIALS[0], Isotropic(1200, 0.3)], LOAD)


def test_an_imported_model_is_evaluated_like_a_trained_one(tmp_path):
    network, content = checkpoint("fln")
    save(content, tmp_path / "published.pth")
    stores = tmp_path / "cells.zarr", tmp_path / "strain.zarr"
    write_microstructures(stores[0], count=3, n=9, seed=0, split="test", per_shard=3)
    problem = Problem((Isotropic(1, 0.2), Isotropic(7, 0.2)), (1e-3, 0, 0, 0, 0, 0))
    create_fields(stores[1], stores[0], problem, tol=1e-4, per_shard=3)
    solve_fields(stores[1], stores[0])
    import_published(tmp_path / "published.pth", tmp_path / "model", contrast=7, young=1, poisson=0.2)
    errors, examples = evaluate(load_model(tmp_path / "model"), *stores)
    phase = open_dataset(tmp_path / "cells.zarr").phase.values
    truth = open_dataset(tmp_path / "strain.zarr").strain.sel(component="xx").values / 1e-3
    for p, y, row in zip(phase, truth, errors.itertuples(), strict=True):
        with torch.inference_mode():
            predicted = network(torch.from_numpy(p.transpose(2, 1, 0).copy()))[-1].numpy().transpose(2, 1, 0)
        assert row.mase == pytest.approx(100 * np.abs(predicted - y).mean(), rel=1e-4)
    assert examples.sizes["example"] == 3


class Reduced:
    """Goes into a pickle as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def view(size, stride, offset=0, numel=16):
    """A tensor as torch.save writes it, of any geometry."""
    storage = torch.zeros(numel)._typed_storage()
    return Reduced(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def zipped(program, **entries):
    """A zip file of torch.save with a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {"data.pkl": program, "byteorder": b"little", **entries}.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def legacy(program, keys, little_endian=True):
    """A file of torch.save before there were zip files."""
    head = (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": little_endian})
    return b"".join(pickle.dumps(part, 2) for part in head) + program + keys


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


SLOW = b")q\x00" + 90 * b"h\x00\x86q\x00"  # ((((),()),((),())),…): 2^90 steps to hash or to print


@pytest.fixture(scope="module")
def fln():
    return checkpoint("fln")[1]


@pytest.fixture
def refuses(fln, tmp_path):
    """refuses(file, said): the import stops with one line that says so, and leaves nothing behind."""

    def check(file, said):
        if isinstance(file, bytes):
            (tmp_path / "x.pth").write_bytes(file)
        before = set(tmp_path.iterdir())
        with pytest.raises(ValueError, match=said) as caught:
            import_published(tmp_path / "x.pth", tmp_path / "out", contrast=10)
        assert str(caught.value).startswith(f"{tmp_path / 'x.pth'}: ")
        assert len(str(caught.value).splitlines()) == 1
        assert set(tmp_path.iterdir()) == before

    return check


def with_weight(content, value, name="model.conv_end_2.conv.bias"):
    return content | {"model_state_dict": OrderedDict(content["model_state_dict"] | {name: value})}


@pytest.mark.parametrize("options", [{}, {"legacy": True}, {"pickle_protocol": 4}], ids=["zip", "legacy", "protocol 4"])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch executed",), f"{os.system.__module__}.system"),
        (eval, ("open('executed', 'w')",), "(builtins|__builtin__).eval"),
        (getattr, (Stub, "mro"), "(builtins|__builtin__).getattr"),
        (os.path.join, ("a", "b"), "posixpath.join"),
        (torch.hub.load, ("a", "b"), "torch.hub.load"),
        (pickle.loads, (pickle.dumps(1),), "(_pickle|pickle|cPickle).loads"),
    ],
)
def test_calls_are_refused_by_name(fln, refuses, tmp_path, monkeypatch, options, function, arguments, name):
    monkeypatch.chdir(tmp_path)
    for content in (Reduced(function, *arguments), {"a": Reduced(function, *arguments)} | fln):
        save(content, tmp_path / "x.pth", **options)
        refuses(None, f": holds {name}, which the weights do not need; the file is refused")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_refused(refuses, protocol):
    bare = pickle.dumps(Reduced(os.system, "touch executed"), protocol)
    for file in (bare, zipped(bare)):
        refuses(file, f": holds {os.system.__module__}.system, which the weights do not need; the file is refused")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"\x80\x02cos\nsystem\n.", "holds os.system"),
        (b"\x80\x02cos\nsys\x1btem\n.", r"holds os.sys\\x1btem"),
        (b"\x80\x02(ios\nsystem\n.", "damaged"),
        (b"\x80\x02\x82\x01.", "damaged"),
        (b"\x80\x02Pposix.system\n.", "damaged"),
        (b"\x80\x02" + text("posix.system") + b"Q.", "damaged"),
        (b"\x80\x02(" + text("storage") + text("torch.FloatStorage") + text("0") + b"NNtQ.", "damaged"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "has no net_params"),
        (b"\x80\x02]a.", "damaged"),
        (b"\x80\x02}(" + SLOW + b"Nu.", "damaged"),
        (b"\x80\x02}" + SLOW + b"Ns.", "damaged"),
        (
            b"\x80\x02}(" + text("model_state_dict") + b"}" + text("net_params") + b"}" + text("type") + SLOW + b"su.",
            "tuple",
        ),
        (b"\x80\x02}" + text("net_params") + b"}s.", "has no model_state_dict"),
        (b"\x80\x02)" + 10**5 * b"\x85" + b".", "has no net_params"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"NsbK\x01a.", "damaged"),
        (b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02X\xff\xff\xff\xff.", "damaged"),
        (b"", "damaged"),
    ],
)
def test_hostile_programs_are_refused(refuses, program, said):
    refuses(zipped(program), said)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (view((16,), (1,), offset=1), "reaches outside of its storage"),
        (view((16,), (2,)), "reaches outside of its storage"),
        (view((16,), (-1,), offset=15), "reaches outside of its storage"),
        (view((16,), (2**62,)), "reaches outside of its storage"),
        (view((16,), (1,), offset=-1), "reaches outside of its storage"),
        (view((16,), (1, 1)), "damaged"),
        (view((16,), ("1",)), "damaged"),
        (view(([16],), (1,)), r"is torch.float32 tuple: must be torch.float32 \(16,\)"),
        (view((2**40,), (1,)), r"is torch.float32 \(1099511627776,\): must be torch.float32 \(16,\)"),
        (torch.zeros(15), r"model.conv_end_2.conv.bias is torch.float32 \(15,\): must be torch.float32 \(16,\)"),
        (torch.zeros(16).double(), r"is torch.float64 \(16,\): must be torch.float32 \(16,\)"),
        (torch.full((16,), torch.nan), "model.conv_end_2.conv.bias holds NaN or infinity"),
        (torch.full((16,), torch.inf), "model.conv_end_2.conv.bias holds NaN or infinity"),
        ([0.0] * 16, "is list: must be torch.float32"),
    ],
)
def test_wrong_weights_are_named(fln, refuses, tmp_path, legacy, stored, said):
    save(with_weight(fln, stored), tmp_path / "x.pth", legacy=legacy)
    refuses(None, said)


def test_missing_and_foreign_weights_are_named(fln, refuses, tmp_path):
    weights = fln["model_state_dict"]
    lacking = {k: v for k, v in weights.items() if k != "model.down_block.activ_down.weight"}
    save(fln | {"model_state_dict": lacking}, tmp_path / "x.pth")
    refuses(None, "lacks the weights 'model.down_block.activ_down.weight'")
    save(with_weight(fln, torch.zeros(1), "model.extra\n"), tmp_path / "x.pth")
    refuses(None, r"has weights of no layer, 'model.extra\\n'")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("npasses", 3, "npasses = 3: must be 1 or 5"),
        ("npasses", None, "npasses = None: must be 1 or 5"),
        ("npasses", 5, None),  # the weights of an FLN are those of an RLN-t
        ("nprev", 1, "nprev = 1: must be 2"),
        ("enforce_avg", False, "enforce_avg = False: must be True"),
        ("model_type", Stub("UNet"), "model_type = 'rln.model_types.UNet': must be 'rln.model_types.TinyVNet'"),
    ],
)
def test_other_networks_are_refused(fln, refuses, tmp_path, key, value, said):
    save(fln | {"net_params": fln["net_params"] | {key: value}}, tmp_path / "x.pth")
    if said is None:
        import_published(tmp_path / "x.pth", tmp_path / "out", contrast=10)
        assert load_model(tmp_path / "out").network.passes == value
    else:
        refuses(None, f"net_params.{said}")


def test_another_architecture_than_the_named_one_is_refused(fln, tmp_path):
    save(fln, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: holds the architecture fln; must hold rln"):
        import_published(tmp_path / "x.pth", tmp_path / "out", contrast=10, architecture="rln")
    assert not (tmp_path / "out").exists()
    import_published(tmp_path / "x.pth", tmp_path / "out", contrast=10, architecture="fln")


def test_weights_must_be_those_of_the_architecture(fln, refuses, tmp_path):
    untied = fln["net_params"] | {"npasses": 5, "reuse_net": False}
    save(fln | {"net_params": untied}, tmp_path / "x.pth")
    refuses(None, r"rln has 125 weights, and the file has 25")


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_refused(fln, refuses, tmp_path, legacy):
    whole = save(fln, tmp_path / "x.pth", legacy=legacy).read_bytes()
    for length in (0, 1, 2, 30, 1000, 5000, len(whole) // 2, len(whole) - 1):
        refuses(whole[:length], "is damaged or was not written by torch.save")


def test_other_files_are_refused(fln, refuses, tmp_path):
    refuses(b"\x89PNG\r\n\x1a\n", "is damaged or was not written by torch.save")
    refuses(b"name,value\na,1\n", "is damaged or was not written by torch.save")
    refuses(zipped(b"\x80\x02}.", byteorder=b"big"), "not little-endian")
    refuses(legacy(b"\x80\x02}.", b"\x80\x02].", little_endian=False), "not little-endian")
    torch.save(fln["model_state_dict"], tmp_path / "x.pth")
    refuses(None, "has no net_params; must be a file that the paper's authors publish")


def test_storages_have_names_and_are_no_parts_of_others(refuses):
    refuses(legacy(b"\x80\x02}.", b"\x80\x02]" + SLOW + b"a."), "a storage without a name")
    part = b"(" + text("storage") + text("torch.FloatStorage") + text("0") + b"NK\x00K\x01\x85tQ."
    refuses(zipped(b"\x80\x02" + part, **{"data/0": b""}), "a reference to something else than a storage")


def test_storages_come_from_the_archive_alone(refuses, tmp_path):
    """Their names are looked up among its entries and are no paths."""
    (tmp_path / "secret").write_bytes(bytes(64))
    key = os.path.relpath(tmp_path / "secret")
    reference = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"K\x10tQ"
    refuses(zipped(b"\x80\x02" + reference + b"."), "There is no item named")
    refuses(zipped(b"\x80\x02" + reference + b".", **{f"data/{key}": bytes(60)}), "has 60 bytes; must hold 16 numbers")
    refuses(zipped(b"\x80\x02" + reference + b".", **{f"data/{key}": bytes(64)}), "has no net_params")


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(refuses, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(10**8))
    refuses(None, "entries larger than the file")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.integers(0, 2**32 - 1))
def test_altered_files_are_read_or_refused(whole, tmp_path, legacy, seed):
    """A few bytes are changed, most of them in the pickle: one clear line, or a model."""
    rng = np.random.default_rng(seed)
    data = bytearray(whole[legacy])
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data) if rng.random() < 0.2 else 6000)] = rng.integers(256)
    (tmp_path / "altered").write_bytes(data)
    said = ""
    try:
        import_published(tmp_path / "altered", tmp_path / "out", contrast=10)
    except ValueError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


@pytest.fixture(scope="module")
def whole(fln, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return [save(fln, folder / f"{legacy}", legacy=legacy).read_bytes() for legacy in (False, True)]


def test_views_and_attributes_are_read_and_nothing_is_imported(fln, tmp_path):
    """A weight with strides; other attributes of the state dict than those that torch gives it."""
    content = with_weight(fln, torch.arange(64.0)[3:].as_strided((16,), (3,), 5))
    content["model_state_dict"].pop = None
    save(content, tmp_path / "x.pth")
    import_published(tmp_path / "x.pth", tmp_path / "out", contrast=10)
    bias = load_model(tmp_path / "out").network.nets[0].end_2.bias
    assert bias.tolist() == list(range(5, 53, 3))
    assert not [name for name in sys.modules if name.partition(".")[0] == "rln"]


def test_the_command_says_it_in_one_line_and_writes_nothing(tmp_path):
    torch.save({"a": Reduced(os.system, "touch executed")}, tmp_path / "x.pth")
    done = call("import-published", "x.pth", "model", "--contrast", 10, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"lspipe: x.pth: holds {os.system.__module__}.system, which the weights do not need; the file is refused\n"
    )
    assert os.listdir(tmp_path) == ["x.pth"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"contrast": 0}, "contrast = 0: must be a number > 0"),
        ({"contrast": 10, "poisson": 0.5}, "poisson = 0.5: must lie between -1 and 0.5, both excluded"),
    ],
)
def test_wrong_moduli_are_named(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        import_published(tmp_path / "x.pth", tmp_path / "out", **options)
    assert not os.listdir(tmp_path)
