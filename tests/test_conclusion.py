"""What the table says about cost and trust, and the sentence that a run ends with, from errors made by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY

from lspipe.conclusion import conclude
from lspipe.literature import compare_published
from lspipe.read_config import parse_config, read_yaml
from lspipe.tables import explain_columns, format_table, table

CG = {0: (30.0, 1e-3), 1: (10.0, 2e-3), 2: (3.0, 3e-3), 5: (0.4, 6e-3), 6: (0.2, 7e-3)}  # mean MASE, seconds


def errors(passes, training_seconds, **columns):
    """Four microstructures for each number of passes, whose errors differ by up to 30 % from their mean."""
    rows = pd.DataFrame(
        [
            {"sample": k, "passes": p, "mase": m * (0.7 + 0.2 * k), "seconds": s, "operations": 1e6}
            for p, (m, s) in passes.items()
            for k in range(4)
        ]
    ).assign(**columns)
    fixed = {"parameters": 9, "device": "a CPU", "gpu_gb": 0.0}
    rows.attrs = fixed | {"passes": max(passes), "training_seconds": training_seconds}
    return rows


def tabulate(**networks):
    solver = errors(CG, 0.0).assign(green=lambda rows: rows["passes"])
    return table({("c", "cg"): [solver], **{("c", name): frames for name, frames in networks.items()}})


def test_a_training_is_paid_by_the_time_that_predictions_save():
    """cg reaches 4 % and 9 % after two iterations, in 3 ms. It never reaches 0.1 %."""
    seeds = [errors({5: (4.0, 0.5e-3)}, seconds) for seconds in (80.0, 120.0)]
    rows = tabulate(
        fast=seeds,
        slow=[errors({1: (9.0, 4e-3)}, 1.0)],
        exact=[errors({1: (0.1, 1e-3)}, 1.0)],
        unknown=[errors({1: (4.0, 1e-3)}, None)],
    ).set_index(["predictor", "passes"])
    assert rows.loc[("fast", 5), ["equal_iterations", "equal_ms"]].tolist() == [2, pytest.approx(3)]
    assert rows.loc[("fast", 5), "pays_after"] == pytest.approx(100 / 2.5e-3)
    assert rows.loc[("slow", 1), "pays_after"] == np.inf
    assert rows["pays_after"].drop([("fast", 5), ("slow", 1)]).isna().all()
    readable = format_table(rows.reset_index())["pays after"].tolist()
    assert readable == ["–", "–", "–", "40,000", "never", "–", "–"]


def test_without_the_solver_nothing_is_said_of_it():
    alone = {("c", "net"): [errors({1: (9.0, 4e-3)}, 1.0)]}
    assert conclude(table(alone)) == ""
    green = {("c", "net"): [errors({5: (9.0, 4e-3)}, 1.0).assign(green=5)]}
    assert conclude(table(green)) == "At c, after 5 applications of the Green operator, net has a MASE of 9%."


def test_the_error_that_a_model_states_stands_beside_the_part_that_it_covers():
    """Errors are 0.7, 0.9, 1.1 and 1.3. Another seed states another one. The first pass states none."""
    stated = [np.where(np.repeat([False, True], 4), limit, np.nan) for limit in (1.0, 1.2)]
    rows = tabulate(net=[errors({1: (2.0, 1.0), 2: (1.0, 1.0)}, 1.0, mase_90=limit) for limit in stated])
    last = rows.set_index("predictor").loc["net"]
    assert last["mase_90"] == pytest.approx(1.1)
    assert last["covered"] == pytest.approx(100 * 5 / 8)
    assert rows.set_index("predictor").loc["cg", ["mase_90", "covered"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        (
            {"near": [errors({1: (9.0, 4e-3)}, 1.0)], "far": [errors({1: (0.3, 70e-3)}, 1.0)]},
            "At c, use the solver, for cg reaches the error of every network in less time "
            "(near has a MASE of 9% in 4 ms, cg in 3 ms).",
        ),
        (
            {"late": [errors({1: (4.0, 2e-3)}, 50.0)], "soon": [errors({1: (4.0, 1e-3)}, 50.0)]},
            "At c, soon saves the time of its training after 25,000 predictions "
            "(soon has a MASE of 4% in 1 ms, cg in 3 ms).",
        ),
        (
            {"net": [errors({1: (4.0, 1e-3)}, None)]},
            "At c, net saves the time of its training after an unknown number of predictions "
            "(net has a MASE of 4% in 1 ms, cg in 3 ms).",
        ),
        (
            {"net": [errors({5: (0.01, 20e-3)}, 1.0).assign(green=5)], "slow": [errors({1: (9.0, 0.283)}, 1.0)]},
            "At c, cg takes less time than every network whose error it reaches "
            "(slow has a MASE of 9% in 280 ms, cg in 3 ms); cg does not reach the error of net; "
            "after 5 applications of the Green operator, cg has a MASE of 0.4% and net has a MASE of 0.01%.",
        ),
        ({}, ""),
    ],
    ids=["solver", "network", "published", "green", "none"],
)
def test_a_run_ends_with_its_conclusion(networks, sentence):
    assert conclude(tabulate(**networks)) == sentence


def test_published_errors_stand_beside_those_of_the_same_case():
    """The cases of the paper, up to units. Another grid, element, Poisson's ratio, load or contrast has none."""
    file = REPOSITORY / "config/paper.yaml"
    paper = read_yaml(str(file), file.read_bytes())
    weights = {"name": "given", "architecture": "rln", "published": "x.pth", "train_on": ["c10"]}
    paper["networks"] = [*paper["networks"], weights]
    rows = table({(case, name): [errors({5: (2.0, 1.0)}, 1.0)] for case in ("c10", "c50") for name in ("rln", "given")})
    found = compare_published(parse_config(paper), rows)
    assert found.query("case == 'c50'")["MASE (%)"].tolist() == ["2 ± 0.52", "2 ± 0.52", "5.71 ± 2.46", "2.92"]
    assert found["source"].str.startswith("published weights").tolist() == [False, True, False, False] * 2
    assert found.query("network == 'RLN'")["source"].str.contains("arXiv 2102.00063").all()
    for change in (
        {"microstructures": paper["microstructures"] | {"n": 30}},
        {"solver": {"scheme": "full"}},
        {"loads": {"shear": {"strain": [1e-3, 0, 0, 0, 0, 1e-3]}}, "networks": paper["networks"][-2:-1]},
        {"cases": paper["cases"] | {"c10": [{"young": 1, "poisson": 0.2}, {"young": 10, "poisson": 0.2}]}},
        {"cases": paper["cases"] | {"c10": [{"young": 1, "poisson": 0.3}, {"young": 20, "poisson": 0.3}]}},
    ):
        other = {"networks": paper["networks"][:-1]} | change
        assert "c10" not in set(compare_published(parse_config(paper | other), rows)["case"]), change
    units = {"cases": paper["cases"] | {"c10": [{"young": 1, "poisson": 0.3}, {"young": 10, "poisson": 0.3}]}}
    assert "c10" in set(compare_published(parse_config(paper | units), rows)["case"])


def test_the_table_says_how_many_microstructures_have_reached_a_step():
    """A mean over one survivor has its number, and a step that none has reached has neither passes nor a mean."""
    whole = errors({0: (100, 1)}, 60)
    one, none = (whole.iloc[:count] for count in (1, 0))
    rows = table({(f"step{k}", "fln"): [frame] for k, frame in enumerate((whole, one, none))})
    readable = format_table(rows)
    assert readable["MASE (%)"].tolist() == ["100 ± 26", "70 ± – (of 1)", "not reached"]
    assert readable["passes"].tolist() == ["0", "0", "–"]
    assert readable["pays after"].iloc[-1] == "–"
    texts = [explain_columns(part, ()) for part in (rows, rows[:1], rows[2:])]
    assert [text.partition(" microstructures ")[0] for text in texts[:2]] == ["Means over 1 to 4", "Means over 4"]
    assert ["of n: " in text for text in texts] == [True, False, False]
    assert "Means" not in texts[2]
    assert "not reached: no microstructure" in texts[2]
