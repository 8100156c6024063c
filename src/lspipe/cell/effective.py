"""Effective stiffness of a cell, and the classical bounds on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import check_phase
from lspipe.cell.material import Material, is_isotropic, isotropic_stiffness, moduli, stiffnesses
from lspipe.cell.solver import solve

Array = NDArray[np.float64]


def effective_stiffness(
    phase: ArrayLike,
    materials: Sequence[Material],
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-6,
    device: str = "cpu",
) -> Array:
    """C_eff (N, 6, 6) with ⟨σ⟩ = C_eff:⟨ε⟩ in Voigt order, acting on engineering shear: the mean stresses of
    six solutions. Arguments as for ``solve``."""
    columns = []
    for j in range(6):
        unit = [0.0] * 6
        unit[j] = 1.0 if j < 3 else 0.5  # engineering shear 1
        solution = solve(phase, materials, unit, spacing=spacing, scheme=scheme, tol=tol, device=device)
        assert solution.stress is not None
        columns.append(solution.stress.mean(axis=(2, 3, 4)))
    C = np.stack(columns, axis=2)
    return (C + C.transpose(0, 2, 1)) / 2  # symmetric but for the tolerance


class Bounds(NamedTuple):
    """Stiffnesses (N, 6, 6), in the sense of energies: reuss ≤ C_eff ≤ voigt for any cell; between
    ``lower`` and ``upper`` (Hashin & Shtrikman 1963, Walpole 1966) where phases and composite are
    isotropic, which one random cell need not be. Those two are None for anisotropic phases."""

    reuss: Array
    voigt: Array
    lower: Array | None
    upper: Array | None


def bounds(phase: ArrayLike, materials: Sequence[Material]) -> Bounds:
    """Bounds on the effective stiffness from the volume fractions of ``phase``."""
    checked = check_phase(phase, len(materials))
    count = np.stack([np.bincount(p.ravel(), minlength=len(materials)) for p in checked])
    fractions = count / count.sum(axis=1, keepdims=True)
    C = stiffnesses(materials)
    voigt = np.tensordot(fractions, C, 1)
    void = np.trace(C, axis1=1, axis2=2) == 0
    compliance = np.linalg.inv(np.where(void[:, None, None], np.eye(6), C))
    hollow = (fractions[:, void] > 0).any(axis=1)
    reuss = np.linalg.inv(np.tensordot(fractions, compliance, 1))
    reuss[hollow] = 0.0
    if not is_isotropic(C):
        return Bounds(reuss, voigt, None, None)
    bulk, shear = moduli(C)
    lower, upper = (
        np.stack([_hashin_shtrikman(f, bulk, shear, extreme(bulk[f > 0]), extreme(shear[f > 0])) for f in fractions])
        for extreme in (np.min, np.max)
    )
    return Bounds(reuss, voigt, lower, upper)


def _hashin_shtrikman(f: Array, bulk: Array, shear: Array, bulk0: float, shear0: float) -> Array:
    """The isotropic composite as seen from a matrix of moduli bulk0, shear0."""
    if shear0 == 0:
        return np.zeros((6, 6))
    k = 4 / 3 * shear0
    g = shear0 * (9 * bulk0 + 8 * shear0) / (6 * (bulk0 + 2 * shear0))
    return isotropic_stiffness(float(1 / (f @ (1 / (bulk + k))) - k), float(1 / (f @ (1 / (shear + g))) - g))
