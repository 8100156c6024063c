"""The statement of a cell problem, without the microstructure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.arguments import check_load, check_materials, check_spacing
from lspipe.cell.element import SCHEMES
from lspipe.cell.material import Material, read_material, stiffnesses, write_material
from lspipe.cell.numbers import Array, shorten
from lspipe.cell.physics import Physics


@dataclass(frozen=True)
class Problem:
    """The materials, the macroscopic load, the element and the voxels of a cell problem.

    Args:
        materials: One material for each phase, all of one physics.
        strain: Macroscopic strain xx, yy, zz, yz, xz, xy with tensor shear; the macroscopic gradient x, y, z of
            conductors. A component is None where its stress is prescribed.
        stress: Macroscopic stress in the same order, None where the strain is prescribed. Without it, all strains are.
        scheme: 'bbar', 'full' or 'reduced'.
        spacing: Edge lengths of a voxel along x, y, z.

    Raises:
        ValueError: A value is not allowed, or values do not fit together.
    """

    materials: tuple[Material, ...]
    strain: tuple[float | None, ...]
    stress: tuple[float | None, ...] | None = None
    scheme: str = "bbar"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        values: dict[str, Any] = {"materials": check_materials(self.materials)}
        check_load(values["materials"][0].physics, self.strain, self.stress)
        if not isinstance(self.scheme, str) or self.scheme not in SCHEMES:
            raise ValueError(f"scheme = {shorten(self.scheme)}: must be one of {', '.join(SCHEMES)}")
        values["spacing"] = check_spacing(self.spacing)
        for name in ("strain", "stress"):
            load = getattr(self, name)
            values[name] = load if load is None else tuple(None if x is None else float(x) for x in load)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def physics(self) -> Physics:
        """Elasticity or conduction."""
        return self.materials[0].physics

    @property
    def stiffnesses(self) -> Array:
        """Stiffness (phases, strains, strains) of each phase, acting on engineering strain."""
        return stiffnesses(self.materials)

    @property
    def load(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Prescribed strain with engineering shear, prescribed stress, mask of the free strains; each (strains,)."""
        return check_load(self.physics, self.strain, self.stress)

    @property
    def without_load(self) -> Problem:
        """The same materials, element and spacing under no load: what the operators depend on."""
        return Problem(self.materials, (0.0,) * len(self.strain), None, self.scheme, self.spacing)

    def compute_stress(self, phase: Any, strain: Any) -> Any:
        """Return the stress C(x):ε for a strain field.

        Args:
            phase: (…, nx, ny, nz), integers that index the materials.
            strain: (…, strains, nx, ny, nz) with tensor shear, a NumPy array or a PyTorch tensor.

        Returns:
            An array or tensor of the shape of ``strain``.
        """
        C, tensor_shear = _like(strain, self.stiffnesses), _like(strain, self.physics.tensor_factors)
        engineering = (strain / tensor_shear.reshape(-1, 1, 1, 1)).reshape(*strain.shape[:-3], -1)
        phase = phase.reshape(*phase.shape[:-3], 1, -1)
        return sum((phase == p) * (C[p] @ engineering) for p in range(len(C))).reshape(strain.shape)

    def compute_energy(self, phase: Any, strain: Any) -> Any:
        """Return the sum of ε:C:ε over the voxels, (…); the arguments are those of ``compute_stress``."""
        return self.compute_work(self.compute_stress(phase, strain), strain)

    def compute_work(self, stress: Any, strain: Any) -> Any:
        """Return the sum of σ:ε over the voxels, (…), for fields (…, strains, nx, ny, nz) with tensor shear."""
        # A tensor shear counts twice in ε:σ.
        weighted = strain / _like(strain, self.physics.tensor_factors).reshape(-1, 1, 1, 1)
        return (stress * weighted).sum(axis=(-4, -3, -2, -1))

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON, from which ``from_json`` makes the problem again. Defaults are left out."""
        values: dict[str, Any] = {
            "materials": [write_material(m) for m in self.materials],
            "strain": list(self.strain),
            "scheme": self.scheme,
        }
        if self.stress is not None:
            values["stress"] = list(self.stress)
        if self.spacing != (1.0, 1.0, 1.0):
            values["spacing"] = list(self.spacing)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the problem that ``to_json`` wrote.

        Raises:
            ValueError: A key is missing, unknown or has a wrong value.
        """
        try:
            return cls(**{**values, "materials": tuple(map(read_material, values["materials"]))})
        except (TypeError, KeyError) as error:
            raise ValueError(f"problem = {dict(values)!r:.300}: {error}") from None


def volume_fractions(phase: NDArray[np.integer], count: int) -> Array:
    """Return the volume fractions (N, count) of the phases of N cells (N, nx, ny, nz)."""
    return np.stack([np.bincount(p.ravel(), minlength=count) / p.size for p in phase])


def _like(field: Any, values: Sequence[float] | Array) -> Any:
    """Return values as a tensor of the type of a field, or as an array."""
    return field.new_tensor(values) if hasattr(field, "new_tensor") else np.asarray(values)
