"""Materials in files, configurations and commands: a kind, its parameters and an orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lspipe.cell import crystal as crystal  # defines kinds
from lspipe.cell.grains import check_quaternions
from lspipe.cell.material import KINDS, Material
from lspipe.cell.numbers import check_numbers, shorten

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

ORIENTATION = ("euler", "quaternion")
UNNAMED = {"young": "isotropic", "stiffness": "anisotropic", "conductivity": "conductor"}  # kinds that need no name


def write_material(material: Material) -> dict[str, Any]:
    """Return the kind and the parameters of a material as values for JSON. An expansion of 0 is left out."""
    parameters: Any = {field.name: getattr(material, field.name) for field in fields(material)}  # type: ignore[arg-type]
    if parameters.get("expansion") == 0:
        del parameters["expansion"]
    return {"kind": material.kind} | {name: np.asarray(value).tolist() for name, value in parameters.items()}


def read_material(values: Mapping[str, Any]) -> Material:
    """Return the material that ``write_material`` wrote, or that a user describes.

    Args:
        values: ``kind`` with the parameters of this kind. The kind may be left out where ``young``, ``stiffness`` or
            ``conductivity`` tells it. ``euler`` (Bunge's angles φ₁, Φ, φ₂ in degrees) or ``quaternion`` (w, x, y, z)
            turns the material from the axes of the crystal to those of the cell.

    Raises:
        ValueError: The kind is unknown or missing, or the parameters are not those of the kind.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", next((k for name, k in UNNAMED.items() if name in parameters), None))
    if kind not in KINDS:
        raise ValueError(
            f"kind = {shorten(kind)}: must be one of {', '.join(KINDS)}; import the module that defines a kind of your "
            "own first"
        )
    orientation = {key: parameters.pop(key) for key in ORIENTATION if key in parameters}
    allowed = {field.name: field.default is MISSING for field in fields(KINDS[kind])}  # type: ignore[arg-type]
    if unknown := [name for name in parameters if name not in allowed]:
        raise ValueError(f"{unknown[0]} is no key of {kind}; allowed here: {', '.join([*allowed, *ORIENTATION])}")
    if missing := [name for name, is_required in allowed.items() if is_required and name not in parameters]:
        raise ValueError(f"{missing[0]} is missing; {kind} needs {', '.join(n for n in allowed if allowed[n])}")
    material = KINDS[kind](**parameters)
    return material.rotated(read_orientation(**orientation)) if orientation else material


def read_orientation(euler: Any = None, quaternion: Any = None) -> Rotation:
    """Return the rotation from the axes of a crystal to those of the cell.

    Args:
        euler: Bunge's angles φ₁, Φ, φ₂ in degrees.
        quaternion: Unit quaternion w, x, y, z, in place of the angles.
    """
    from scipy.spatial.transform import Rotation  # takes long to import, and few materials need it

    if (euler is None) == (quaternion is None):
        raise ValueError("euler and quaternion: must give one of the two")
    if quaternion is not None:
        return Rotation.from_quat(check_quaternions("quaternion", quaternion), scalar_first=True)
    angles = check_numbers("euler", euler)
    if angles.shape != (3,):
        raise ValueError(f"euler = {shorten(euler)}: must be three angles in degrees")
    return Rotation.from_euler("ZXZ", angles, degrees=True)


def without_old_kind(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a material as the version wrote them that did not write these kinds."""
    return {k: v for k, v in values.items() if k != "kind" or v not in UNNAMED.values()}
