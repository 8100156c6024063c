"""The table of the effective properties of a store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lspipe.cell.effective import Effective, Interval
from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.store import Store
from lspipe.store.shards import open_pair

AXES = "xyz"
PLANES = ("yz", "xz", "xy")


def tabulate_effective(path: Path) -> pd.DataFrame:
    """Return a row for each microstructure of a store of effective properties.

    Args:
        path: A whole store of effective properties.

    Returns:
        The number of the ``sample`` and these columns. A property P with guaranteed bounds has the columns P, P_low and
        P_high. Columns without any number are left out.

        C11, C12, … C66 are the upper triangle of the stiffness in Voigt order, which acts on engineering shear, in the
        unit of the moduli; k11 … k33 are that of a conductivity. K and G are the moduli of the nearest isotropic
        stiffness, and k is the mean conductivity. G_cubic is (C₁₁ − C₁₂)/2 and C44_cubic is C₄₄ of the nearest cubic
        stiffness. E_x … and G_yz … are the moduli along the axes, and nu_xy is the contraction along y over the strain
        along x for a stress along x. ``anisotropy`` is the universal anisotropy index. a1 … a6 are the thermal
        expansion with tensor shear. f0, f1, … are the volume fractions of the materials.

        K_reuss, K_voigt and the like are the bounds on K that hold for any cell of these volume fractions; K_hs_low and
        K_hs_high are the Hashin–Shtrikman bounds, which hold for isotropic composites. ``gap`` is the guaranteed
        relative gap, ``iterations`` their number for each unit strain, ``converged`` whether the tolerance was reached,
        and ``seconds`` the time for the sample.

    Raises:
        ValueError: The store is not whole, or is no store of effective properties.
    """
    cells, data = open_pair(Store.open(path).resolve("microstructures_path"), path, ("stiffness",))
    data.check_whole()
    arrays, physics = {name: array[:] for name, array in data.arrays.items()}, data.problem.physics
    late = [i for shard in data.shards for i in data.receipt(shard)["not_converged"]]
    converged = ~np.isin(np.arange(data.count), late)
    names = ("stiffness", "lower", "upper", "gap", "iterations")
    effective = Effective(**{name: arrays[name] for name in names}, converged=converged, physics=physics)
    columns: dict[str, NDArray] = {"sample": np.arange(data.count)}
    for name, interval in name_properties(effective):
        columns |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
    columns |= number("a", arrays["expansion"], 1) | number("f", cells.arrays["volume_fraction"][:], 0)
    for bound, array in (("reuss", "reuss"), ("voigt", "voigt"), ("hs_low", "hs_lower"), ("hs_high", "hs_upper")):
        moduli = zip(name_moduli(physics), physics.moduli(arrays[array]), strict=True)
        columns |= {f"{name}_{bound}": values for name, values in moduli}
    columns |= {name: arrays[name] for name in ("gap", "iterations", "seconds")} | {"converged": converged}
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def name_properties(effective: Effective) -> Iterator[tuple[str, Interval]]:
    """Yield the name and the values (N,) of each property with guaranteed bounds."""
    physics = effective.physics
    letter, strains = ("C" if physics is ELASTICITY else "k"), len(physics.components)
    for i, j in combinations_with_replacement(range(strains), 2):
        yield f"{letter}{i + 1}{j + 1}", select(effective.entries, i, j)
    for m, name in enumerate(name_moduli(physics)):
        yield name, select(effective.isotropic, m)
    if physics is ELASTICITY:
        yield "G_cubic", select(effective.cubic, 1)
        yield "C44_cubic", select(effective.cubic, 2)
        for i in range(3):
            yield f"E_{AXES[i]}", select(effective.young, i)
        for i in range(3):
            yield f"G_{PLANES[i]}", select(effective.shear, i)
        for i, j in ((0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)):
            yield f"nu_{AXES[i]}{AXES[j]}", select(effective.poisson, i, j)
    yield "anisotropy", effective.anisotropy


def name_moduli(physics: Physics) -> tuple[str, ...]:
    """Return the names of the isotropic moduli."""
    return ("K", "G") if physics is ELASTICITY else ("k",)


def select(interval: Interval, *index: int) -> Interval:
    """Return one entry of an interval of vectors or matrices."""
    return Interval(*(np.moveaxis(values, 0, -1)[index] for values in interval))


def number(letter: str, values: np.ndarray, first: int) -> dict[str, np.ndarray]:
    """Return the columns of values (N, n), named by a letter and numbers from ``first`` on."""
    return {f"{letter}{k}": column for k, column in enumerate(values.T, first)}
