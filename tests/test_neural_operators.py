"""FNO, IFNO and TherINO: their layers against NumPy's FFT, their invariants, their training and their files."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import invoke
from problems import anisotropic, stiffness, stress_of, tensor
from scipy.optimize import anderson as scipys_anderson

from lspipe import Conductor, Isotropic, generate, load_model, open_dataset, solve
from lspipe.cell.physics import CONDUCTION, ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.interrupt import Unfinished
from lspipe.loader import Samples
from lspipe.microstructure import Polycrystal
from lspipe.models.anderson import anderson
from lspipe.models.architectures import OPERATORS, build
from lspipe.models.domain import Domain, load_scale
from lspipe.models.files import save_model
from lspipe.models.fno import FNO
from lspipe.models.localization import LocalizationModel
from lspipe.models.neural_operator import mandel, relative_stiffness
from lspipe.models.operations import operations
from lspipe.models.spectral import SpectralConvolution
from lspipe.train import train

MATERIALS = (Isotropic(120, 0.3), Isotropic(1200, 0.2))
LOAD = (1e-3, 0.0, -4e-4, 0.0, 0.0, 3e-4)
DOMAIN = Domain(MATERIALS, LOAD)
RECIPE = {"seed": 0, "epochs": 2, "batch": 2, "learning_rate": 2e-3, "device": "cpu"}


def network(architecture):
    torch.manual_seed(0)
    return build(architecture, 2).eval()


def model(architecture):
    return LocalizationModel(network(architecture), [DOMAIN])


def cells(count, *grid, phases=2):
    return np.random.default_rng(0).integers(0, phases, (count, *grid), dtype=np.uint8)


def convolution(width, modes):
    torch.manual_seed(0)
    return SpectralConvolution(width, modes).double()


@pytest.mark.parametrize("grid", [(7, 7, 7), (8, 7, 6), (5, 9, 1), (12, 13, 4)])
def test_the_convolution_multiplies_fourier_coefficients(grid):
    """The coefficients are NumPy's; a real kernel has W(−k) = conj W(k)."""
    layer, x = convolution(2, 4), np.random.default_rng(0).normal(size=(2, 2, *grid))
    W = layer.W.detach().numpy().view(complex)[..., 0]
    X = np.fft.fftn(x, axes=(2, 3, 4))
    Y = np.zeros_like(X)
    for k in itertools.product(range(-3, 4), repeat=3):
        if all(2 * abs(a) < n for a, n in zip(k, grid, strict=True)):
            at, opposite = ((s * k[0] + 3, s * k[1] + 3, s * k[2]) for s in (1, -1))
            halves = [W[at]] * (k[2] >= 0) + [W[opposite].conj()] * (k[2] <= 0)
            Y[:, :, *k] = X[:, :, *k] @ np.mean(halves, axis=0)
    expected = np.fft.ifftn(Y, axes=(2, 3, 4))
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-12)


def test_the_unit_kernel_is_a_low_pass():
    """It keeps waves of |k| < 4 below the Nyquist frequency, also on a grid with fewer, and removes the others."""
    layer = convolution(1, 4)
    layer.W.data.zero_()[..., 0] = 1.0
    odd, even = (torch.randn(1, 1, *grid, dtype=torch.float64) for grid in [(7, 5, 3), (6, 5, 3)])
    torch.testing.assert_close(layer(odd), odd)
    nyquist = torch.tensor([1.0, -1.0]).repeat(3)[:, None, None] * even
    removed = torch.tensor([1.0, -1.0]).repeat(3)[:, None, None] * nyquist.mean(dim=2, keepdim=True)
    torch.testing.assert_close(layer(even), even - removed)
    x = torch.arange(16, dtype=torch.float64).view(-1, 1, 1) / 16
    low, high = (torch.cos(2 * math.pi * k * x + 1).expand(1, 1, 16, 3, 3) for k in (3, 4))
    torch.testing.assert_close(layer(low + high), low)


