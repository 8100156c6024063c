"""Objects that files describe by a ``kind`` and by parameters, and the kinds of materials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

KINDS: dict[str, Any] = {}  # classes of materials by their names in files


def register(material: Any, kind: str) -> None:
    """Name a class of materials in files by ``kind``, or by the name of the class in lower case.

    Raises:
        TypeError: Another class has this kind.
    """
    material.kind = kind or material.__name__.lower()
    other = KINDS.setdefault(material.kind, material)
    if (other.__module__, other.__qualname__) != (material.__module__, material.__qualname__):
        raise TypeError(f"{material}: {other} has the kind {material.kind!r} already; give another")
    KINDS[material.kind] = material  # a class that is defined anew, in a notebook, replaces the earlier one


def describe(thing: Any) -> dict[str, Any]:
    """Return the kind and the parameters of a dataclass as values for JSON."""
    values = {field.name: getattr(thing, field.name) for field in fields(thing)}
    return {"kind": thing.kind} | {
        name: describe(value) if hasattr(value, "kind") else np.asarray(value).tolist()
        for name, value in values.items()
    }


def build(cls: Any, parameters: Mapping[str, Any], also: Iterable[str] = ()) -> Any:
    """Return an object of the dataclass ``cls``.

    Args:
        cls: A class with a kind.
        parameters: Values of its fields.
        also: Other keys that the message names as allowed.

    Raises:
        ValueError: A parameter is unknown, is missing or has a wrong value.
    """
    allowed = {field.name: field.default is MISSING for field in fields(cls)}
    if unknown := [name for name in parameters if name not in allowed]:
        raise ValueError(f"{unknown[0]} is not a key of {cls.kind}; allowed here: {', '.join([*allowed, *also])}")
    if missing := [name for name, is_required in allowed.items() if is_required and name not in parameters]:
        raise ValueError(f"{missing[0]} is missing; {cls.kind} needs {', '.join(n for n in allowed if allowed[n])}")
    return cls(**parameters)
