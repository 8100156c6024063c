"""Von Mises plasticity at small strain with isotropic and linear kinematic hardening, independent of the rate.

The elastic domain is √(3/2)‖s − (2/3) H_k ε_p‖ ≤ σ_y(p), with the deviatoric stress s, the plastic strain ε_p and its
accumulated norm p. The flow is associated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lspipe.cell.inelastic import Inelastic
from lspipe.cell.laws.hardening import Swift, Voce, check_positive, read_hardening
from lspipe.cell.material import Isotropic
from lspipe.cell.numbers import Array, shorten
from lspipe.cell.physics import ELASTICITY


@dataclass(frozen=True)
class Plastic(Inelastic):
    """Elastoplastic material of von Mises type for ``solve_path``.

    Its state is the plastic strain (6,) with engineering shear and the accumulated plastic strain.

    Args:
        young: Young's modulus, positive, in the unit of stress.
        poisson: Poisson's ratio, between −1 and 0.5.
        yield_stress: Stress at which plastic flow begins in tension, positive.
        hardening: Isotropic hardening: a modulus, not negative, for linear hardening; or ``Voce`` or ``Swift``, also
            as a mapping such as ``{"kind": "swift", "strain": 0.01, "exponent": 0.2}``.
        kinematic: Modulus of the linear kinematic hardening, not negative. It moves the elastic domain by (2/3)
            kinematic · plastic strain.

    Raises:
        ValueError: A value is outside of these limits, or there is no hardening.
    """

    young: float
    poisson: float
    yield_stress: float
    hardening: Any = 0.0
    kinematic: float = 0.0

    states = 7

    def __post_init__(self) -> None:
        check_positive("young", self.young)
        check_positive("yield_stress", self.yield_stress)
        kinematic = check_positive("kinematic", self.kinematic, or_zero=True)
        Isotropic(self.young, self.poisson)
        if isinstance(self.hardening, Mapping):
            object.__setattr__(self, "hardening", read_hardening(self.hardening))
        if isinstance(self.hardening, Voce | Swift):
            return
        if not kinematic + check_positive("hardening", self.hardening, or_zero=True):
            raise ValueError(
                f"hardening = {shorten(self.hardening)}, kinematic = {shorten(self.kinematic)}: must be positive in "
                "one of the two, because perfect plasticity has no unique strain; give a small modulus"
            )

    @property
    def elastic(self) -> Isotropic:
        """The elastic material before yielding."""
        return Isotropic(self.young, self.poisson)

    @property
    def law(self) -> Any:
        """The compiled law."""
        from lspipe.cell.laws.radial_return import return_radially  # Numba takes long to import.

        return return_radially

    @property
    def parameters(self) -> tuple[float, ...]:
        """Bulk and shear modulus, kinematic modulus, and the parameters of the isotropic hardening."""
        bulk, shear = self.young / (3 - 6 * self.poisson), self.young / (2 + 2 * self.poisson)
        match self.hardening:
            case Voce(saturation, rate, modulus):
                isotropic = modulus, saturation, rate, 1.0, 0.0
            case Swift(strain, exponent):
                isotropic = 0.0, 0.0, 0.0, strain, exponent
            case modulus:
                isotropic = modulus, 0.0, 0.0, 1.0, 0.0
        return tuple(map(float, (bulk, shear, self.kinematic, self.yield_stress, *isotropic)))

    @property
    def least_hardening(self) -> float:
        """Lower bound on the hardening modulus at any plastic strain. It is 0 where the hardening dies out."""
        match self.hardening:
            case Swift(strain, exponent):
                return self.kinematic + (self.yield_stress / strain if exponent == 1 else 0.0)
            case Voce(modulus=modulus):
                return self.kinematic + modulus
            case modulus:
                return self.kinematic + modulus

    @property
    def least_stiffness(self) -> Array:
        """Stiffness (6, 6) that no tangent falls below: that of plastic flow in every direction."""
        bulk, shear = self.parameters[:2]
        plastic = shear * self.least_hardening / (3 * shear + self.least_hardening)
        return ELASTICITY.isotropic_stiffness(np.array([bulk, plastic]))
