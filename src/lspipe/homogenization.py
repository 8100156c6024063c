"""Effective properties of the cells of a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lspipe.cell.expansion import compute_effective_expansion
from lspipe.cell.homogenize import homogenize_problem
from lspipe.cell.problem import Problem
from lspipe.progress import progress
from lspipe.store import Store
from lspipe.store.cells import read_cells

BATCH = 8  # cells solved at once


def homogenize(microstructures: Path, problem: Problem, *, tol: float = 1e-6) -> pd.DataFrame:
    """Compute the effective stiffness, or conductivity, of every cell of a store.

    Args:
        microstructures: Store of the microstructures, which gives the spacing of the voxels.
        problem: Materials and element; the load is not used.
        tol: Guaranteed relative gap of the stiffness; relative residual of the solution for the expansion.

    Returns:
        A row for each ``sample``. C11, C12, … C66 are the upper triangle of the stiffness in Voigt order, which acts on
        engineering shear, in the unit of the moduli; k11 … k33 that of a conductivity. Where a material expands,
        a1 … a6 are the effective thermal expansion with tensor shear.

    Raises:
        ValueError: The materials are not those of the phases, or a shard of the store is not whole.
    """
    cells = Store.open(microstructures)
    cells.check_version()
    cells.check_whole()
    if len(problem.materials) != (count := cells.arrays["volume_fraction"].shape[1]):
        raise ValueError(f"{len(problem.materials)} materials: {microstructures} has {count} phases; give one for each")
    problem = replace(problem, spacing=cells.spacing)
    letter, strains = ("C" if problem.physics.d > 1 else "k"), len(problem.physics.components)
    i, j = np.triu_indices(strains)
    rows = []
    with progress(f"homogenize {microstructures}", cells.count, "sample") as bar:
        for first in range(0, cells.count, BATCH):
            phase, bound = read_cells(cells, slice(first, first + BATCH), problem)
            C = homogenize_problem(phase, bound, tol=tol).stiffness
            values = {f"{letter}{a + 1}{b + 1}": C[:, a, b] for a, b in zip(i, j, strict=True)}
            if any(m.expansion_strain.any() for m in problem.materials):
                alpha = compute_effective_expansion(phase, bound, tol=tol)
                values |= {f"a{a + 1}": alpha[:, a] for a in range(strains)}
            rows.append(pd.DataFrame({"sample": range(first, first + len(phase)), **values}))
            bar.update(len(phase))
    return pd.concat(rows, ignore_index=True)
