"""Conduction by the same code as elasticity: closed forms, an assembled scalar system, networks that learn it."""

import copy
import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY
from maps import engine
from numpy.testing import assert_allclose
from problems import SPACING, Assembled, anisotropic, random_cell, sphere

from lspipe import Conductor, Isotropic, bounds, effective_conductivity, generate, load_model, open_dataset, solve
from lspipe.cell import solver
from lspipe.cell.kinds import read_material, write_material
from lspipe.cli import app
from lspipe.loader import Samples
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.files import save_model
from lspipe.models.rln_cg import RLNCG, RLNCGModel
from lspipe.read_config import parse_config
from lspipe.summary import summary
from lspipe.tables import table
from lspipe.train import train

RNG = np.random.default_rng(0)
ANY = [A @ A.T + np.eye(3) for A in RNG.normal(size=(3, 3, 3))]
PHASES = {"isotropic": [Conductor(1.0), Conductor(20.0), Conductor(0.3)], "any": [Conductor(k) for k in ANY]}
LOADS = {
    "gradient": ([0.3, -1.0, 0.5], None),
    "mixed": ([None, 1.0, None], [2.0, None, 0.0]),
    "flux": ([None] * 3, [1, -2, 0.5]),
}
SCHEMES = ("bbar", "full", "reduced")


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("conductors", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", [(3, 3, 3), (5, 4, 3), (4, 4, 2), (3, 5, 1)])
def test_fields_are_those_of_the_assembled_system(grid, scheme, conductors, load):
    phase = random_cell(grid, 3)
    exact = Assembled(phase, conductors, scheme).solve(*load)
    solution = solve(phase, conductors, *load, spacing=SPACING, scheme=scheme, tol=1e-10)
    assert solution.components == ("x", "y", "z")
    assert_allclose(solution.strain[0], exact.gradient, atol=1e-8 * np.abs(exact.gradient).max())
    assert_allclose(solution.stress[0], exact.flux, atol=1e-8 * np.abs(exact.flux).max())
    if scheme != "reduced":  # whose hourglass modes are free
        assert_allclose(solution.displacement[0, 0], exact.temperature, atol=1e-7)


@pytest.mark.parametrize("given", [*PHASES["any"], Conductor(2.0), anisotropic(0), Isotropic(1.0, 0.3)], ids=str)
def test_materials_survive_their_file(given):
    again = read_material(json.loads(json.dumps(write_material(given))))
    assert again == given
    assert_allclose(again.stiffness, given.stiffness, rtol=1e-15)


@pytest.mark.parametrize("way", ["numba", "torch"])
@pytest.mark.parametrize("dense", [False, True], ids=["fft", "products"])
def test_engines_and_transforms_agree(way, dense, monkeypatch):
    phase, conductors = random_cell((6, 5, 4), 3), PHASES["any"]
    exact = Assembled(phase, conductors, "full").solve(*LOADS["mixed"])
    monkeypatch.setattr(solver, "build_operator", lambda *a: engine(way, *a[:2], dense))
    solution = solve(np.stack([phase, 0 * phase]), conductors, *LOADS["mixed"], spacing=SPACING, tol=1e-10)
    assert_allclose(solution.strain[0], exact.gradient, atol=1e-8)
    assert_allclose(solution.stress[0], exact.flux, atol=1e-7)
    assert_allclose(solution.displacement[0, 0], exact.temperature, atol=1e-7)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_laminate(axis, scheme):
    """Harmonic mean across the layers, arithmetic mean along them."""
    phase = np.moveaxis(np.broadcast_to([0, 1, 1, 2], (2, 2, 4)), 2, axis)
    k = np.array([1.0, 20.0, 20.0, 0.3])
    exact = np.full(3, k.mean())
    exact[axis] = 1 / (1 / k).mean()
    found = effective_conductivity(phase, PHASES["isotropic"], scheme=scheme, tol=1e-9)
    assert_allclose(found[0], np.diag(exact), atol=1e-7)


@pytest.mark.parametrize("inclusion", [0.1, 10.0, 1000.0])
def test_dilute_sphere(inclusion):
    """Maxwell's 3/(2 + k) inside a lone sphere, extrapolated in volume fraction and in voxels per diameter."""
    design, inside = [], []
    for n, diameter in [(20, 10), (30, 10), (24, 12), (36, 12), (32, 16), (48, 16)]:
        phase = sphere(n, diameter)
        inside.append(solve(phase, [Conductor(1.0), Conductor(inclusion)], [1, 0, 0]).strain[0, 0, phase == 1].mean())
        design.append([1, phase.mean(), 1 / diameter])
    alone = np.linalg.lstsq(design, inside)[0][0]
    assert alone == pytest.approx(3 / (2 + inclusion), rel=0.005, abs=0)


def keller(phase, scheme, contrast=10.0):
    """K(1, k) and what the phase-interchange relation makes of K(k, 1): k times its inverse, turned by 90°."""
    one, other = Conductor(1.0), Conductor(contrast)
    K, interchanged = (
        effective_conductivity(phase, pair, scheme=scheme, tol=1e-9)[0, :2, :2] for pair in ([one, other], [other, one])
    )
    turn = np.array([[0, -1], [1, 0]])
    return K, contrast * turn @ np.linalg.inv(interchanged) @ turn.T


def test_phase_interchange_in_the_plane():
    """Keller (1964), Mendelson (1975): exact with one integration point on odd grids; from above with all of them, for
    the temperature is of a finite-element space that grows with refinement."""
    coarse = RNG.integers(0, 2, (5, 7, 1))
    assert_allclose(*keller(coarse, "reduced"), rtol=1e-7)
    excess = []
    for refined in (1, 2, 4, 8):
        phase = coarse.repeat(refined, axis=0).repeat(refined, axis=1)
        K, turned = keller(phase, "full")
        excess.append(np.linalg.det(K) / np.linalg.det(turned) - 1)
    assert excess[-1] > 0
    assert all(b < 0.8 * a for a, b in pairwise(excess)), excess


def test_bounds():
    """Wiener, and Hashin & Shtrikman (1962) in its textbook form."""
    phase, (k1, k2), (f1, f2) = np.array([0] * 7 + [1] * 3).reshape(10, 1, 1), (1.0, 20.0), (0.7, 0.3)
    limits = bounds(phase, [Conductor(k1), Conductor(k2)])
    exact = {
        "reuss": 1 / (f1 / k1 + f2 / k2),
        "voigt": f1 * k1 + f2 * k2,
        "lower": k1 + f2 / (1 / (k2 - k1) + f1 / (3 * k1)),
        "upper": k2 + f1 / (1 / (k1 - k2) + f2 / (3 * k2)),
    }
    for name, value in exact.items():
        assert_allclose(getattr(limits, name)[0], value * np.eye(3), atol=1e-12)
    cell = generate(1, 15, 3).phase
    k, limits = effective_conductivity(cell, PHASES["isotropic"][:2])[0], bounds(cell, PHASES["isotropic"][:2])
    assert np.linalg.eigvalsh(k - limits.reuss[0]).min() > 0
    assert np.linalg.eigvalsh(limits.voigt[0] - k).min() > 0


@pytest.mark.parametrize("conductors", PHASES.values(), ids=PHASES)
def test_certificate(conductors):
    """The bound is above the energy of the error of an iteration that was stopped."""
    phase = random_cell((4, 4, 3), 3)
    fe = Assembled(phase, conductors, "full")
    exact = fe.solve([1, 0, 0]).x
    for passes in range(1, 6):
        found = load_model("cg").predict(phase, conductors, [1, 0, 0], spacing=SPACING, scheme="full", passes=passes)
        x = np.concatenate([found.displacement[0, 0].ravel(), [1, 0, 0]])
        x[: phase.size] += (exact - x)[: phase.size].mean()
        error = np.sqrt((x - exact) @ fe.A @ (x - exact) / (x @ fe.A @ x))
        assert 0 < error <= found.bound[0] < 20 * error


def test_insulators_are_masked():
    solution = solve(random_cell((4, 4, 4)), [Conductor(1.0), Conductor(0.0)], [1, 0, 0], tol=1e-6)
    assert np.isnan(solution.strain[0, :, random_cell((4, 4, 4)) == 1]).all()
    assert np.isinf(solution.bound[0])


@pytest.mark.parametrize(
    ("conductivity", "message"),
    [
        (-1.0, "conductivity = -1.0: must be a number ≥ 0"),
        (np.inf, "conductivity = inf: must be a number ≥ 0"),
        (np.eye(2), r"conductivity of shape \(2, 2\): must be \(3, 3\) and finite"),
        (np.diag([1, 1, -1]), "conductivity: must be positive definite"),
        (np.triu(np.ones((3, 3))), "conductivity: must be symmetric"),
    ],
)
def test_conductivity_that_makes_no_sense(conductivity, message):
    with pytest.raises(ValueError, match=message):
        Conductor(conductivity)


def test_one_physics_at_a_time():
    phase = random_cell((4, 4, 4))
    with pytest.raises(ValueError, match="must be of one physics, not elasticity and conduction"):
        solve(phase, [Isotropic(1, 0.3), Conductor(1.0)], [1, 0, 0])
    with pytest.raises(ValueError, match=r"must have 3 components \(x, y, z\)"):
        solve(phase, [Conductor(1.0)] * 2, [1, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="must be of one physics, not elasticity and conduction"):
        bounds(phase, [Isotropic(1, 0.3), Conductor(1.0)])
    model = copy.deepcopy(load_model("rln-cg"))
    with pytest.raises(ValueError, match="belong to conduction; this network was trained for elasticity"):
        model.predict(phase, [Conductor(1.0), Conductor(2.0)], [1, 0, 0])
    assert model.predict(phase, [Isotropic(1, 0.3), Isotropic(2, 0.3)], [1, 0, 0, 0, 0, 0]).bound < 0.1


def test_rln_cg_learns_it(tmp_path):
    """And is better than plain conjugate gradients on other microstructures, another contrast and another load."""
    conductors, gradient = (Conductor(1.0), Conductor(50.0)), (1.0, 0.0, 0.0)

    def samples(split, count):
        phase = generate(count, 8, 0, split).phase
        y = solve(phase, conductors, gradient, tol=1e-6).strain
        return Samples(torch.from_numpy(phase), torch.from_numpy(np.float32(y))), Domain(conductors, gradient)

    recipe = {"architecture": "rln-cg", "seed": 0, "batch": 4, "learning_rate": 1e-2, "device": "cpu"}
    train(tmp_path, [samples("train", 8)], [samples("valid", 4)], **recipe, epochs=4)
    phase, others, load = generate(8, 9, 1, "test").phase, [Conductor(1.0), Conductor(20.0)], [0.0, 1.0, -1.0]
    exact = solve(phase, others, load, tol=1e-8)
    learned, plain = (load_model(name).predict(phase, others, load, passes=4) for name in (tmp_path, "cg"))
    error = [np.square(found.strain - exact.strain).mean(axis=(1, 2, 3, 4)) for found in (learned, plain)]
    assert (error[0] < error[1]).all()
    assert (learned.bound < plain.bound).all()
    with pytest.raises(ValueError, match="belong to elasticity; this network was trained for conduction"):
        load_model(tmp_path).predict(phase, [Isotropic(1, 0.3), Isotropic(20, 0.3)], [1, 0, 0, 0, 0, 0])


def test_a_third_problem():
    """That of docs/physics.md: two species, alone where nothing couples them, and inside RLN-CG where it does."""
    program = "".join(re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/physics.md").read_text(), re.S | re.M))
    exec(program, names := {})
    phase, Diffuser = names["phase"], names["Diffuser"]
    alone = solve(phase, [Diffuser(1.0, 2.0, 0.0), Diffuser(10.0, 30.0, 0.0)], [1, 0, 0, 0, 2, 0], tol=1e-9)
    for part, (k, gradient) in zip(
        (slice(3), slice(3, 6)), (((1.0, 10.0), [1, 0, 0]), ((2.0, 30.0), [0, 2, 0])), strict=True
    ):
        exact = solve(phase, [Conductor(x) for x in k], gradient, tol=1e-9)
        assert_allclose(alone.strain[:, part], exact.strain, atol=1e-7)
        assert_allclose(alone.stress[:, part], exact.stress, atol=1e-6)
    coupled = (phase, names["species"], [1, 0, 0, 0, 0, 0])
    exact, model = solve(*coupled, tol=1e-8), RLNCGModel(RLNCG(names["DIFFUSION"]))
    assert np.abs(exact.stress[:, 3:]).mean() > 0.1
    assert_allclose(model.predict(*coupled, passes=20).strain, exact.strain, atol=1e-4)
    limits, K = bounds(*coupled[:2]), effective_conductivity(*coupled[:2])
    assert limits.lower is None
    for lower, upper in ((limits.reuss, K), (K, limits.voigt)):
        assert np.linalg.eigvalsh(upper - lower).min() > 0


@pytest.mark.parametrize("components", [("x",), ("x", "y", "z")], ids=len)
def test_networks_keep_to_their_materials(components, tmp_path):
    domain = Domain((Conductor(1.0), Conductor(10.0)), (2.0, 0.0, 0.0))
    network = build("rln", 2, len(components), domain.physics)
    save_model(tmp_path, "rln", network, [domain], {})
    model, phase = load_model(tmp_path), generate(2, 8, 5).phase
    found = model.predict(phase, [Conductor(2.0), Conductor(20.0)], [3, 0, 0])
    assert found.components == components
    assert_allclose(found.strain.mean(axis=(2, 3, 4)), [[3, 0, 0][: len(components)]] * 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"trained for \[Conductor\(conductivity=1.0\)"):
        model.predict(phase, [Isotropic(1, 0.3), Isotropic(10, 0.3)], [1, 0, 0, 0, 0, 0])


def test_from_cells_to_paraview(tmp_path, monkeypatch):
    """The commands, in this process."""
    monkeypatch.chdir(tmp_path)

    def lspipe(*arguments):
        app([str(argument) for argument in arguments], standalone_mode=False)

    for split in ("train", "valid"):
        lspipe("generate", f"{split}.zarr", "--count", 4, "--n", 8, "--split", split)
        conductors = ("--material", 1, "--material", 10, "--strain", "2,0,0", "--tol", 1e-6)
        lspipe("allocate", f"{split}-g.zarr", f"{split}.zarr", *conductors)
        lspipe("solve", f"{split}.zarr", f"{split}-g.zarr")
        lspipe("verify", f"{split}-g.zarr")
    data = open_dataset(tmp_path / "valid-g.zarr")
    assert data.component.values.tolist() == ["x", "y", "z"]
    assert json.loads(data.attrs["materials"]) == [{"kind": "conductor", "conductivity": k} for k in (1.0, 10.0)]
    assert "shear" not in data.attrs
    sets = ("--train", "train.zarr,train-g.zarr", "--valid", "valid.zarr,valid-g.zarr", "--epochs", 1)
    lspipe("train", "fln", *sets, "--architecture", "fln", "--predict", "all")
    out = ("--errors", "errors.parquet", "--examples", "examples.zarr")
    lspipe("evaluate", "fln", "valid.zarr", "valid-g.zarr", *out)
    assert "energy" in pd.read_parquet(tmp_path / "errors.parquet")
    assert open_dataset(tmp_path / "examples.zarr").attrs["symbol"] == "g$_{x}$"
    lspipe("export", "out", "valid.zarr", "valid-g.zarr", "--sample", 1, "--table", "--model", "cg")
    frames = {("c10", "fln"): [pd.read_parquet(tmp_path / "errors.parquet")]}
    page = summary(
        parse_config(yaml.safe_load((REPOSITORY / "config/conduction.yaml").read_text())), table(frames), {}, {}
    )
    assert "macroscopic gradient x 1, y 0, z 0" in page
    assert "(conductivity in W/(m K)); conductor, conductivity 10" in page
    voxels = pd.read_csv(tmp_path / "out/1.csv")
    k = np.array([1.0, 10.0])[voxels["phase"]]
    for axis in "123":
        assert_allclose(voxels[f"HFL{axis}"], -k * voxels[f"GRADT{axis}"], rtol=1e-6, atol=1e-7)
    assert voxels["GRADT1"].mean() == pytest.approx(2)
    image = (tmp_path / "out/1.vti").read_text()
    assert 'Name="gradient" format="binary" NumberOfComponents="3" ComponentName0="X"' in image
    assert 'Name="predicted_flux"' in image
