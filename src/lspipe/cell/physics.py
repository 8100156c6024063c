"""What tells one Lippmann–Schwinger problem from another: its fields, and its isotropic media.

All of them are −div(C:ε) = 0 with ε = E + Σ_i L_i ∂_i u, for a periodic u. In elasticity ε is the strain and C:ε the
stress; in conduction ε is the gradient of the temperature, u its periodic part, and C:ε the heat flux, which is taken
to be positive along the gradient. The words strain, stress and displacement stand for all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Physics:
    """``components``: names of the strains. ``L``: (3, strains, d), strain = Σ_i L[i] ∂_i u for d unknowns, in
    components such that stress · strain is work. ``shear``: (strains,), which makes of these the strains that are
    given and returned. ``isotropic``: (moduli, strains, strains), stiffnesses of unit modulus, orthogonal as tensors,
    which make up the isotropic ones; such a sum is positive definite where all moduli are positive, and only there,
    and couples unknowns as the components of a vector or not at all. ``sparse``: (moduli, moduli), combinations of them
    to calculate with: of few entries, and of one sign. ``volumetric``: (strains,), what bbar averages.
    ``symbol`` of the strain in figures; ``fields``: names of strain and stress in reports and exports; ``stated``:
    attributes of a store.
    """

    name: str
    components: tuple[str, ...]
    L: Array
    shear: Array
    isotropic: Array
    sparse: Array
    volumetric: Array
    symbol: str
    fields: tuple[str, str]
    stated: Mapping[str, Any]

    @property
    def d(self) -> int:
        return self.L.shape[2]

    def moduli(self, C: Array) -> Array:
        """Those (moduli, phases) of the isotropic stiffness nearest to each C (phases, strains, strains)."""
        dual = self.isotropic / np.outer(self.shear, self.shear)
        return np.einsum("mij,pij->mp", dual / np.einsum("mij,mij->m", dual, self.isotropic)[:, None, None], C)

    def stiffness(self, moduli: Array) -> Array:
        """The isotropic stiffness (…, strains, strains) of moduli (moduli, …)."""
        return np.einsum("m...,mij->...ij", moduli, self.isotropic)


def _symmetric_gradient() -> Array:
    """Strain xx, yy, zz, yz, xz, xy with engineering shear."""
    L = np.zeros((3, 6, 3))
    for row, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        L[i, row, j] = L[j, row, i] = 1.0
    return L


_trace = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
_bulk = np.outer(_trace, _trace)

ELASTICITY = Physics(
    name="elasticity",
    components=("xx", "yy", "zz", "yz", "xz", "xy"),
    L=_symmetric_gradient(),
    shear=np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]),  # tensor strain over engineering strain
    # of unit bulk modulus, and of unit shear modulus
    isotropic=np.stack([_bulk, np.diag([2.0, 2.0, 2.0, 1.0, 1.0, 1.0]) - 2 / 3 * _bulk]),
    sparse=np.array([[1.0, 0.0], [2 / 3, 1.0]]),  # of unit λ, and of unit μ
    volumetric=_trace,
    symbol="ε",
    fields=("strain", "stress"),
    stated={"shear": "tensor", "units": {"young": "GPa", "strain": "1"}},
)

CONDUCTION = Physics(
    name="conduction",
    components=("x", "y", "z"),
    L=np.eye(3)[:, :, None],
    shear=np.ones(3),
    isotropic=np.eye(3)[None],
    sparse=np.eye(1),
    volumetric=np.zeros(3),
    symbol="g",
    fields=("gradient", "flux"),
    stated={"units": {"conductivity": "W/(m K)", "strain": "K/m"}},
)
