"""Networks on load paths: they see how far the load has gone, serve the steps of their training alone, and are compared
with the solver at fewer increments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import invoke
from numpy.testing import assert_allclose, assert_array_equal
from plastic import laminate

from lspipe import Isotropic, Plastic, Voce, load_model, open_dataset, solve
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.solver import NotConverged
from lspipe.conclusion import conclude
from lspipe.dataset import create_paths, solve_fields, write_microstructures
from lspipe.evaluate import evaluate
from lspipe.export import export
from lspipe.figures import draw
from lspipe.loader import load, load_sets
from lspipe.models.domain import Domain, check_learnable
from lspipe.models.path_baseline import PathBaseline
from lspipe.path_solving import advance, begin_sample, save_sample
from lspipe.products import write_errors, write_examples
from lspipe.store import Store
from lspipe.store.cells import digest_cells
from lspipe.tables import format_table, table
from lspipe.train import train
from lspipe.versions import __version__

MATERIALS = (Isotropic(400, 0.2), Plastic(70, 0.3, yield_stress=0.2, hardening=Voce(0.15, 30)))
STRETCH = np.array([1, -0.5, -0.5, 0, 0, 0])
PATH = PathProblem(MATERIALS, tuple(tuple(e * STRETCH) for e in (0.005, 0.01, 0.015, 0.02)))
BACK = PathProblem(MATERIALS, tuple(tuple(e * STRETCH) for e in (0.005, 0.01, 0.005)))  # returns to its first strain
KEPT = (1, 3)
MIXED = (None, *[0.0] * 5), (0.1, *[None] * 5)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Four microstructures, and two steps of their load path."""
    folder = tmp_path_factory.mktemp("stores")
    cells, fields = folder / "cells.zarr", folder / "strain.zarr"
    write_microstructures(cells, count=4, n=8, seed=0, split="train", per_shard=3)
    create_paths(fields, cells, PATH, keep=KEPT, tol=1e-4, per_shard=3)
    solve_fields(fields, cells)
    return cells, fields


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    """The folder of a network that has learned these steps a little, and the microstructures."""
    sets = load_sets(*stores, components="all")
    folder = tmp_path_factory.mktemp("path") / "fln"
    settings = dict(architecture="fln", seed=0, epochs=2, batch=4, learning_rate=2e-3, device="cpu")
    train(folder, sets, sets, **settings)
    return folder, open_dataset(stores[0]).phase.values


def test_each_kept_step_is_a_set_over_one_scale_of_the_whole_path(stores):
    """In memory as from the disk. The mean of each set tells how far the load has gone."""
    sets = {memory: load_sets(*stores, memory, "all") for memory in (np.inf, 0)}
    for (samples, domain), (stream, same), t in zip(*sets.values(), KEPT, strict=True):
        assert domain == same == Domain.of_step(PATH, t) == Domain.from_json(domain.to_json())
        assert_allclose(samples.y.mean(dim=(2, 3, 4)), [PATH.steps[t][0] / STRETCH[0] / 0.02] * 4, atol=1e-6)
        truth = open_dataset(stores[1]).strain.sel(kept=t) / np.float32(0.02)
        assert_array_equal(samples.y, truth)
        assert_array_equal(torch.cat([part.y for part in stream.batches(3)]), truth)
    assert sets[np.inf][0][0].phase is sets[np.inf][1][0].phase
    with pytest.raises(ValueError, match=r"strain.zarr: step = 2: must be one of the kept steps \[1, 3\]"):
        load(*stores, step=2)
    with pytest.raises(ValueError, match=r"strain.zarr: step is missing: must be one of the kept steps"):
        evaluate(load_model("cg"), *stores)


