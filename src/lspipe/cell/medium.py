"""The stiffnesses of several phases, the reference medium and the constant α of the error certificate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lspipe.cell.material import Material
from lspipe.cell.numbers import Array
from lspipe.cell.physics import Physics

TRIANGLE = 21  # Entries in the upper triangle of a stiffness (6, 6).


def stiffnesses(materials: Sequence[Material]) -> Array:
    """Return the stiffness of each material, (phases, strains, strains)."""
    return np.stack([m.stiffness for m in materials])


def decompose(C: Array, physics: Physics) -> tuple[Array, Array]:
    """Return coefficients (phases, b) and matrices (b, strains, strains) with C_p = Σ_b coefficients[p, b] matrices[b].

    There is one matrix where all phases are multiples of an isotropic stiffness, as they are with the same Poisson's
    ratio. There is one for each modulus where every phase is isotropic, else one for each entry of a symmetric matrix.
    """
    if is_isotropic(C, physics):
        moduli, basis = physics.moduli(C), physics.sparse_moduli
        largest, unit = np.unravel_index(np.abs(moduli).argmax(), moduli.shape)
        multiples = moduli[largest] / moduli[largest, unit]
        error = np.abs(moduli - np.outer(moduli[:, unit], multiples))
        if (error <= 1e-14 * np.abs(moduli).max(axis=0)).all():
            return multiples[:, None], physics.isotropic_stiffness(moduli[:, [unit]])
        return moduli.T @ np.linalg.inv(basis), physics.isotropic_stiffness(basis.T)
    i, j = np.triu_indices(C.shape[-1])
    matrices = np.zeros((len(i), *C.shape[1:]))
    matrices[range(len(i)), i, j] = matrices[range(len(i)), j, i] = 1.0
    return C[:, i, j], matrices


def is_isotropic(C: Array, physics: Physics) -> bool:
    """Return whether every phase of C (phases, strains, strains) is isotropic."""
    nearest = physics.isotropic_stiffness(physics.moduli(C))
    return np.allclose(C, nearest, rtol=0, atol=1e-12 * np.abs(C).max(axis=(1, 2), keepdims=True))


def reference(C: Array, physics: Physics) -> Array:
    """Return the stiffness C⁰ (strains, strains) of the reference medium for phases C (phases, strains, strains).

    Each of its moduli lies halfway between the extremes of the phases (Moulinec & Suquet 1998). It is rounded to 13
    digits, so that crystals have the same medium in all orientations.

    Raises:
        ValueError: All phases are voids.
    """
    if not C.any():
        raise ValueError("materials: all are voids; at least one must carry stress")
    moduli = physics.moduli(C)
    mantissa, exponent = np.frexp((moduli.min(axis=1) + moduli.max(axis=1)) / 2)
    return physics.isotropic_stiffness(np.ldexp(mantissa.round(13), exponent))


def coercivity(C: Array, C0: Array) -> Array:
    """Return α (phases,), the smallest eigenvalue of each C (phases, strains, strains) relative to C⁰: C ≥ α C⁰."""
    L = np.linalg.inv(np.linalg.cholesky(C0))
    alpha: Any = np.linalg.eigvalsh(L @ C @ L.T)[:, 0]
    return alpha
