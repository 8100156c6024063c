"""Evaluation: one run gives the results of separate runs at the cost of one. Reading checks the written files."""

import resource
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import invoke
from maps import engine
from numpy.testing import assert_allclose, assert_array_equal

from lspipe import Isotropic, Void, evaluate, load_model, open_dataset, solve
from lspipe.cell import solver
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.problem import Problem
from lspipe.cell.solver import solve_problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.errors import compute_errors
from lspipe.figures import FUNCTIONS, draw
from lspipe.microstructure import generate
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.errors import mase
from lspipe.products import read_errors, read_examples, write_errors, write_examples

MATERIALS = [Isotropic(120, 0.3), Isotropic(6000, 0.3)]
STRAIN = [1e-3, 0, 0, 0, 0, 0]
MIXED = ([1e-3, *[None] * 5], [None, *[0] * 5])
FIELDS = ("strain", "stress", "displacement", "iterations", "green", "residual", "bound", "converged", "history")


def test_iterates_of_one_run_are_those_of_separate_runs_bit_for_bit():
    phase = generate(3, 8, 0, "test").phase
    for name in ("cg", "rln-cg"):
        model = load_model(name)
        for load in ((STRAIN,), MIXED):
            iterates = list(model.iterates(phase, Problem(MATERIALS, *load)))
            assert tuple(passes for passes, *_ in iterates) == model.counts
            for passes, _, solution in iterates:
                alone = model.predict(phase, MATERIALS, *load, passes=passes)
                for field in FIELDS:
                    assert_array_equal(getattr(solution, field), getattr(alone, field))


def test_iterates_of_a_batch_whose_cells_wait_for_each_other(monkeypatch):
    """On the engine of other devices. One cell is solved, and another needs a new correction, before the rest."""
    monkeypatch.setattr(solver, "build_operator", lambda *a: engine("torch", *a[:2]))
    x, noise = np.indices((8, 8, 8)), np.random.default_rng(0).random((8, 8, 8))
    phase = np.stack([0 * x[0], noise < 0.5, x[0] < 3, noise < 0.05]).astype(int)
    materials, counts = [Isotropic(1, 0.3), Isotropic(200, 0.2)], (0, 1, 2, 3, 7, 12, 20, 60)
    waited = False
    for passes, _, solution in solver.iterates(phase, Problem(materials, STRAIN), counts=counts):
        alone = solve(phase, materials, STRAIN, tol=0, max_iterations=passes, warn=False)
        assert_array_equal(solution.iterations, alone.iterations)
        assert_allclose(solution.strain, alone.strain, atol=1e-5 * np.abs(alone.strain).max())
        waited |= len(set(solution.iterations)) > 2
    assert waited


def test_a_network_gives_the_same_after_each_pass():
    phase, model = generate(2, 8, 0, "test").phase, load_model("rln-c50")
    iterates = list(model.iterates(phase, Problem(MATERIALS, STRAIN)))
    assert [passes for passes, *_ in iterates] == [1, 2, 3, 4, 5]
    for passes, _, solution in iterates:
        assert_array_equal(solution.strain, model.predict(phase, MATERIALS, STRAIN, passes=passes).strain)