def solve_early(fields, microstructures, failures, per_shard):
    """Solve a store where samples of the first shard fail in a step, as a run that was interrupted then saved them."""
    create_paths(fields, microstructures, PATH, keep=KEPT, tol=1e-4, per_shard=per_shard)
    data, cells = Store.open(fields), Store.open(microstructures)
    stamp = f"{__version__} {data.description} {digest_cells(cells, 0, per_shard)}"
    for i, step in failures.items():
        early = begin_sample(data)
        for _ in range(step + 1):
            advance(early, cells.arrays["phase"][i], data, "cpu")
        early["converged"][step] = False
        save_sample(data.partial(0) / f"{i}.npz", stamp, early)
    with pytest.warns(NotConverged, match=f"sample {i} in step {step}"):
        solve_fields(fields, microstructures)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Two microstructures. The first has reached one of the two kept steps. The second has reached none."""
    folder = tmp_path_factory.mktemp("early")
    cells, fields = folder / "cells.zarr", folder / "early.zarr"
    write_microstructures(cells, count=2, n=8, seed=0, split="valid", per_shard=2)
    solve_early(fields, cells, {0: 2, 1: 0}, 2)
    return cells, fields


def test_samples_that_end_early_are_left_out(stores, tmp_path):
    fields = tmp_path / "early.zarr"
    solve_early(fields, stores[0], {1: 2}, 3)
    with pytest.warns(UserWarning, match=r"early.zarr: left out 1 of 4 samples, which have not reached step 3$"):
        (first, _), (late, _) = load_sets(stores[0], fields, components="all")
    whole, chosen = load_sets(*stores, components="all"), [0, 2, 3]
    assert_array_equal(first.y, whole[0][0].y)
    for name in ("phase", "y"):
        assert_array_equal(getattr(late, name), getattr(whole[1][0], name)[chosen])
    with pytest.warns(UserWarning, match="left out 1 of 4"):
        stream, _ = load(stores[0], fields, 0, "all", 3)
    assert_array_equal(torch.cat([part.y for part in stream.batches(2)]), late.y)
    assert stream.total == late.total == 3
    with pytest.warns(UserWarning, match=r"left out samples \[1\], which have not reached step 3"):
        errors, examples = evaluate(load_model("cg"), stores[0], fields, step=3)
    expected = evaluate(load_model("cg"), *stores, step=3)[0].query("sample != 1")
    assert_array_equal(errors["mase"], expected["mase"])
    assert examples["sample"].values.tolist() == chosen


def test_a_step_that_no_training_microstructure_has_reached_is_left_out(stores, early, tmp_path):
    """The network learns the other step. At this one, its evaluation is empty beside that of the solver."""
    folder = tmp_path / "fln"
    options = ["--architecture", "fln", "--predict", "all", "--epochs", 1, "--device", "cpu"]
    early, whole = (",".join(map(str, pair)) for pair in (early, stores))
    with pytest.warns(UserWarning, match="--valid: left out step 3, which no training microstructure has reached"):
        invoke("train", folder, "--train", early, "--valid", whole, *options)
    with pytest.warns(UserWarning, match="--valid: no microstructure has reached step 3; the network will"):
        invoke("train", tmp_path / "both", "--train", whole, "--valid", early, *options)

    network, frames = load_model(folder), {"cg": evaluate(load_model("cg"), *stores, step=3)[0]}
    with pytest.raises(ValueError, match=r"strain.zarr: the network has not learned step 3 of the load path, but 1; "):
        evaluate(network, *stores, step=3)
    with pytest.warns(UserWarning, match="has not learned step 3"):
        frames["fln"], _ = evaluate(network, *stores, step=3, allow_empty=True)
    rows = table({("metal/step3", name): [frame] for name, frame in frames.items()})
    assert format_table(rows)["MASE (%)"].iloc[-1] == "not reached"
    assert conclude(rows) == ""
    for name, frame in frames.items():
        write_errors(tmp_path / f"{name}.parquet", frame)
    draw("mase", [tmp_path / "mase.png"], {name: str(tmp_path / f"{name}.parquet") for name in frames})


def test_only_steps_that_were_reached_are_exported(early, tmp_path):
    for name in ("0_step3.vti", "10_step3.vti"):  # of an earlier export
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"early.zarr: sample 0 has no images of the steps \[3\], which it has not"):
        export(tmp_path, *early, [0])
    files = {"0.pvd", "0_step1.vti", "10_step3.vti"}
    assert {file.name for file in tmp_path.iterdir()} == files
    with pytest.raises(ValueError, match=r"early.zarr: sample 1 has reached no kept step"):
        export(tmp_path, *early, [1])
    assert {file.name for file in tmp_path.iterdir()} == files


def test_a_network_sees_how_far_the_load_has_gone(trained):
    """Its fields keep the mean strain of each step. They are no multiples of each other, as those of a linear law."""
    folder, phase = trained
    model = load_model(folder)
    assert model.domains == [Domain.of_step(PATH, t) for t in KEPT]
    early, late = (model.predict(phase, MATERIALS, PATH.steps[t][0]) for t in KEPT)
    for solution, t in ((early, 1), (late, 3)):
        assert_allclose(solution.strain.mean(axis=(2, 3, 4)), [PATH.steps[t][0]] * 4, atol=1e-7)
        assert solution.residual is solution.bound is None
    assert np.abs(late.strain - 2 * early.strain).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"materials": (MATERIALS[0], replace(MATERIALS[1], yield_stress=0.3))}, "materials = .*was trained for"),
        ({"materials": (MATERIALS[0], MATERIALS[1].elastic)}, "materials: none is inelastic"),
        ({"strain": tuple(0.015 * STRETCH)}, r"strain = \[0.015, .*was trained for the strain \[0.01, .* or \[0.02, "),
        (
            dict(zip(("strain", "stress"), MIXED, strict=True)),
            r"strain = \[None.*must be prescribed, and not all 0, for this network$",
        ),
        ({"strain": (PATH.steps[1][0], None)}, "^strain = .*must have 6 components"),
        ({"temperature": 5}, "temperature = 5: must be 0"),
        ({"scheme": "full"}, "scheme = 'full'"),
        ({"spacing": (1, 1, 2)}, "spacing = "),
    ],
)
def test_other_problems_are_refused_in_one_line(trained, change, message):
    folder, phase = trained
    arguments = {"materials": MATERIALS, "strain": PATH.steps[1][0]} | change
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder).predict(phase, **arguments)
    assert "\n" not in str(caught.value)


def test_a_linear_model_refuses_a_step_of_a_path(trained):
    phase, step = trained[1], Domain.of_step(PATH, 1)
    with pytest.raises(ValueError, match="this model was trained for linear materials"):
        load_model("fln-c50").predict_problem(phase, step)


@pytest.mark.parametrize(
    ("architecture", "channels", "domains", "message"),
    [
        ("rln-cg", 6, [Domain.of_step(PATH, 1)], "predicts multiples of the load"),
        ("fno", 6, [Domain.of_step(PATH, 1)], "predicts multiples of the load"),
        ("fln", 1, [Domain.of_step(PATH, 1)], "must predict all components"),
        ("fln", 6, [Domain.of_step(PATH, 1), Domain.of_step(PATH, 1).without_load], "one load path alone; remove"),
        ("fln", 6, [Domain.of_step(BACK, t) for t in (0, 1, 2)], "cannot tell steps 0 and 2 .* apart"),
        ("fln", 6, [Domain.of_step(replace(PATH, steps=(MIXED,)), 0)], "must be prescribed"),
    ],
)
def test_what_no_network_can_learn(architecture, channels, domains, message):
    with pytest.raises(ValueError, match=message):
        check_learnable(architecture, channels, domains)


def test_two_sets_of_one_step_can_be_learned():
    check_learnable("fln", 6, [Domain.of_step(PATH, t) for t in (1, 3, 1)])


def test_the_baseline_approaches_the_exact_fields_of_a_laminate():
    """Its first stage is the elastic field. The others approach the field of all steps."""
    phase = np.broadcast_to(np.array([0, 1])[:, None, None], (2, 2, 2))
    shear = np.array([0, 0, 0, 0, 0, 0.004])
    path = replace(PATH, steps=tuple(tuple(0.01 * STRETCH + k * shear) for k in range(4)))
    baseline, step = PathBaseline(path, 3), Domain.of_step(path, 3)
    solutions = [solution for _, _, solution in baseline.iterates(phase, step)]
    elastic = solve(phase, [MATERIALS[0], MATERIALS[1].elastic], step.strain, tol=1e-2)
    assert_allclose(solutions[0].strain, elastic.strain)
    exact = laminate(MATERIALS, 0, [strain for strain, _ in path.steps])[-1][0]
    errors = [np.abs(solution.strain[0, 5, :, 0, 0] - exact[:, 0, 1]).max() for solution in solutions]
    assert baseline.stages[2:4] == [(1, 0.01), (2, 0.01)]
    assert errors[-1] < 1e-7 < errors[4] < 3e-5 < errors[0]
    assert sorted(green := [int(solution.green[0]) for solution in solutions]) == green


def test_evaluation_at_a_step_compares_networks_with_the_stages_of_the_solver(stores, trained, tmp_path):
    """The errors are those of the strain. There are none of energy and stress, which the strain alone does not give."""
    folder, phase = trained
    frames = {}
    for name in ("cg", "fln"):
        frames[name], examples = evaluate(load_model("cg" if name == "cg" else folder), *stores, step=3)
        write_errors(tmp_path / f"{name}.parquet", frames[name])
        write_examples(tmp_path / f"{name}.zarr", examples)
    assert not {"energy", "mean_stress", "von_mises", "effective", "bound"} & {*frames["cg"], *frames["fln"]}

    strain = load_model(folder).predict(phase, MATERIALS, PATH.steps[3][0]).strain
    off = strain - open_dataset(stores[1]).strain.sel(kept=3).values
    square = np.einsum("ncxyz,c->nxyz", off**2, [1, 1, 1, 2, 2, 2])
    expected = 100 * np.sqrt(square).mean(axis=(1, 2, 3)) / (0.02 * np.sqrt(1.5))
    assert_allclose(frames["fln"]["mase"], expected, rtol=1e-5)

    cg = frames["cg"].groupby("passes").mean()
    assert cg["mase"].iloc[-1] < 0.5 < cg["mase"].iloc[2] < cg["mase"].iloc[0]
    assert cg["green"].is_monotonic_increasing
    rows = table({("metal/step3", name): [frame] for name, frame in frames.items()})
    names = ["elastic", *(f"1 increment, tol {tol}" for tol in (0.1, 0.03, 0.01)), "2 increments, tol 0.01"]
    assert format_table(rows)["passes"].tolist()[:5] == names
    for figure, suffix in (("mase", "parquet"), ("convergence", "parquet"), ("comparison", "zarr")):
        draw(figure, [tmp_path / f"{figure}.png"], {name: str(tmp_path / f"{name}.{suffix}") for name in frames})
    with pytest.raises(ValueError, match="needs errors of the stress, which steps of load paths do not have"):
        draw("effective_errors", [tmp_path / "x.png"], {name: str(tmp_path / f"{name}.parquet") for name in frames})

    with pytest.raises(ValueError, match="rln-cg predicts linear problems only; use fln, rln-t or rln"):
        evaluate(load_model("rln-cg"), *stores, step=3)


def test_the_baseline_passes_every_turn_of_the_load():
    """Loading, unloading and loading in another direction, in equal parts of the seven steps."""
    strains = [0.25, 0.5, 0.75, 1, 0.5, 0.75, 1]
    path = replace(PATH, steps=tuple((0.02 * e, *[0.0] * 5) for e in strains))
    assert PathBaseline(path, 6).choose_steps(1) == [3, 4, 6]
    assert PathBaseline(path, 3).choose_steps(2) == [1, 3]
    assert PathBaseline(path, 4).names[1] == "2 increments, tol 0.1"
