"""Isotropic hardening: the yield stress as a function of the accumulated plastic strain p."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lspipe.cell.compiled import jit
from lspipe.cell.numbers import DOUBLE, check_number


@dataclass(frozen=True)
class Voce:
    """Hardening that saturates: σ_y(p) = yield stress + saturation·(1 − exp(−rate·p)) + modulus·p.

    Args:
        saturation: Rise of the yield stress, positive, in the unit of stress.
        rate: Positive number without a unit.
        modulus: Hardening modulus that remains, not negative, in the unit of stress.

    Raises:
        ValueError: A value is outside of these limits.
    """

    saturation: float
    rate: float
    modulus: float = 0.0

    def __post_init__(self) -> None:
        check_positive("saturation", self.saturation)
        check_positive("rate", self.rate)
        check_positive("modulus", self.modulus, or_zero=True)


@dataclass(frozen=True)
class Swift:
    """Hardening by a power law: σ_y(p) = yield stress·(1 + p/strain)^exponent.

    Args:
        strain: Positive plastic strain.
        exponent: Number between 0, excluded, and 1.

    Raises:
        ValueError: A value is outside of these limits.
    """

    strain: float
    exponent: float

    def __post_init__(self) -> None:
        check_positive("strain", self.strain)
        if not 0 < check_number("exponent", self.exponent) <= 1:
            raise ValueError(f"exponent = {self.exponent}: must lie between 0, excluded, and 1")


def check_positive(name: str, value: float, or_zero: bool = False) -> float:
    """Return a number as a float; raise ValueError unless it is positive, or 0 where this is allowed."""
    allowed = "a positive number" + " or 0" * or_zero
    number = check_number(name, value, DOUBLE, allowed)
    if number < 0 or not (number or or_zero):
        raise ValueError(f"{name} = {number}: must be {allowed}")
    return number


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
