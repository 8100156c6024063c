"""Isotropic hardening: the yield stress as a function of the accumulated plastic strain p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lspipe.cell.numbers import DOUBLE, check_number, shorten
from lspipe.cell.registry import build


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

    kind: ClassVar[str] = "voce"
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

    kind: ClassVar[str] = "swift"
    strain: float
    exponent: float

    def __post_init__(self) -> None:
        check_positive("strain", self.strain)
        if not 0 < check_number("exponent", self.exponent) <= 1:
            raise ValueError(f"exponent = {self.exponent}: must lie between 0, excluded, and 1")


def read_hardening(values: Mapping[str, Any]) -> Voce | Swift:
    """Return the hardening law that ``kind``, 'voce' or 'swift', and its parameters describe.

    Raises:
        ValueError: The kind or a parameter is unknown, is missing or has a wrong value.
    """
    parameters = dict(values)
    kinds: dict[Any, Any] = {law.kind: law for law in (Voce, Swift)}
    kind = parameters.pop("kind", None)
    try:
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"kind = {shorten(kind)}: must be one of {', '.join(kinds)}")
        return build(kinds[kind], parameters)
    except ValueError as error:
        raise ValueError(f"hardening: {error}") from None


def check_positive(name: str, value: float, or_zero: bool = False) -> float:
    """Return a number as a float; raise ValueError unless it is positive, or 0 where this is allowed."""
    allowed = "a positive number" + " or 0" * or_zero
    number = check_number(name, value, DOUBLE, allowed)
    if number < 0 or not (number or or_zero):
        raise ValueError(f"{name} = {number}: must be {allowed}")
    return number
