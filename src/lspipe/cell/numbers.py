"""Checks of the numbers and arrays of a user, their conversion to double precision, and their text in messages."""

from __future__ import annotations

import operator
import reprlib
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# Products of several numbers of these sizes neither overflow nor underflow in double and single precision.
DOUBLE, SINGLE = (1e-100, 1e100), (1e-15, 1e15)
SMALLEST = 1e-6  # Smallest strain component, relative to the largest, that single precision can divide others by.


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 4, 10, 10, 10
        self.maxstring = self.maxlong = self.maxother = 100

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Keep the order of the entries, which reprlib sorts."""
        if level <= 0:
            return "{...}"
        items = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(x.items(), self.maxdict)]
        return "{" + ", ".join(items + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_date(self, x: object, level: int) -> str:
        return str(x)  # as in YAML

    repr_datetime = repr_date

    def repr_float64(self, x: Any, level: int) -> str:
        return repr(x.item())

    def repr_ndarray(self, x: Any, level: int) -> str:
        return self.repr1(x.tolist(), level) if x.size < 40 else repr(x)[: self.maxother]


def shorten(value: object) -> str:
    """Return the text of a value for one line of a message, cut where it is long.

    The whole text is never built, because an alias in a YAML file may stand for an exponentially large value.
    """
    text = " ".join(_Brief().repr(value).split())
    return text if len(text) <= 400 else text[:400] + " ..."


def check_unmasked(name: str, values: object) -> None:
    """Raise ValueError for an array, or a list of arrays, with masked entries, because NumPy would drop the mask."""
    arrays = [v for v in (values if isinstance(values, list | tuple) else [values]) if np.ma.isMaskedArray(v)]
    if count := sum(map(np.ma.count_masked, arrays)):
        raise ValueError(f"{name}: {count} of {sum(v.size for v in arrays)} entries are masked; fill them first")


def check_numbers(
    name: str, values: ArrayLike, size: tuple[float, float] | None = None, allowed: str = "real and finite"
) -> Array:
    """Convert ``values`` to a new array in double precision.

    Args:
        name: Name of the values in error messages.
        values: Numbers of any shape. Booleans are refused.
        size: Limits of the largest magnitude, unless all values are 0.
        allowed: Description of allowed values in error messages.

    Returns:
        An array (…) float64.

    Raises:
        ValueError: A value is not real and finite, is masked, or exceeds the limits.
    """
    check_unmasked(name, values)
    try:
        array = np.asarray(values)
        is_real = array.dtype.kind in "iuf" or (
            array.dtype == object and all(type(v) in (int, float) for v in array.flat)
        )
        if not is_real or not np.isfinite(array := array.astype(np.float64)).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} = {shorten(values)}: must be {allowed}") from None
    largest = np.abs(array).max(initial=0)
    if size and largest and not size[0] <= largest <= size[1]:
        raise ValueError(f"{name} = {shorten(values)}: must lie between {size[0]:g} and {size[1]:g} in size, or be 0")
    return array


def check_number(
    name: str, value: Any, size: tuple[float, float] | None = None, allowed: str = "a finite number"
) -> float:
    """Convert one number, which may be a NumPy scalar or an array without axes; see ``check_numbers``."""
    array = check_numbers(name, value, size, allowed)
    if array.ndim:
        raise ValueError(f"{name} = {shorten(value)}: must be {allowed}")
    return float(array)


def check_integer(name: str, value: Any, least: int) -> int:
    """Convert one integer, which may be a NumPy scalar or an array without axes.

    Raises:
        ValueError: The value is not an integer, is a boolean, or is less than ``least``.
    """
    try:
        check_unmasked(name, value)
        if np.asarray(value).dtype.kind in "b":
            raise TypeError
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise ValueError(f"{name} = {shorten(value)}: must be an integer, at least {least}")
    return whole


def find_scale(*values: ArrayLike) -> float:
    """Return a power of two of the size of the largest value, or 1 if all are 0. Division by it is exact."""
    largest = max(float(np.abs(v).max(initial=0)) for v in values)
    return float(np.ldexp(1.0, np.frexp(largest)[1] - 1)) if largest else 1.0
