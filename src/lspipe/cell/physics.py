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
        strain_operator: L with strain = Σ_i L[i] ∂_i u, (3, strains, d) for d unknowns at a node. The strain is in
            engineering components, for which stress · strain is work.
        tensor_factors: Tensor components over engineering components of the strain, (strains,). Users give and get
            tensor components.
        isotropic: Isotropic stiffnesses of unit modulus, (moduli, strains, strains), orthogonal as tensors. A sum of
            them is positive definite if and only if all its moduli are positive. It couples the unknowns like the
            components of a vector, or not at all.
        sparse_moduli: Moduli of stiffnesses with few entries, all of one sign, (moduli, moduli). The engines calculate
            with combinations of these.
        volumetric: The volumetric strain as a sum of components, (strains,); the element 'bbar' averages it.
        symbol: Symbol of the strain in figures.
        field_names: Names of strain and stress in reports and exports.
        store_attributes: Attributes of a store of such fields.
    """

    name: str
    components: tuple[str, ...]
    strain_operator: Array
    tensor_factors: Array
    isotropic: Array
    sparse_moduli: Array
    volumetric: Array
    symbol: str
    field_names: tuple[str, str]
    store_attributes: Mapping[str, Any]

    @property
    def d(self) -> int:
        """Number of unknowns at a node."""
        return self.strain_operator.shape[2]

    def rotate(self, rotation: Array) -> Array:
        """Return M (…, strains, strains) for rotation matrices (…, 3, 3): stress turns into M σ, stiffness into M C Mᵀ.

        Tensor strain turns like stress.
        """
        basis = self.strain_operator.transpose(1, 0, 2)  # the tensor, or vector, of each unit stress
        turned = np.einsum("...ij,sjk->...sik", rotation, basis)
        if self.d == 3:
            turned = np.einsum("...sik,...jk->...sij", turned, rotation)
        return np.einsum("rij,...sij->...rs", basis, turned) * self.tensor_factors[:, None]

    def moduli(self, C: Array) -> Array:
        """Return the moduli (moduli, phases) of the isotropic stiffness nearest to C (phases, strains, strains)."""
        dual = self.isotropic / np.outer(self.tensor_factors, self.tensor_factors)
        return np.einsum("mij,pij->mp", dual / np.einsum("mij,mij->m", dual, self.isotropic)[:, None, None], C)

    @property
    def dimensions(self) -> Array:
        """Number of independent strains on which each modulus acts, (moduli,): 1 for bulk and 5 for shear."""
        return np.einsum("mij,ij->m", self.isotropic, np.linalg.inv(self.isotropic.sum(axis=0)))

    def compliance_moduli(self, S: Array) -> Array:
        """Return the moduli (moduli, phases) of the isotropic compliance nearest to S (phases, strains, strains).

        This compliance is also the mean of S over all orientations.
        """
        return self.dimensions[:, None] / np.einsum("mij,pij->mp", self.isotropic, S)

    def isotropic_stiffness(self, moduli: Array) -> Array:
        """Return the isotropic stiffness (…, strains, strains) of moduli (moduli, …)."""
        return np.einsum("m...,mij->...ij", moduli, self.isotropic)


def find_von_mises(stress: NDArray[Any]) -> NDArray[Any]:
    """Return the von Mises stress (…) of a stress (6, …). That of a strain with tensor shear is 2/3 of the result."""
    xx, yy, zz, *shear = stress
    return np.sqrt(((xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2) / 2 + 3 * sum(s**2 for s in shear))


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
    strain_operator=_symmetric_gradient(),
    tensor_factors=np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]),  # tensor strain over engineering strain
    # The first stiffness has unit bulk modulus, and the second one has unit shear modulus.
    isotropic=np.stack([_bulk, np.diag([2.0, 2.0, 2.0, 1.0, 1.0, 1.0]) - 2 / 3 * _bulk]),
    sparse_moduli=np.array([[1.0, 0.0], [2 / 3, 1.0]]),  # rows of unit λ and of unit μ
    volumetric=_trace,
    symbol="ε",
    field_names=("strain", "stress"),
    store_attributes={"shear": "tensor", "units": {"young": "GPa", "strain": "1"}},
)

CONDUCTION = Physics(
    name="conduction",
    components=("x", "y", "z"),
    strain_operator=np.eye(3)[:, :, None],
    tensor_factors=np.ones(3),
    isotropic=np.eye(3)[None],
    sparse_moduli=np.eye(1),
    volumetric=np.zeros(3),
    symbol="g",
    field_names=("gradient", "flux"),
    store_attributes={"units": {"conductivity": "W/(m K)", "strain": "K/m"}},
)
