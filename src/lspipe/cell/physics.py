"""The differences between elasticity and conduction: their fields and their isotropic media.

Both solve −div(C:ε) = 0 with ε = E + Σ_i L_i ∂_i u for a periodic u. In elasticity ε is the strain and C:ε the stress.
In conduction ε is the gradient of the temperature, u its periodic part, and C:ε the conductivity times the gradient,
which is the heat flux with the opposite sign. The code says strain, stress and displacement for both.
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
    """A problem of the form −div(C:ε) = 0.

    Attributes:
        name: Name in messages.
        components: Names of the components of the strain.
        L: Strain of a displacement gradient, (3, strains, d) for d unknowns at a node: strain = Σ_i L[i] ∂_i u, in
            engineering components, for which stress · strain is work.
        shear: Tensor components over engineering components of the strain, (strains,). Users give and get tensor
            components.
        isotropic: Isotropic stiffnesses of unit modulus, (moduli, strains, strains), orthogonal as tensors. A sum of
            them is positive definite if and only if all its moduli are positive. It couples the unknowns like the
            components of a vector, or not at all.
        sparse: Moduli of stiffnesses with few entries, all of one sign, (moduli, moduli). The engines calculate with
            combinations of these.
        volumetric: The volumetric strain as a sum of components, (strains,); the element 'bbar' averages it.
        symbol: Symbol of the strain in figures.
        fields: Names of strain and stress in reports and exports.
        stated: Attributes of a store of such fields.
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
        """Number of unknowns at a node."""
        return self.L.shape[2]

    def moduli(self, C: Array) -> Array:
        """Return the moduli (moduli, phases) of the isotropic stiffness nearest to C (phases, strains, strains)."""
        dual = self.isotropic / np.outer(self.shear, self.shear)
        return np.einsum("mij,pij->mp", dual / np.einsum("mij,mij->m", dual, self.isotropic)[:, None, None], C)

    def stiffness(self, moduli: Array) -> Array:
        """Return the isotropic stiffness (…, strains, strains) of moduli (moduli, …)."""
        return np.einsum("m...,mij->...ij", moduli, self.isotropic)


def _symmetric_gradient() -> Array:
    """Return L for the strain xx, yy, zz, yz, xz, xy with engineering shear."""
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
