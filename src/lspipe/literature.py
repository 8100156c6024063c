"""Errors that papers report for the cells of Kelly & Kalidindi (2021), beside those of a run of the same case."""

from __future__ import annotations

import pandas as pd

from lspipe.cell.material import Isotropic
from lspipe.cell.problem import Problem
from lspipe.config import BASELINE, Config
from lspipe.models.domain import Domain, find_domain

KELLY = "Kelly & Kalidindi (2021), arXiv 2102.00063"
YANG = "Yang et al. (2019), Acta Materialia 166, 335; as Kelly & Kalidindi (2021) cite them"
# Mean and standard deviation of the MASE in % over the test set, where the source gives it, by contrast.
PUBLISHED = {
    10: {"CNN": ("3.07 ± 1.22", YANG), "RLN": ("1.21", KELLY)},
    50: {"CNN": ("5.71 ± 2.46", YANG), "RLN": ("2.92", KELLY)},
}
GRID = (31, 31, 31)
PASSES = 5  # Passes of the networks of the paper, and largest number of passes of other predictors in the comparison.


def find_contrast(problem: Problem) -> int | None:
    """Return the contrast if materials, load, voxels and element are those of a case of the paper."""
    for contrast in PUBLISHED:
        materials = (Isotropic(120.0, 0.3), Isotropic(120.0 * contrast, 0.3))
        try:
            find_domain(problem, [Domain(materials, (1e-3, 0, 0, 0, 0, 0), scheme="bbar")])
        except ValueError:
            continue
        return contrast
    return None


def compare_published(config: Config, errors: pd.DataFrame) -> pd.DataFrame:
    """Return the MASE of this run and of papers for each case that is one of Kelly & Kalidindi (2021).

    Args:
        config: The configuration of the run. Other cells than the paper's have no published errors.
        errors: The table that ``lspipe.tables.table`` returns.

    Returns:
        A row for each case and network, with the mean ± standard deviation and its source; empty for other cases.
    """
    cells, imported, rows = config.microstructures, {n.name for n in config.networks if n.published}, []
    is_paper = not cells.images and cells.generator == {"kind": "gaussian"} and tuple(cells.n) == GRID
    for case, problem in config.problems.items() if is_paper else ():
        if (contrast := find_contrast(problem)) is None:
            continue
        few = errors[(errors["case"] == case) & (errors["passes"] <= PASSES) & (errors["predictor"] != BASELINE)]
        for name, row in few.groupby("predictor", sort=False).last().iterrows():
            source = "published weights, test cells of this run" if name in imported else "this run"
            rows.append((case, name, f"{row['mean']:.3g} ± {row['std']:.2g}", source))
        rows += [(case, network, *published) for network, published in PUBLISHED[contrast].items()]
    return pd.DataFrame(rows, columns=["case", "network", "MASE (%)", "source"])
