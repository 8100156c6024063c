"""The law of ``Plastic``, compiled by Numba: a step of the implicit Euler method at one point.

The trial stress, which is that without a change of the plastic strain, returns radially to the yield surface (Simo &
Hughes 1998). docs/theory.md derives the formulas.
"""

import numpy as np

from lspipe.cell.compiled import jit

TOLERANCE = 1e-14  # of the yield condition, relative to the trial stress


@jit
def harden(p, initial, modulus, saturation, rate, strain, exponent):
    """Return the yield stress at the accumulated plastic strain p, and its derivative."""
    stress, slope = initial + modulus * p, modulus
    if saturation > 0:
        fading = saturation * np.exp(-rate * p)
        stress, slope = stress + saturation - fading, slope + rate * fading
    if exponent > 0:
        rise = initial * (1 + p / strain) ** exponent
        stress, slope = stress + rise - initial, slope + rise * exponent / (strain + p)
    return stress, slope


@jit
def return_radially(strain, state, parameters, stress, new, tangent):
    """Write the stress, the new state and the upper triangle of the tangent; see ``Inelastic``."""
    bulk, shear, kinematic, initial, modulus = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    saturation, rate, scale, exponent = parameters[5], parameters[6], parameters[7], parameters[8]
    trial = new  # Until the end, it holds the deviatoric stress relative to the centre of the elastic domain.
    volumetric, p, square = strain[0] + strain[1] + strain[2], state[6], 0.0
    for c in range(6):
        factor = 2.0 if c < 3 else 1.0  # of the tensor's component over the engineering one
        stress[c] = factor * shear * (strain[c] - state[c] - (volumetric / 3 if c < 3 else 0.0))
        trial[c] = stress[c] - factor / 3 * kinematic * state[c]
        square += 3 / factor * trial[c] ** 2
    size = np.sqrt(square)
    limit, slope = harden(p, initial, modulus, saturation, rate, scale, exponent)
    growth = flow = along = 0.0
    if size > limit:
        # The yield stress is concave in p, so that Newton's method approaches the solution from below.
        for _ in range(50):
            excess = size - (3 * shear + kinematic) * growth - limit
            if excess <= TOLERANCE * size:
                break
            growth += excess / (3 * shear + kinematic + slope)
            limit, slope = harden(p + growth, initial, modulus, saturation, rate, scale, exponent)
        flow = 1.5 * growth / size
        along = 9 * shear**2 / square * (growth / size - 1 / (3 * shear + kinematic + slope))
    stiffness = shear * (1 - 2 * shear * flow)
    for i in range(6):
        for j in range(i, 6):
            tangent[i, j] = along * trial[i] * trial[j] + (bulk - 2 / 3 * stiffness if j < 3 else 0.0)
        tangent[i, i] += (2 if i < 3 else 1) * stiffness
    for c in range(6):
        stress[c] += (bulk * volumetric if c < 3 else 0.0) - 2 * shear * flow * trial[c]
        new[c] = state[c] + (1 if c < 3 else 2) * flow * trial[c]
    new[6] = p + growth
