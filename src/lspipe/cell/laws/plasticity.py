"""Von Mises plasticity at small strain with isotropic and linear kinematic hardening, independent of the rate.

The elastic domain is √(3/2)‖s − (2/3) H_k ε_p‖ ≤ σ_y(p), with the deviatoric stress s, the plastic strain ε_p and its
accumulated norm p. The flow is associated. A step is integrated by the implicit Euler method: the trial stress, which
is that without a change of ε_p, returns radially to the yield surface (Simo & Hughes 1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lspipe.cell.compiled import jit
from lspipe.cell.inelastic import Inelastic
from lspipe.cell.laws.hardening import Swift, Voce, check_positive, harden
from lspipe.cell.material import Isotropic
from lspipe.cell.numbers import Array, shorten
from lspipe.cell.physics import ELASTICITY

TOLERANCE = 1e-14  # of the yield condition, relative to the trial stress


@dataclass(frozen=True)
class Plastic(Inelastic):
    """Elastoplastic material of von Mises type for ``solve_path``.

    Its state is the plastic strain (6,) with engineering shear and the accumulated plastic strain.

    Args:
        young: Young's modulus, positive, in the unit of stress.
        poisson: Poisson's ratio, between −1 and 0.5.
        yield_stress: Stress at which plastic flow begins in tension, positive.
        hardening: Isotropic hardening: a modulus, not negative, for linear hardening, or ``Voce`` or ``Swift``.
        kinematic: Modulus of the linear kinematic hardening, not negative. It moves the elastic domain by (2/3)
            kinematic · plastic strain.

    Raises:
        ValueError: A value is outside of these limits, or there is no hardening.
    """

    young: float
    poisson: float
    yield_stress: float
    hardening: float | Voce | Swift = 0.0
    kinematic: float = 0.0

    states = 7

    def __post_init__(self) -> None:
        check_positive("young", self.young)
        check_positive("yield_stress", self.yield_stress)
        kinematic = check_positive("kinematic", self.kinematic, or_zero=True)
        Isotropic(self.young, self.poisson)
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


@jit
def return_radially(strain, state, parameters, stress, new, tangent):
    """Write the stress, the new state and the upper triangle of the tangent; see ``Inelastic``."""
    bulk, shear, kinematic, initial, modulus = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    saturation, rate, scale, exponent = parameters[5], parameters[6], parameters[7], parameters[8]
    trial = tangent[5]  # of the deviatoric stress relative to the centre of the elastic domain
    volumetric, p, square = strain[0] + strain[1] + strain[2], state[6], 0.0
    for c in range(6):
        factor = 2.0 if c < 3 else 1.0  # of the tensor's component over the engineering one
        new[c] = state[c]
        stress[c] = factor * shear * (strain[c] - state[c] - (volumetric / 3 if c < 3 else 0.0))
        trial[c] = stress[c] - factor / 3 * kinematic * state[c]
        square += 3 / factor * trial[c] ** 2
    size = np.sqrt(square)
    limit, slope = harden(p, initial, modulus, saturation, rate, scale, exponent)
    growth = remaining = along = 0.0
    if size > limit:
        # The yield stress is concave in p, so that Newton's method approaches the solution from below.
        for _ in range(50):
            excess = size - (3 * shear + kinematic) * growth - limit
            if excess <= TOLERANCE * size:
                break
            growth += excess / (3 * shear + kinematic + slope)
            limit, slope = harden(p + growth, initial, modulus, saturation, rate, scale, exponent)
        for c in range(6):
            flow = 1.5 * growth / size * trial[c]
            new[c] += flow if c < 3 else 2 * flow
            stress[c] -= 2 * shear * flow
        remaining = 3 * shear * growth / size
        along = 9 * shear**2 / square * (growth / size - 1 / (3 * shear + kinematic + slope))
    new[6] = p + growth
    for c in range(3):
        stress[c] += bulk * volumetric
    stiffness = shear * (1 - remaining)
    for i in range(6):
        for j in range(i, 6):
            tangent[i, j] = along * trial[i] * trial[j] + (bulk - 2 / 3 * stiffness if j < 3 else 0.0)
        tangent[i, i] += (2 if i < 3 else 1) * stiffness
