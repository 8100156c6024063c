"""The study of RLN-CG: problems are what they are called, and numbers are those of the methods."""

import numpy as np
import pandas as pd
import pytest
from conftest import run

from lspipe import load_model
from lspipe.cell.solver import solve_problem
from lspipe.products import write_table
from lspipe.study import GREEN, TOLERANCES, morphologies, problems, study, unlearned

MODEL = load_model("rln-cg")


@pytest.fixture(scope="module")
def measured():
    return study(MODEL, 6, 2)


def test_problems_are_what_they_are_called():
    found = {(p.varied, p.value): p for p in problems(8, 2)}
    basic = found["contrast", "50"]
    assert basic.problem.materials[1].young == 50 * basic.problem.materials[0].young
    assert found["contrast", "1/50"].problem.materials[1].young == pytest.approx(1 / 50)
    assert found["grid", "16³"].phase.shape == (1, 16, 16, 16)
    fractions = {name: found["microstructure", name].phase.mean() for name in ("sphere", "fibre", "layers", "noise")}
    assert fractions["sphere"] == pytest.approx(4 / 3 * np.pi * 0.3**3, abs=0.03)
    assert fractions["fibre"] == pytest.approx(np.pi * 0.35**2, abs=0.05)
    assert fractions["layers"] == 0.5
    assert fractions["noise"] == pytest.approx(0.5, abs=0.05)
    grains = found["microstructure", "grains"].phase
    assert set(np.unique(grains)) == {0, 1}
    # each voxel of a grain has a neighbour in it, also across the faces of the cell
    alike = sum((grains == np.roll(grains, step, axis)) for step in (1, -1) for axis in (1, 2, 3))
    assert (alike > 0).mean() > 0.99
    fine = morphologies(24, 1)["grains"]
    assert min((fine.take(0, axis) == fine.take(-1, axis)).mean() for axis in (1, 2, 3)) > 0.8
    assert len({(p.varied, p.value) for p in problems(8, 2)}) == len(list(problems(8, 2)))


@pytest.mark.parametrize(("name", "method"), [("cg", load_model("cg")), ("rln-cg", MODEL), ("S = D⁻¹", unlearned())])
@pytest.mark.parametrize("value", ["50", "shear xy", "uniaxial stress", "full"])
def test_numbers_are_those_of_the_methods(measured, name, method, value):
    """Recomputed one microstructure at a time, with the energy of the solver's own stress."""
    (trial,) = (p for p in problems(6, 2) if p.value == value)
    shear = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)
    rows = measured[(measured["problem"] == value) & (measured["method"] == name)].set_index(
        ["quantity", "sample", "at"]
    )
    for sample, cell in enumerate(trial.phase):
        truth = solve_problem(cell, trial.problem, tol=1e-8)
        for green in (1, 5):
            found = method.predict_problem(cell, trial.problem, passes=green)
            strain, stress = found.strain - truth.strain, found.stress - truth.stress
            ratio = (strain * stress * shear).sum() / (truth.strain * truth.stress * shear).sum()
            assert rows.loc[("energy", sample, green), "value"] == pytest.approx(100 * np.sqrt(ratio), rel=1e-3)
            norms = [
                np.sqrt((e**2 * shear).sum(axis=1)) for e in (strain, truth.strain.mean(axis=(2, 3, 4), keepdims=True))
            ]
            assert rows.loc[("mase", sample, green), "value"] == pytest.approx(
                100 * norms[0].mean() / norms[1].item(), rel=1e-3
            )


def test_iterations_bring_the_residual_down(measured):
    (trial,) = (p for p in problems(6, 2) if p.value == "50")
    rows = measured[(measured["problem"] == "50") & (measured["quantity"] == "iterations")]
    assert set(rows["method"]) == {"cg", "S = D⁻¹", "rln-cg", "5 of rln-cg, then cg"}
    rows = rows.set_index(["method", "sample", "at"])["value"]
    for sample, cell in enumerate(trial.phase):
        for tol in TOLERANCES:
            plain = solve_problem(cell, trial.problem, tol=tol)
            assert rows["cg", sample, tol] == plain.iterations
            assert rows["rln-cg", sample, tol] < plain.iterations


def test_the_command(tmp_path, measured):
    write_table(tmp_path / "study.parquet", "study", measured)
    for kind in ("gains", "tolerances"):
        run("lspipe", "figure", kind, f"{kind}.png", "--input", "rln-cg,study.parquet", cwd=tmp_path)
        assert (tmp_path / f"{kind}.png").stat().st_size > 10_000
    done = run("lspipe", "study", "x.parquet", "--model", "cg", cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (1, "lspipe: cg: must be a trained rln-cg\n")
    done = run("lspipe", "figure", "pie", "x.png", "--input", "rln-cg,study.parquet", cwd=tmp_path, check=False)
    assert done.stderr.startswith("lspipe: figure 'pie': must be one of learning_curves, mase, convergence")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gains.png", "study.parquet", "tolerances.png"]
    assert len(pd.read_parquet(tmp_path / "study.parquet")) > 1000
    assert set(measured["at"]) == {*GREEN, *TOLERANCES}
