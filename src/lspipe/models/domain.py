"""What a network was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel

from lspipe.cell.arguments import check_load, check_materials, check_scheme
from lspipe.cell.material import Material, material, parameters, stiffnesses
from lspipe.cell.numbers import SINGLE, SMALLEST, numbers, shown
from lspipe.cell.physics import Physics


@dataclass(frozen=True)
class Domain:
    """What a network was trained for: the stiffnesses up to a common factor, the load up to another, and
    the element of its fields. ValueError for what no network can be trained for."""

    materials: tuple[Material, ...]
    strain: tuple[float, ...]
    scheme: str
    labels: tuple[int, ...] | None = field(default=None, compare=False)  # in the images, of each material

    def __post_init__(self) -> None:
        check_load(check_materials(self.materials)[0].physics, self.strain)
        check_scheme(self.scheme, 0)
        if abs(self.strain[0]) <= SMALLEST * max(map(abs, self.strain)):
            raise ValueError(
                f"strain = {list(self.strain)}: {self.physics.components[0]} must not be 0, nor less than {SMALLEST:g} "
                "of the largest component, for networks learn the field relative to it"
            )

    @property
    def physics(self) -> Physics:
        return self.materials[0].physics

    def check(self, materials: Sequence[Material], strain: Sequence[float | None]) -> float:
        """The macroscopic ε̄_xx. Raises ValueError outside the domain."""
        materials = check_materials(materials)
        C, C0 = stiffnesses(materials), stiffnesses(self.materials)
        scale = C[0, 0, 0] or np.nan  # a void is a multiple of nothing
        if C.shape != C0.shape or not np.allclose(C / scale, C0 / C0[0, 0, 0], rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"materials = {shown(list(materials))}: this model was trained for {list(self.materials)} "
                "or common multiples of their moduli"
            )
        each = np.asarray(strain, dtype=object).ravel()
        E, _, free = check_load(self.physics, strain, [0.0 if e is None else None for e in each])
        numbers("strain", E, SINGLE)
        E0, _, _ = check_load(self.physics, self.strain)
        if free.any() or E[0] == 0 or not np.allclose(E / E[0], E0 / E0[0], atol=1e-6):
            raise ValueError(
                f"strain = {shown(list(strain))}: this model was trained for multiples of {list(self.strain)}"
            )
        return float(E[0])

    def relative(self, channels: int) -> list[float]:
        """The first components of Ē/Ē_xx."""
        return [component / self.strain[0] for component in self.strain[:channels]]

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Raise ValueError where images have other labels than those that the network was trained on."""
        if labels and self.labels and tuple(labels) != self.labels:
            raise ValueError(
                f"labels = {list(labels)}: this model was trained for {list(self.labels)}; import all images with the "
                "same labels"
            )

    def to_json(self) -> dict[str, Any]:
        stated = {"materials": [parameters(m) for m in self.materials], "strain": self.strain, "scheme": self.scheme}
        return stated | ({"labels": self.labels} if self.labels else {})


class DomainJSON(BaseModel):
    """A domain as ``model.json`` states it."""

    materials: list[dict[str, Any]]
    strain: list[float]
    scheme: str
    labels: list[int] | None = None

    def domain(self) -> Domain:
        materials = tuple(material(**m) for m in self.materials)
        return Domain(materials, tuple(self.strain), self.scheme, tuple(self.labels) if self.labels else None)