@pytest.mark.parametrize("name", ["cg", "rln-cg"])
def test_seconds_are_those_of_a_prediction_with_so_many_passes(name, monkeypatch):
    """By a clock that ticks at every application of an operator."""
    now = 0
    for method in ("apply_stiffness", "apply_green", "write_fields"):
        apply = getattr(NumbaOperator, method)

        def tick(self, *arguments, apply=apply):
            nonlocal now
            now += 1
            return apply(self, *arguments)

        monkeypatch.setattr(NumbaOperator, method, tick)
    monkeypatch.setattr(solver, "time", SimpleNamespace(perf_counter=lambda: now))
    model, phase = load_model(name), generate(1, 8, 0, "test").phase
    for passes, seconds, _ in model.iterates(phase, Problem(MATERIALS, STRAIN)):
        began = now
        model.predict(phase, MATERIALS, STRAIN, passes=passes)
        assert seconds == now - began
        now = began


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Ten microstructures of 8³ voxels, and one of 32³, with their fields."""
    folder = tmp_path_factory.mktemp("stores")
    pairs = []
    for count, n in ((10, 8), (1, 32)):
        cells, fields = folder / f"cells{n}.zarr", folder / f"fields{n}.zarr"
        write_microstructures(cells, count=count, n=n, seed=0, split="test", per_shard=4)
        create_fields(fields, cells, Problem(MATERIALS, STRAIN, scheme="bbar"), tol=1e-4, per_shard=4)
        solve_fields(fields, cells)
        pairs.append((cells, fields))
    return pairs


def test_a_delay_of_one_pass_does_not_make_more_passes_faster(stores, monkeypatch):
    iterates = ConjugateGradients.iterates

    def delay(self, *arguments, **options):
        for passes, _, solution in iterates(self, *arguments, **options):
            yield passes, 100.0 if passes == 2 else passes + 1.0, solution

    monkeypatch.setattr(ConjugateGradients, "iterates", delay)
    errors, _ = evaluate.evaluate(load_model("cg"), *stores[1])
    seconds = errors.set_index("passes")["seconds"]
    assert seconds[[1, 2, 3, 4]].tolist() == [2, 4, 4, 5]


def test_an_image_takes_a_few_solutions_and_their_memory(stores, monkeypatch):
    """Thirty iterations and twelve fields: each iteration applies K once, each field once more."""
    applied, stiffness = 0, NumbaOperator.apply_stiffness

    def count(self, voxels, x, out):
        nonlocal applied
        applied += len(voxels) > 1e4  # no cell of the first call, which is small
        return stiffness(self, voxels, x, out)

    monkeypatch.setattr(NumbaOperator, "apply_stiffness", count)
    tracemalloc.start()
    errors, examples = evaluate.evaluate(load_model("cg"), *stores[1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(errors) == 12
    assert applied <= 30 + 12 + 3
    assert peak < 900 * 32**3
    assert dict(examples.sizes) == {"example": 1, "x": 32, "y": 32, "z": 32, "pass": 6}


def test_large_cells_leave_fewer_examples(stores, monkeypatch):
    whole = evaluate.evaluate(load_model("cg"), *stores[0])
    monkeypatch.setattr(evaluate, "KEPT", 3 * 8**3)
    monkeypatch.setattr("lspipe.errors.SLAB", 1000)
    monkeypatch.setattr(evaluate, "at_once", lambda *_: 4)
    errors, examples = evaluate.evaluate(load_model("cg"), *stores[0])
    rows = [frame.drop(columns="seconds").sort_values(["sample", "passes"]) for frame in (errors, whole[0])]
    pd.testing.assert_frame_equal(*(frame.reset_index(drop=True) for frame in rows), rtol=1e-12)
    assert examples.attrs["first"] == 3
    chosen = {examples.attrs[name] for name in ("worst", "median", "hardest")}
    truth = open_dataset(stores[0][1]).strain[:, 0].values
    assert truth.std(axis=(1, 2, 3)).argmax() == examples.attrs["hardest"]
    assert examples["sample"].values.tolist() == sorted({0, 1, 2} | chosen)
    assert any(k > 2 for k in chosen), "no example was predicted again"
    both = np.intersect1d(whole[1]["sample"], examples["sample"])
    fields = [data.set_index(example="sample").sel(example=both) for data in (examples, whole[1])]
    xr.testing.assert_allclose(*fields, rtol=1e-12)


def test_the_distance_is_the_least_over_all_images_of_the_cell():
    phase = np.random.default_rng(1).integers(0, 3, (5, 4, 7)) * (np.random.default_rng(2).random((5, 4, 7)) < 0.1)
    voxels = np.argwhere(np.ones(phase.shape))
    apart = np.abs(voxels[:, None] - voxels)
    squared = (np.minimum(apart, phase.shape - apart) ** 2).sum(axis=2)
    nearest = np.where(phase.ravel() != phase.ravel()[:, None], squared, np.inf).min(axis=1)
    assert_allclose(evaluate.compute_distances(phase).ravel(), np.sqrt(nearest), rtol=1e-6)


@pytest.fixture(scope="module")
def products(stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    errors, examples = evaluate.evaluate(load_model("cg"), *stores[0])
    write_errors(folder / "errors.parquet", errors)
    write_examples(folder / "examples.zarr", examples)
    errors.drop(columns="mase").to_parquet(folder / "changed.parquet")
    pd.DataFrame({"mase": [1.0]}).to_parquet(folder / "other.parquet")
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    return folder


def test_products_are_read_as_they_were_written(products, stores):
    errors, examples = evaluate.evaluate(load_model("cg"), *stores[0])
    read = read_errors(products / "errors.parquet")
    pd.testing.assert_frame_equal(read.drop(columns="seconds"), errors.drop(columns="seconds"))
    assert read.attrs["passes"] == 5
    assert read_examples(products / "examples.zarr").equals(examples)


@pytest.mark.parametrize(
    ("figure", "file", "said"),
    [
        ("mase", "examples.zarr", "Is a directory"),
        ("trends", "notes.csv", "is no parquet file, or is damaged"),
        ("convergence", "other.parquet", "holds something else, or the product of an older version"),
        ("convergence", "changed.parquet", "is damaged: its SHA-256 differs"),
        ("slices", "errors.parquet", "is no store"),
        ("learning_curves", "errors.parquet", "must be a metrics.csv"),
        ("learning_curves", "notes.csv", "must be a metrics.csv"),
        ("gallery", "none.zarr", "is no store"),
    ],
)
def test_a_figure_of_another_file_names_it(products, tmp_path, figure, file, said):
    with pytest.raises((ValueError, OSError), match=said) as caught:
        draw(figure, [tmp_path / "x.png"], {"cg": str(products / file)})
    assert str(products / file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_figure_of_a_store_of_fields_names_it(stores, tmp_path):
    with pytest.raises(ValueError, match=r"fields8\.zarr: holds something else"):
        draw("slices", [tmp_path / "x.png"], {"cg": str(stores[0][1])})
    with pytest.raises(ValueError, match=r"x: must end in one of .*\.pdf"):
        draw("slices", [tmp_path / "x"], {"cg": "none"})


def test_a_call_draws_several_figures_each_from_the_files_of_its_kind(products, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("lspipe.figures.save", lambda figure, files: drawn.update({figure: files}))
    for name in ("mase", "gallery", "comparison"):
        monkeypatch.setitem(FUNCTIONS, name, lambda data, name=name: (name, *data))
    inputs = [f"{name},{products / file}" for name in ("cg", "b") for file in ("examples.zarr", "errors.parquet")]
    words = ["mase", "m.png", "m.pdf", "gallery", "g.svg", "comparison", "c.png"]
    invoke("figure", *(word for file in inputs for word in ("--input", file)), "--", *words)
    assert {name: list(map(str, files)) for name, files in drawn.items()} == {
        ("mase", "cg", "b"): ["m.png", "m.pdf"],
        ("gallery", "cg"): ["g.svg"],
        ("comparison", "cg", "b"): ["c.png"],
    }
    drawn.clear()
    for wrong, said in (
        (("mase", "m.png", "gallery"), r"figure 'gallery': needs a file to write, such as gallery\.png"),
        (("mase", "m.png", "gallery", "g.x"), r"g\.x: must end in one of \."),
        (
            ("mase", "m.png", "convergence", "c.png"),
            r"--input cg,.*examples\.zarr: none of the figures is drawn from it",
        ),
        (("x.png", "y.png"), r"figure 'x\.png': must be one of learning_curves, mase, "),
    ):
        with pytest.raises(ValueError, match=said):
            invoke("figure", *(word for file in inputs for word in ("--input", file)), "--", *wrong)
    assert not drawn


def test_a_full_disk_is_named_with_what_did_not_fit(products, tmp_path, monkeypatch):
    examples = open_dataset(products / "examples.zarr").load()
    write_examples(tmp_path / "examples.zarr", examples.isel(example=[0]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match=r"File too large: '.*examples\.zarr'"):
            write_examples(tmp_path / "examples.zarr", examples)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_examples(tmp_path / "examples.zarr").sizes["example"] == 1


METAL, CERAMIC = Isotropic(70, 0.33, expansion=23e-6), Isotropic(400, 0.2, expansion=4e-6)


@pytest.mark.parametrize(
    "problem",
    [
        Problem([METAL, CERAMIC], [0, 0, 0, 0, 0, None], [None] * 5 + [0], temperature=100),
        Problem([METAL, CERAMIC], [None] * 5 + [0], [0] * 5 + [None], temperature=100),
        Problem([METAL, CERAMIC], [0] * 6, temperature=100),
        Problem([METAL, CERAMIC], [None] * 6, [0] * 6, temperature=100),
    ],
    ids=["plates", "sliding", "clamped", "free"],
)
def test_errors_under_heat_are_not_divided_by_a_mean_that_vanishes(problem):
    """After three iterations every error is about that in the energy norm, whatever is held."""
    phase = generate(4, 8, seed=1).phase
    truth = solve_problem(phase, problem, tol=1e-8)
    found = solve_problem(phase, problem, tol=0, max_iterations=3, warn=False)
    errors = compute_errors(found, phase, truth.strain, problem)
    assert (errors["mase"] < 5 * errors["energy"]).all()
    assert (errors["mean_stress"] < 20 * errors["energy"]).all()
    torch_mase = mase(torch.from_numpy(found.strain), torch.from_numpy(truth.strain), problem)
    np.testing.assert_allclose(torch_mase.numpy(), errors["mase"], rtol=1e-6)


def test_a_solid_in_pieces_has_errors_relative_to_the_load():
    """It carries nothing: its strain is rounding."""
    layers = np.zeros((1, 8, 8, 8), np.uint8)
    layers[:, 4:] = 1
    problem = Problem([METAL, Void()], [1e-3, 0, 0, 0, 0, 0])
    truth = solve_problem(layers, problem, tol=1e-8)
    found = solve_problem(layers, problem, tol=0, max_iterations=2, warn=False)
    errors = compute_errors(found, layers, truth.strain, problem)
    assert errors["mase"] < 100
    assert np.isnan(errors["energy"])
    strains = [torch.from_numpy(problem.fill_voids(layers, s.strain)) for s in (found, truth)]
    assert mase(*strains, problem).item() < 100


def test_the_error_of_the_effective_stiffness_along_the_load(stores):
    """Under a strain along x it is that of the mean of σ_xx. Plain CG gives too much, by bound² at most."""
    cells, fields = stores[0]
    errors, _ = evaluate.evaluate(load_model("cg"), cells, fields)
    phase = open_dataset(cells).phase.values
    exact = solve(phase, MATERIALS, STRAIN, tol=1e-8).stress[:, 0].mean(axis=(1, 2, 3))
    for passes in (0, 1, 3, 6):
        stopped = solve(phase, MATERIALS, STRAIN, tol=0, max_iterations=passes, warn=False)
        excess = stopped.stress[:, 0].mean(axis=(1, 2, 3)) - exact
        rows = errors[errors["passes"] == passes]
        assert_allclose(rows["effective"], 100 * excess / exact, rtol=1e-4, atol=1e-4)
        assert (excess <= rows["bound"] ** 2 * (exact + excess)).all()
