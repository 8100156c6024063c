"""The statement of a cell problem, without the microstructure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import Components, check_load, check_materials, check_spacing, freeze_load
from lspipe.cell.element import SCHEMES
from lspipe.cell.grains import Grains, rotation_matrices
from lspipe.cell.kinds import read_material, write_material
from lspipe.cell.material import Material
from lspipe.cell.medium import stiffnesses
from lspipe.cell.numbers import DOUBLE, SINGLE, Array, check_number, check_numbers, shorten
from lspipe.cell.physics import ELASTICITY, Physics


@dataclass(frozen=True)
class Problem:
    """The materials, the macroscopic load, the element and the voxels of a cell problem.

    Args:
        materials: One material for each phase, all of one physics.
        strain: Macroscopic strain xx, yy, zz, yz, xz, xy with tensor shear; the macroscopic gradient x, y, z of
            conductors. A component is None where its stress is prescribed.
        stress: Macroscopic stress in the same order, None where the strain is prescribed. Without it, all strains are.
        temperature: Change of temperature, which drives the expansion of elastic materials.
        scheme: 'bbar', 'full' or 'reduced'.
        spacing: Edge lengths of a voxel along x, y, z.
        grains: The grains of a polycrystal; the values of ``phase`` then name grains instead of materials. See
            ``with_grains``.

    Raises:
        ValueError: A value is not allowed, or values do not fit together.
    """

    materials: tuple[Material, ...]
    strain: Components
    stress: Components | None = None
    temperature: float = 0.0
    scheme: str = "bbar"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grains: Grains | None = None

    def __post_init__(self) -> None:
        values: dict[str, Any] = {"materials": check_materials(self.materials)}
        check_load(values["materials"][0].physics, self.strain, self.stress)
        if not isinstance(self.scheme, str) or self.scheme not in SCHEMES:
            raise ValueError(f"scheme = {shorten(self.scheme)}: must be one of {', '.join(SCHEMES)}")
        values["spacing"] = check_spacing(self.spacing)
        values["temperature"] = check_number("temperature", self.temperature, DOUBLE)
        if values["temperature"] and values["materials"][0].physics is not ELASTICITY:
            raise ValueError(f"temperature = {shorten(self.temperature)}: must be 0, for conductors do not expand")
        if self.grains and (wrong := set(self.grains.material.tolist()) - set(range(len(self.materials)))):
            raise ValueError(
                f"material of a grain = {min(wrong)}: must be 0 to {len(self.materials) - 1}, the number of a material"
            )
        values["strain"], values["stress"] = freeze_load(self.strain, self.stress)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def physics(self) -> Physics:
        """Elasticity or conduction."""
        return self.materials[0].physics

    @property
    def count(self) -> int:
        """Number of phases, or of grains, that ``phase`` may name."""
        return len(self.grains.material if self.grains else self.materials)

    @cached_property
    def stiffnesses(self) -> Array:
        """Stiffness (count, strains, strains) of each phase or grain, acting on engineering strain."""
        C = stiffnesses(self.materials)
        if self.grains:
            M = self._rotations
            C = M @ C[self.grains.material] @ M.mT
        C.flags.writeable = False
        return C

    @cached_property
    def eigenstresses(self) -> Array:
        """Stress C:α ΔT (count, strains) that the free expansion of each phase or grain takes away."""
        if not self.temperature:
            return np.zeros((self.count, len(self.strain)))
        expansion = np.stack([m.expansion_strain for m in self.materials]) * self.temperature
        stress = np.einsum("pij,pj->pi", stiffnesses(self.materials), expansion / self.physics.tensor_factors)
        if self.grains:
            stress = np.einsum("gij,gj->gi", self._rotations, stress[self.grains.material])
        stress.flags.writeable = False
        return stress

    @cached_property
    def _rotations(self) -> Array:
        """Matrices (grains, strains, strains) that turn the stress of each crystal into the axes of the cell."""
        assert self.grains
        return self.physics.rotate(rotation_matrices(self.grains.orientation))

    def check_storable(self) -> None:
        """Raise ValueError for a problem without a field, or whose field single precision cannot hold."""
        strain, stress, _ = self.load
        values = {"strain": strain, "stress": stress, "stiffness": self.stiffnesses}
        for name, numbers in (values | {"stress of the free expansion": self.eigenstresses}).items():
            check_numbers(name, numbers, SINGLE)
        if not self.stiffnesses.any():
            raise ValueError("materials: are all voids; at least one must carry stress")
        if not (strain.any() or stress.any() or self.eigenstresses.any()):
            raise ValueError(
                f"strain = {list(self.strain)}, stress = {self.stress and list(self.stress)}, temperature = "
                f"{self.temperature:g}: must have a strain or stress that is not 0, or a temperature with a material "
                "that expands"
            )

    def with_grains(self, material: ArrayLike, orientation: ArrayLike) -> Self:
        """Return the problem of polycrystals, in which the values of ``phase`` name grains; see ``Grains``."""
        return replace(self, grains=Grains(material, orientation))  # type: ignore[arg-type]  # It converts them.

    def join_grains(self, phase: Any, material: ArrayLike, orientation: ArrayLike) -> tuple[NDArray[np.integer], Self]:
        """Number the grains of several polycrystals one after the other, so that one problem serves all.

        Args:
            phase: Number of the grain of each voxel, (N, nx, ny, nz).
            material: Number of the material of each grain, (N, G).
            orientation: Unit quaternions w, x, y, z, (N, G, 4); see ``Grains``.

        Returns:
            The new numbers (N, nx, ny, nz), and the problem of all N·G grains.
        """
        N, G = np.shape(material)
        first = G * np.arange(N).reshape(-1, 1, 1, 1)
        return phase + first, self.with_grains(np.ravel(material), np.reshape(orientation, (-1, 4)))

    @property
    def load(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Prescribed strain with engineering shear, prescribed stress, mask of the free strains; each (strains,)."""
        return check_load(self.physics, self.strain, self.stress)

    @property
    def without_load(self) -> Problem:
        """The same materials, element and spacing under no load: what the operators depend on."""
        zeros = (0.0,) * len(self.strain)
        return Problem(self.materials, zeros, scheme=self.scheme, spacing=self.spacing, grains=self.grains)

    def compute_stress(self, phase: Any, strain: Any) -> Any:
        """Return the stress C(x):(ε − αΔT) for a strain field.

        Args:
            phase: (…, nx, ny, nz), integers that index the materials or grains.
            strain: (…, strains, nx, ny, nz) with tensor shear, a NumPy array or a PyTorch tensor; any values
                in voids.

        Returns:
            An array or tensor of the shape of ``strain``.
        """
        stress = self.apply_stiffness(phase, strain)
        if not self.temperature:
            return stress
        return stress - _stack([_take(s, phase, strain) for s in self.eigenstresses.T])

    def apply_stiffness(self, phase: Any, strain: Any) -> Any:
        """Return C(x):ε, the stress without that of a free expansion; the arguments are those of ``compute_stress``."""
        C, factors = self.stiffnesses, self.physics.tensor_factors.reshape(-1, 1, 1, 1)
        engineering = self.fill_voids(phase, strain) / _like(strain, factors)
        occurs = C.any(axis=0) | np.eye(len(factors), dtype=bool)  # Entries that are 0 in every phase cost nothing.
        return _stack(
            [
                sum(_take(C[:, i, j], phase, engineering) * engineering[..., j, :, :, :] for j in np.flatnonzero(row))
                for i, row in enumerate(occurs)
            ]
        )

    def fill_voids(self, phase: Any, strain: Any) -> Any:
        """Return a strain field with 0 in voids, where the strain is not unique and solutions hold NaN."""
        if not (void := ~self.stiffnesses.any(axis=(1, 2))).any():
            return strain
        mask = _take(1.0 * void, phase, strain)[..., None, :, :, :] > 0
        return _module(strain).where(mask, 0.0, strain)

    def compute_energy(self, phase: Any, strain: Any) -> Any:
        """Return the sum of ε:C:ε over the voxels, (…); the arguments are those of ``compute_stress``."""
        return self.compute_work(self.apply_stiffness(phase, strain), self.fill_voids(phase, strain))

    def compute_work(self, stress: Any, strain: Any) -> Any:
        """Return the sum of σ:ε over the voxels, (…), for fields (…, strains, nx, ny, nz) with tensor shear."""
        products, factors = (stress * strain).sum((-3, -2, -1)), self.physics.tensor_factors
        return products @ _like(products, 1 / factors)  # A tensor shear counts twice.

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON, from which ``from_json`` makes the problem again.

        Most defaults are left out. So are the grains, which belong to a microstructure.
        """
        values: dict[str, Any] = {
            "materials": [write_material(m) for m in self.materials],
            "strain": list(self.strain),
            "scheme": self.scheme,
        }
        if self.stress is not None:
            values["stress"] = list(self.stress)
        if self.temperature:
            values["temperature"] = self.temperature
        if self.spacing != (1.0, 1.0, 1.0):
            values["spacing"] = list(self.spacing)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the problem that ``to_json`` wrote.

        Raises:
            ValueError: A key is missing, unknown or has a wrong value.
        """
        return build_problem(cls, values)


