"""Define a law of your own for `lspipe.solve_path`: a nonlinear elastic matrix with stiff inclusions.

The shear stress grows with a power of the equivalent strain ε_eq = √(2/3 e:e) of the deviator e:
s = 2 μ(ε_eq) e with μ(ε_eq) = μ₀ (1 + (ε_eq/ε₀)²)^((n − 1)/2) and 0 < n < 1. The response to pressure is linear. Run it
with `python examples/power_law.py`.
"""

from dataclasses import dataclass

import numba
import numpy as np

import lspipe


@numba.njit
def power_law(strain, state, parameters, stress, new_state, tangent):
    bulk, initial, reference, exponent = parameters
    mean = (strain[0] + strain[1] + strain[2]) / 3
    deviator = strain - mean * np.array([1.0, 1, 1, 0, 0, 0])
    deviator[3:] /= 2  # Strains come with engineering shear.
    square = 2 / 3 * (np.sum(deviator[:3] ** 2) + 2 * np.sum(deviator[3:] ** 2)) / reference**2
    shear = initial * (1 + square) ** ((exponent - 1) / 2)
    slope = 4 / 3 * shear * (exponent - 1) / (1 + square) / reference**2
    for i in range(6):
        stress[i] = 2 * shear * deviator[i] + (3 * bulk * mean if i < 3 else 0.0)
        for j in range(6):
            tangent[i, j] = slope * deviator[i] * deviator[j] + (bulk - 2 / 3 * shear if i < 3 and j < 3 else 0.0)
        tangent[i, i] += 2 * shear if i < 3 else shear


@dataclass(frozen=True)
class PowerLaw(lspipe.Inelastic):
    young: float
    poisson: float
    strain: float
    exponent: float

    law = staticmethod(power_law)
    states = 0

    @property
    def elastic(self):
        return lspipe.Isotropic(self.young, self.poisson)

    @property
    def parameters(self):
        return self.young / (3 - 6 * self.poisson), self.young / (2 + 2 * self.poisson), self.strain, self.exponent


if __name__ == "__main__":
    phase = lspipe.generate(count=1, n=15, seed=0).phase
    materials = [lspipe.Isotropic(70.0, 0.2), PowerLaw(3.0, 0.4, 0.005, 0.4)]
    steps = [(0, 0, 0, 0, 0, shear) for shear in np.linspace(0.002, 0.02, 5)]
    path = lspipe.solve_path(phase, materials, steps)
    print("strain xy", path.mean_strain[0, :, 5], "\nstress xy", path.mean_stress[0, :, 5].round(4))