@pytest.mark.parametrize("finer", [14, 21])
def test_a_finer_grid_has_the_same_function(finer):
    layer, k = convolution(1, 4), np.array([2, -3, 1])
    fields = [np.cos(2 * np.pi * np.tensordot(k, np.indices((n,) * 3), 1) / n + 0.3) for n in (7, finer)]
    coarse, fine = (layer(torch.from_numpy(f)[None, None])[0, 0] for f in fields)
    torch.testing.assert_close(fine[(slice(None, None, finer // 7),) * 3], coarse)


@pytest.mark.parametrize(
    ("sizes", "published"), [((24, 16, 2), "18.88"), ((48, 16, 4), "151.0"), ((24, 8, 2), "2.37")], ids=str
)
def test_published_sizes_have_the_published_number_of_parameters(sizes, published):
    """Kelly & Kalidindi count complex numbers once. They also have frequencies −m without m, which have no use."""
    width, modes, layers = sizes
    with torch.device("meta"):
        net = FNO(width=width, modes=modes, layers=layers, hidden=128)
    numbers = sum(p.numel() / (2 if name.endswith("W") else 1) for name, p in net.named_parameters())
    numbers += layers * width**2 * (4 * modes**3 - modes * (2 * modes - 1) ** 2)
    assert numbers / 1e6 == pytest.approx(float(published), abs=0.51 * 0.1 ** len(published.partition(".")[2]))


def test_stiffness_is_a_fourth_order_tensor():
    """C:ε and the norm of C, by the indices ijkl of the tensor."""
    crystals, phase = (anisotropic(0), anisotropic(1)), cells(1, 3, 2, 4)
    tensors = np.stack([stiffness(crystal) for crystal in crystals])
    scale = np.linalg.norm(tensors[phase].mean(axis=(0, 1, 2, 3)))
    C = relative_stiffness(torch.from_numpy(phase), Problem(crystals, LOAD))
    norms = np.linalg.norm(tensors.reshape(2, 81), axis=1) / scale
    np.testing.assert_allclose(C.square().sum(dim=(1, 2)).sqrt(), norms[phase], rtol=1e-5)
    strain = np.random.default_rng(0).normal(size=(6, 3, 2, 4))
    unit = mandel(ELASTICITY, torch.ones(6, 1, 1, 1))
    stress = torch.einsum("ij...,j...->i...", C[0], unit * torch.from_numpy(strain).float()) / unit
    np.testing.assert_allclose(stress, stress_of(phase[0], crystals, strain) / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", OPERATORS)
@pytest.mark.parametrize("grid", [(6, 9, 4), (7, 5, 17)])
def test_predictions_move_with_the_cell(architecture, grid):
    """A shift shifts the field, whose mean is the load's; a batch changes nothing."""
    phase, predict = cells(2, *grid), model(architecture).predict
    materials = [MATERIALS, (anisotropic(0), anisotropic(1))]
    together = predict(phase, materials, LOAD, passes=1).strain
    np.testing.assert_allclose(together.mean(axis=(2, 3, 4)), [LOAD] * 2, atol=1e-9)
    shift = {"shift": (2, 3, 1), "axis": (1, 2, 3)}
    for k in range(2):
        moved = predict(np.roll(phase[k : k + 1], **shift), materials[k], LOAD, passes=1).strain
        np.testing.assert_allclose(moved[0], np.roll(together[k], **shift), rtol=1e-3, atol=1e-7)
    assert np.ptp(together, axis=(2, 3, 4)).min() > 1e-6


@pytest.mark.parametrize("architecture", OPERATORS)
def test_predictions_are_multiples_of_the_load(architecture):
    phase, predict = cells(1, 5, 6, 7), model(architecture).predict
    once = predict(phase, MATERIALS, LOAD).strain
    np.testing.assert_array_equal(predict(phase, MATERIALS, [-2 * e for e in LOAD]).strain, -2 * once)
    pascal = [Isotropic(m.young * 1e9, m.poisson) for m in MATERIALS]
    np.testing.assert_allclose(predict(phase, pascal, LOAD).strain, once, atol=1e-7)
    stiffer = predict(phase, [MATERIALS[0], Isotropic(2400, 0.2)], LOAD).strain
    assert np.abs(stiffer - once).max() > 1e-6


def test_the_field_is_relative_to_the_norm_of_the_load():
    """That of the tensor, in whose components shear counts twice in a norm."""
    fno, phase = model("fno"), cells(1, 4, 5, 6)
    C = relative_stiffness(torch.from_numpy(phase), DOMAIN)
    shear, load = np.sqrt([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1), np.reshape(LOAD, (6, 1, 1, 1))
    size = np.linalg.norm(tensor(LOAD))
    with torch.no_grad():
        (field,) = fno.network.states(C, torch.from_numpy(shear * load / size).float(), 1)
    expected = load + size * (field - field.mean(dim=(2, 3, 4), keepdim=True)).numpy() / shear
    np.testing.assert_allclose(fno.predict(phase, MATERIALS, LOAD).strain, expected, atol=1e-8)


def test_ifno_takes_a_part_of_its_step_in_each_pass():
    net = network("ifno")
    x = torch.randn(1, 27, 4, 4, 4)
    C, E = torch.zeros(1, 6, 6, 4, 4, 4), x[0, 21:, :1, :1, :1]
    states = list(net.states(C, E, 16))
    start = net.operator.lift(torch.cat([torch.zeros(1, 21, 4, 4, 4), E.expand(1, -1, 4, 4, 4)], dim=1))
    for before, after in itertools.pairwise([start, *states]):
        step = net.operator.blocks[1](net.operator.blocks[0](before))
        torch.testing.assert_close(after, before + step / 16)


def test_anderson_finds_a_fixed_point():
    """That of x = A x + b, which NumPy solves, in 6 passes for 4 unknowns; SciPy's method finds the same."""
    rng = np.random.default_rng(0)
    A, b = 0.95 * np.linalg.qr(rng.normal(size=(6, 4, 4)))[0], rng.normal(size=(6, 4))
    exact = np.linalg.solve(np.eye(4) - A, b[..., None])[..., 0]
    AT, bT = torch.from_numpy(A), torch.from_numpy(b)

    def F(x):
        return (AT @ x[..., None])[..., 0] + bT

    found = [f.numpy() for f in anderson(F, torch.zeros(6, 4, dtype=torch.float64), 6, regularization=1e-14)]
    np.testing.assert_allclose(found[-1], exact, rtol=1e-5)
    assert np.abs(found[2] - exact).max() > 1e-2
    theirs = scipys_anderson(lambda x: A[0] @ x + b[0] - x, np.zeros(4), f_tol=1e-10)
    np.testing.assert_allclose(found[-1][0], theirs, rtol=1e-5)
    alone = list(
        anderson(lambda x: (AT[:1] @ x[..., None])[..., 0] + bT[:1], torch.zeros(1, 4, dtype=torch.float64), 3)
    )
    together = list(anderson(F, torch.zeros(6, 4, dtype=torch.float64), 3))
    torch.testing.assert_close(alone[-1], together[-1][:1])


def test_anderson_shows_that_no_iterate_is_finite():
    assert all(f.isnan().all() for f in anderson(lambda x: torch.nan * x, torch.zeros(1, 4), 3))


def test_anderson_keeps_the_iterate_of_the_smallest_residual():
    """F = 1/x + 4 sin(9 x) has residuals that rise and fall; a fixed point divides nothing by 0."""

    def F(x):
        evaluated.append(x)
        return torch.where(x == 0, x, 1 / x + 4 * torch.sin(9 * x))

    evaluated = []
    found = list(anderson(F, torch.tensor([[0.7], [0.0]]), 8))
    images = [F(x)[0].item() for x in evaluated[:8]]
    residuals = [abs(f - x[0].item()) for f, x in zip(images, evaluated, strict=False)]
    assert residuals != sorted(residuals, reverse=True)
    assert [f[0].item() for f in found] == [images[np.argmin(residuals[: k + 1])] for k in range(8)]
    assert all(f[1].item() == 0 for f in found)


@pytest.mark.parametrize("architecture", OPERATORS)
def test_every_parameter_learns(architecture):
    net, phase = network(architecture).train(), torch.from_numpy(cells(2, 6, 6, 6)).int()
    loss, field = net.learn(phase, torch.randn(2, 6, 6, 6, 6), DOMAIN)
    assert field.shape == (2, 6, 6, 6, 6)
    loss.backward()
    still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert still <= {"operator.project.2.bias"}  # the mean is subtracted


def test_therino_learns_its_last_pass_alone():
    """The loss is that of F at a fixed strain: its derivative is a finite difference there."""
    net, phase = network("therino").train().double(), torch.from_numpy(cells(1, 4, 4, 4))
    C, E = relative_stiffness(phase, DOMAIN).double(), torch.eye(6, dtype=torch.float64)[0].view(6, 1, 1, 1)
    *_, before, last = net.states(C, E, 4)
    assert not before.requires_grad
    weight = net.operator.project[2].weight
    (gradient,) = torch.autograd.grad(last.square().sum(), weight)
    with torch.no_grad():
        weight[0, 0] += 1e-6
        stress = torch.einsum("nij...,nj...->ni...", C, before)
        start = E.expand(1, 6, 4, 4, 4)
        energy = (before * stress).sum(dim=1, keepdim=True)
        field = net.operator(torch.cat([start, before, stress, energy], dim=1))
        moved = E + field - field.mean(dim=(2, 3, 4), keepdim=True)
    assert (moved.square().sum() - last.square().sum()).item() / 1e-6 == pytest.approx(gradient[0, 0].item(), rel=1e-4)


def samples(domain, split, count):
    phase = generate(count, 5, 0, split).phase
    strain = solve(phase, domain.materials, domain.strain).strain / load_scale(domain)
    return Samples(torch.from_numpy(phase), torch.from_numpy(strain.astype(np.float32)))


@pytest.fixture(scope="module")
def two_cases():
    """Two contrasts under two loads, as training and validation sets."""
    domains = [DOMAIN, Domain((MATERIALS[0], Isotropic(6000, 0.3)), (0.0, 0.0, 0.0, 0.0, 0.0, -1e-3))]
    return [[(samples(d, split, count), d) for d in domains] for split, count in (("train", 3), ("valid", 1))]


@pytest.mark.parametrize("architecture", OPERATORS)
def test_training_goes_on_where_it_stopped(architecture, two_cases, tmp_path):
    """One network learns two contrasts and loads; after an interruption its weights are the same; files keep them."""
    recipe = RECIPE | {"architecture": architecture}
    train(tmp_path / "whole", *two_cases, **recipe)
    turns = itertools.count()
    with pytest.raises(Unfinished):
        train(tmp_path / "parts", *two_cases, **recipe, stop=lambda: next(turns) == 4)
    train(tmp_path / "parts", *two_cases, **recipe)
    whole, parts = (load_model(tmp_path / name) for name in ("whole", "parts"))
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert [len(whole.domains), whole.counts[-1]] == [2, whole.passes]
    chosen, domain = two_cases[1][1]
    predicted = whole.predict(chosen.phase.numpy(), domain.materials, domain.strain)
    assert predicted.components == domain.physics.components
    trained = np.abs(predicted.strain / load_scale(domain) - chosen.y.numpy()).mean()
    fresh = network(architecture).iterates(chosen.phase, domain, (whole.passes,))[0].detach().numpy()
    assert trained < np.abs(fresh - chosen.y.numpy()).mean()
    other = LocalizationModel(network(architecture), [DOMAIN])
    save_model(tmp_path / "fresh", architecture, other.network, [DOMAIN], {})
    again = load_model(tmp_path / "fresh").predict(chosen.phase.numpy(), MATERIALS, LOAD).strain
    np.testing.assert_array_equal(again, other.predict(chosen.phase.numpy(), MATERIALS, LOAD).strain)


def test_operators_refuse_what_they_cannot_see(tmp_path, two_cases):
    """Element, spacing and physics; stresses and temperatures."""
    fno, phase = model("fno"), cells(1, 4, 4, 4)
    for change, message in (
        ({"scheme": "full"}, "scheme = 'full': this model was trained for fields of 'bbar'"),
        ({"spacing": (1, 1, 2)}, r"spacing = .*: this model was trained for multiples of \[1.0, 1.0, 1.0\]"),
        ({"temperature": 1.0}, "temperature = 1: must be 0 for this network; rln-cg"),
    ):
        with pytest.raises(ValueError, match=message):
            fno.predict_problem(phase, Problem(MATERIALS, LOAD, **change))
    with pytest.raises(ValueError, match="materials: belong to conduction; this model was trained for elasticity"):
        fno.predict(phase, [Conductor(1.0), Conductor(2.0)], [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"strain = .*: all components must be prescribed"):
        fno.predict(phase, MATERIALS, [1e-3, *[None] * 5], [None, *[0.0] * 5])
    slender = Domain(MATERIALS, LOAD, spacing=(1, 1, 2))
    (chosen, domain), *_ = two_cases[0]
    with pytest.raises(ValueError, match="architecture = 'fno': learns one element and one spacing; use rln-cg"):
        train(tmp_path, [(chosen, domain), (chosen, slender)], two_cases[1], **RECIPE, architecture="fno")


@pytest.mark.parametrize("architecture", OPERATORS)
def test_conduction_is_the_same(architecture):
    net = build(architecture, 2, 3, CONDUCTION).eval()
    heat = LocalizationModel(net, [Domain((Conductor(1.0), Conductor(9.0)), (1.0, 0.0, 0.0))])
    gradient = heat.predict(cells(1, 5, 5, 5), [Conductor(2.0), Conductor(3.0)], [0.0, 2.0, 1.0]).strain
    np.testing.assert_allclose(gradient.mean(axis=(2, 3, 4)), [[0.0, 2.0, 1.0]], atol=1e-6)


def test_operations_are_those_of_the_layers():
    """FNO at 4×5×6 with 8 modes has frequencies below 2, 3 and 3 along x, y and z: 3, 5 and 3 waves."""
    voxels, waves = 4 * 5 * 6, 3 * 5 * 3
    pointwise = 2 * voxels * (27 * 24 + 2 * 24 * 24 + 24 * 48 + 48 * 6)
    along_z = 2 * voxels * 24 * 2 * 3  # from real numbers to complex ones, and back
    along_y, along_x = 8 * 4 * 5 * 5 * 3 * 24, 8 * 4 * 3 * 5 * 3 * 24
    block = 2 * (along_z + along_y + along_x) + 8 * waves * 24 * 24
    assert operations(model("fno"), (4, 5, 6), Problem(MATERIALS, LOAD)) == {1: pointwise + 2 * block}
    ifno = operations(model("ifno"), (4, 5, 6), Problem(MATERIALS, LOAD))
    assert ifno == {k: pointwise + 2 * block + (k - 1) * (2 * block + 4 * voxels * 24 * 24) for k in (1, 2, 4, 8, 16)}


def test_polycrystals_go_through_the_commands(tmp_path):
    """Train on grains, evaluate, and predict an image; without a mock."""
    crystal = anisotropic(0)
    problem = Problem((crystal,), LOAD)
    for split in ("train", "valid"):
        pair = tmp_path / f"{split}.zarr", tmp_path / f"{split}-fields.zarr"
        write_microstructures(pair[0], count=3, n=5, seed=0, split=split, per_shard=3, generator=Polycrystal(grains=4))
        create_fields(pair[1], pair[0], problem, tol=1e-4, per_shard=3)
        solve_fields(pair[1], pair[0])
    pairs = {split: f"{tmp_path}/{split}.zarr,{tmp_path}/{split}-fields.zarr" for split in ("train", "valid")}
    options = ["--architecture", "therino", "--epochs", 1, "--train", pairs["train"], "--valid", pairs["valid"]]
    invoke("train", tmp_path / "therino", *options)
    errors, examples = tmp_path / "errors.parquet", tmp_path / "examples.zarr"
    stores = pairs["valid"].split(",")
    invoke("evaluate", tmp_path / "therino", *stores, "--errors", errors, "--examples", examples)
    assert open_dataset(tmp_path / "examples.zarr")["pass"].values.tolist() == [1, 2, 4, 8, 16]
