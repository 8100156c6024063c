"""The grains of polycrystals: the material and the orientation of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.numbers import Array, check_numbers, shorten


@dataclass(frozen=True, eq=False)
class Grains:
    """The crystals of a polycrystal.

    Args:
        material: Number of the material of each grain, (G,).
        orientation: Unit quaternion w, x, y, z of each grain, (G, 4). It turns the axes of the crystal into those of
            the cell.

    Raises:
        ValueError: A quaternion does not have length 1, or the numbers of quaternions and of grains differ.
    """

    material: NDArray[np.intp]
    orientation: Array

    def __post_init__(self) -> None:
        material = np.array(self.material, np.intp)
        orientation = check_quaternions("orientation", self.orientation)
        if material.ndim != 1 or len(orientation) != len(material):
            raise ValueError(
                f"orientation: has {len(orientation)} quaternions for {material.size} grains; must have one for each"
            )
        object.__setattr__(self, "material", material)
        object.__setattr__(self, "orientation", orientation)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grains):
            return NotImplemented
        pairs = (self.material, other.material), (self.orientation, other.orientation)
        return all(np.array_equal(a, b) for a, b in pairs)

    def __hash__(self) -> int:
        return hash((self.material.tobytes(), self.orientation.tobytes()))


def check_quaternions(name: str, quaternions: ArrayLike) -> Array:
    """Return quaternions (…, 4) of length 1; raise ValueError for others."""
    q = check_numbers(name, quaternions)
    if q.ndim < 1 or q.shape[-1] != 4:
        raise ValueError(f"{name} of shape {q.shape}: must be quaternions w, x, y, z, (…, 4)")
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if (wrong := np.abs(length[..., 0] - 1) > 1e-4).any():
        raise ValueError(f"{name} = {shorten(q[wrong][0])}: must be a quaternion w, x, y, z of length 1")
    return q / length


def rotation_matrices(quaternions: Array) -> Array:
    """Return the matrices (G, 3, 3) of unit quaternions w, x, y, z, (G, 4)."""
    from scipy.spatial.transform import Rotation  # takes long to import, and only polycrystals need it

    return Rotation.from_quat(quaternions, scalar_first=True).as_matrix()
