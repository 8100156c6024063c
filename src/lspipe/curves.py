"""The stress–strain curves of a store of load paths, as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lspipe.cell.material import Void
from lspipe.cell.path import solve_path_problem
from lspipe.cell.physics import ELASTICITY, find_von_mises
from lspipe.store import Store
from lspipe.store.layout import PATHS
from lspipe.store.shards import open_pair

STRAINS, STRESSES = ([f"{letter}_{name}" for name in ELASTICITY.components] for letter in "ES")
NUMBERS = [name for name, (_, dims) in PATHS.items() if dims == ("step",)]


def tabulate_curves(path: Path) -> pd.DataFrame:
    """Return a row for each microstructure and step of a store of load paths, and for each phase alone and step.

    Args:
        path: A whole store of load paths.

    Returns:
        The number of the ``sample``, or that of the ``phase`` whose material fills the cell, and the ``step``, counted
        from 0. A phase of voids is left out.

        E_xx, E_yy, E_zz, E_yz, E_xz, E_xy are the macroscopic strain with tensor shear, and S_xx … S_xy the macroscopic
        stress in the unit of the moduli. ``equivalent_strain`` is √(2/3 e:e) of the deviatoric strain e, and
        ``von_mises`` is the von Mises stress of the macroscopic stress. f0, f1, … are the volume fractions. ``newton``,
        ``iterations``, ``cuts``, ``residual``, ``bound`` and ``converged`` are those of ``lspipe.Path``. The bound is
        left out where it is infinite for all microstructures. Strains and stresses are NaN in steps that were not
        reached.

    Raises:
        ValueError: The store is not whole, or is no store of load paths.
    """
    cells, data = open_paths(path)
    arrays = {name: data.arrays[name][:] for name in ("mean_strain", "mean_stress", *NUMBERS)}
    samples = _lay_out("sample", np.arange(data.count), arrays, cells.arrays["volume_fraction"][:])
    if not np.isfinite(samples["bound"]).any():
        samples = samples.drop(columns="bound")
    table = pd.concat([samples, _follow_phases(data)], join="inner", ignore_index=True)
    return table.astype({"sample": "Int64", "phase": "Int64"})


def open_paths(path: Path) -> tuple[Store, Store]:
    """Open the microstructures of a whole store of load paths, and the store.

    Raises:
        ValueError: The store is not whole, or is no store of load paths.
    """
    if not (data := Store.open(path)).has_paths:
        raise ValueError(f"{path}: holds no load paths; must be a store that `lspipe allocate --load` created")
    cells, data = open_pair(data.resolve("microstructures_path"), path)
    data.check_whole()
    return cells, data


def _follow_phases(data: Store) -> pd.DataFrame:
    """Return the rows of cells that one phase fills."""
    problem = data.path_problem
    solid = np.array([i for i, material in enumerate(problem.materials) if not isinstance(material, Void)])
    path = solve_path_problem(solid.reshape(-1, 1, 1, 1), problem, tol=data.attributes["tol"], keep=[], warn=False)
    return _lay_out("phase", solid, vars(path), np.eye(len(problem.materials))[solid])


def _lay_out(kind: str, numbers: NDArray, arrays: dict[str, NDArray], fractions: NDArray) -> pd.DataFrame:
    """Return the rows of N curves of T steps, from arrays (N, T, …) and volume fractions (N, materials)."""
    N, T = arrays["converged"].shape
    strain, stress = (arrays[name].reshape(N * T, 6).T for name in ("mean_strain", "mean_stress"))
    columns = {"sample": pd.NA, "phase": pd.NA} | {kind: np.repeat(numbers, T), "step": np.tile(np.arange(T), N)}
    columns |= dict(zip(STRAINS, strain, strict=True)) | dict(zip(STRESSES, stress, strict=True))
    columns |= {"equivalent_strain": 2 / 3 * find_von_mises(strain), "von_mises": find_von_mises(stress)}
    columns |= {f"f{k}": np.repeat(values, T) for k, values in enumerate(fractions.T)}
    return pd.DataFrame(columns | {name: arrays[name].ravel() for name in NUMBERS})


def summarize_curves(table: pd.DataFrame) -> str:
    """Return Markdown with the macroscopic stress at the last step, and the microstructures that ended early.

    Args:
        table: The table of ``tabulate_curves``.
    """
    samples, T = table[table["sample"].notna()], table["step"].max() + 1
    reached = samples.groupby("sample")["converged"].sum()
    last = samples[samples["converged"] & (samples["step"] == T - 1)]
    lines = [f"{len(last)} of {len(reached)} microstructures have reached step {T - 1}, the last one."]
    if len(last):
        stresses = last[[*STRESSES, "von_mises"]].agg(["mean", "std", "min", "max"]).T.dropna(axis=1)
        lines += ["", "Their macroscopic stress there:", ""]
        lines += [stresses.rename(columns={"std": "standard deviation"}).to_markdown(floatfmt=".4g")]
    if early := [f"{sample} ({count} of {T} steps)" for sample, count in reached.items() if count < T]:
        lines += ["", f"Microstructures that ended early: {', '.join(early)}."]
    return "\n".join(lines)