def build_problem(cls: Any, values: Mapping[str, Any]) -> Any:
    """Return a ``Problem`` or a ``PathProblem`` from values for JSON; see ``Problem.from_json``."""
    try:
        return cls(**{**values, "materials": tuple(map(read_material, values["materials"]))})
    except (TypeError, KeyError) as error:
        raise ValueError(f"problem = {dict(values)!r:.300}: {error}") from None


def volume_fractions(phase: NDArray[np.integer], count: int) -> Array:
    """Return the volume fractions (N, count) of the phases of N cells (N, nx, ny, nz)."""
    return np.stack([np.bincount(p.ravel(), minlength=count) / p.size for p in phase])


def _like(field: Any, values: Array) -> Any:
    """Return values as an array or a tensor in the precision of a field."""
    return field.new_tensor(values) if hasattr(field, "new_tensor") else values.astype(field.dtype)


def _take(table: Any, phase: Any, like: Any) -> Any:
    """Return the numbers table[phase], in the precision of ``like``."""
    return _like(like, table)[phase.long() if hasattr(phase, "long") else phase]


def _stack(rows: Any) -> Any:
    """Stack fields (…, nx, ny, nz) as components (…, rows, nx, ny, nz)."""
    return _module(rows[0]).stack(rows, -4)


def _module(field: Any) -> Any:
    """Return numpy or torch, the module of a field."""
    return sys.modules[type(field).__module__.partition(".")[0]]
