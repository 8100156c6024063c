"""Materials in files, configurations and commands: a kind, its parameters and an orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lspipe.cell import crystal as crystal  # This and the laws define kinds.
from lspipe.cell.grains import check_quaternions
from lspipe.cell.inelastic import Inelastic
from lspipe.cell.laws import plasticity as plasticity
from lspipe.cell.material import Material
from lspipe.cell.numbers import check_numbers, shorten
from lspipe.cell.registry import KINDS, build, describe

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

ORIENTATION = ("euler", "quaternion")
UNNAMED = {"young": "isotropic", "stiffness": "anisotropic", "conductivity": "conductor"}  # kinds that need no name


def write_material(material: Material | Inelastic) -> dict[str, Any]:
    """Return the kind and the parameters of a material as values for JSON. An expansion of 0 is left out."""
    values = describe(material)
    return {name: value for name, value in values.items() if name != "expansion" or value != 0}


def read_material(values: Mapping[str, Any]) -> Any:
    """Return the ``Material`` or ``Inelastic`` that ``write_material`` wrote, or that a user describes.

    Args:
        values: ``kind`` with the parameters of this kind. The kind may be left out where ``young``, ``stiffness`` or
            ``conductivity`` tells it. ``euler`` (Bunge's angles φ₁, Φ, φ₂ in degrees) or ``quaternion`` (w, x, y, z)
            turns a linear material from the axes of the crystal to those of the cell.

    Raises:
        ValueError: The kind is unknown or missing, or the parameters are not those of the kind.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", next((k for name, k in UNNAMED.items() if name in parameters), None))
    if kind is None:
        telling, given = (", ".join(map(str, names)) for names in (UNNAMED, parameters))
        raise ValueError(f"kind is missing: must be given where no key is one of {telling}; the keys are {given}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"kind = {shorten(kind)}: must be one of {', '.join(KINDS)}; import the module that defines a kind of your "
            "own first"
        )
    turns = ORIENTATION if issubclass(KINDS[kind], Material) else ()
    orientation = {key: parameters.pop(key) for key in turns if key in parameters}
    material = build(KINDS[kind], parameters, turns)
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
    """Return the values of a material in the form of the version that did not write the kinds of UNNAMED."""
    return {k: v for k, v in values.items() if k != "kind" or v not in UNNAMED.values()}
