"""The benchmark of RLN-CG: problems are what they are called, and numbers are those of the methods."""

import sys

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY

from lspipe import load_model
from lspipe.cell.solver import solve_problem
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.localization import LocalizationModel

sys.path.append(str(REPOSITORY / "benchmarks"))
from study import (
    GREEN,
    TOLERANCES,
    compare,
    draw_gains,
    draw_tolerances,
    gains,
    morphologies,
    study,
    trials,
    unlearned,
    unseen,
)

MODEL = load_model("rln-cg")


@pytest.fixture(scope="module")
def measured():
    values = ("50", "1000", "noise", "shear xy", "uniaxial stress", "full")
    return study(MODEL, [p for p in trials(6, 2) if p.value in values])


def test_problems_are_what_they_are_called():
    found = {(p.varied, p.value): p for p in trials(8, 2)}
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
    assert len({(p.varied, p.value) for p in trials(8, 2)}) == len(list(trials(8, 2)))


@pytest.mark.parametrize(("name", "method"), [("cg", load_model("cg")), ("rln-cg", MODEL), ("S = D⁻¹", unlearned())])
@pytest.mark.parametrize("value", ["50", "shear xy", "uniaxial stress", "full"])
def test_numbers_are_those_of_the_methods(measured, name, method, value):
    """Recomputed one microstructure at a time, with the energy of the solver's own stress."""
    (trial,) = (p for p in trials(6, 2) if p.value == value)
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
            measured_by = slice(0, 1 if trial.problem.strain[0] and None not in trial.problem.strain else 6)
            norms = [
                np.sqrt((e**2 * shear)[:, measured_by].sum(axis=1))
                for e in (strain, truth.strain.mean(axis=(2, 3, 4), keepdims=True))
            ]
            assert rows.loc[("mase", sample, green), "value"] == pytest.approx(
                100 * norms[0].mean() / norms[1].item(), rel=1e-3
            )


def test_iterations_bring_the_residual_down(measured):
    (trial,) = (p for p in trials(6, 2) if p.value == "50")
    rows = measured[(measured["problem"] == "50") & (measured["quantity"] == "iterations")]
    assert set(rows["method"]) == {"cg", "S = D⁻¹", "rln-cg", "5 of rln-cg, then cg"}
    rows = rows.set_index(["method", "sample", "at"])["value"]
    for sample, cell in enumerate(trial.phase):
        for tol in TOLERANCES:
            plain = solve_problem(cell, trial.problem, tol=tol)
            assert rows["cg", sample, tol] == plain.iterations
            assert rows["rln-cg", sample, tol] < plain.iterations


def test_gains_are_ratios_of_geometric_means_and_are_drawn(measured):
    assert set(measured["at"]) == {*GREEN, *TOLERANCES}
    rows = measured[(measured["quantity"] == "energy") & (measured["at"] == 5)]
    errors = rows.pivot_table(
        index="problem", columns="method", values="value", aggfunc=lambda x: np.prod(x) ** (1 / 2)
    )
    gain = gains(measured).set_index(["problem", "at", "method"])["gain"]
    for problem in ("1000", "shear xy", "noise"):
        for method in ("rln-cg", "S = D⁻¹"):
            expected = errors.loc[problem, "cg"] / errors.loc[problem, method]
            assert gain[problem, 5, method] == pytest.approx(expected, rel=1e-6)
    first, panel, _ = draw_gains(measured).axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    (learned, *_) = panel.get_lines()
    drawn = dict(zip(labels, learned.get_xdata(), strict=True))
    assert drawn["contrast 1000"] == gain["1000", 5, "rln-cg"]


def test_networks_are_compared_on_the_problems_that_they_serve():
    """Errors are those of the solver stopped early; networks of phases skip other materials."""
    problems = [p for p in unseen(6, 2) if p.value in ("10", "polycrystal")]
    fno = LocalizationModel(build("fno", 2).eval(), [Domain(problems[0].problem.materials, (1.0, 0, 0, 0, 0, 0))])
    rows = compare({"cg": load_model("cg"), "fno": fno, "rln": load_model("rln-t-c50")}, problems)
    assert set(zip(rows["method"], rows["problem"], strict=True)) == {
        (method, value) for method in ("cg", "fno") for value in ("10", "polycrystal")
    }
    crystals = problems[1]
    truth, found = (
        field.strain
        for field in (
            solve_problem(crystals.phase, crystals.problem, tol=1e-8),
            load_model("cg").predict_problem(crystals.phase, crystals.problem, passes=1),
        )
    )
    expected = 100 * np.abs(found - truth)[:, 0].mean(axis=(1, 2, 3))
    one = rows[(rows["problem"] == "polycrystal") & (rows["method"] == "cg") & (rows["at"] == 1)]
    np.testing.assert_allclose(one[one["quantity"] == "mase"]["value"], expected, rtol=1e-3)


def test_there_is_no_gain_where_both_errors_are_rounding():
    """One cell of 1e-7% against 1e-6% is no gain; 1% against 1e-7% counts the latter as 3e-4%."""
    columns = ["varied", "problem", "sample", "method", "quantity", "at", "value"]
    pairs = {"layers": (1e-6, 1e-7), "sphere": (1.0, 1e-7), "fibre": (1.0, 2.0)}
    rows = [("m", p, 0, m, "energy", 5, v) for p, pair in pairs.items() for m, v in zip(("cg", "x"), pair, strict=True)]
    gain = gains(pd.DataFrame(rows, columns=columns)).set_index("problem")["gain"]
    assert np.isnan(gain["layers"])
    assert gain[["sphere", "fibre"]].tolist() == pytest.approx([1 / 3e-4, 0.5])


def test_tolerances_are_drawn(measured):
    panel = draw_tolerances(measured).axes[1]
    cg = panel.get_lines()[0]
    rows = measured[(measured["problem"] == "50") & (measured["quantity"] == "iterations")]
    tight = rows[(rows["method"] == "cg") & (rows["at"] == 1e-6)]["value"]
    assert cg.get_label() == "cg"
    assert dict(zip(cg.get_xdata(), cg.get_ydata(), strict=True))[1e-6] == sum(tight) / 2
