"""What a network was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from lspipe.cell.arguments import check_load, check_materials, check_scheme
from lspipe.cell.material import Material, material, parameters, stiffnesses
from lspipe.cell.physics import Physics


@dataclass(frozen=True)
class Domain:
    """What a network was trained for: the stiffnesses up to a common factor, the load up to another, and
    the element of its fields. ValueError for what no network can be trained for."""

    materials: tuple[Material, ...]
    strain: tuple[float, ...]
    scheme: str

    def __post_init__(self) -> None:
        check_load(check_materials(self.materials)[0].physics, self.strain)
        check_scheme(self.scheme, 0)
        if self.strain[0] == 0:
            raise ValueError(
                f"strain = {list(self.strain)}: {self.physics.components[0]} must not be 0, for networks learn the "
                "field relative to it"
            )

    @property
    def physics(self) -> Physics:
        return self.materials[0].physics

    def check(self, materials: Sequence[Material], strain: Sequence[float | None]) -> float:
        """The macroscopic ε̄_xx. Raises ValueError outside the domain."""
        C, C0 = stiffnesses(check_materials(materials)), stiffnesses(self.materials)
        if C.shape != C0.shape or not np.allclose(C / C[0, 0, 0], C0 / C0[0, 0, 0], rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"materials = {list(materials)}: this model was trained for {list(self.materials)} "
                "or common multiples of their moduli"
            )
        E, _, free = check_load(self.physics, strain, [0.0 if e is None else None for e in strain])
        E0, _, _ = check_load(self.physics, self.strain)
        if free.any() or E[0] == 0 or not np.allclose(E / E[0], E0 / E0[0], atol=1e-6):
            raise ValueError(f"strain = {list(strain)}: this model was trained for multiples of {list(self.strain)}")
        return float(E[0])

    def relative(self, channels: int) -> list[float]:
        """The first components of Ē/Ē_xx."""
        return [component / self.strain[0] for component in self.strain[:channels]]

    def to_json(self) -> dict[str, Any]:
        return {"materials": [parameters(m) for m in self.materials], "strain": self.strain, "scheme": self.scheme}


class DomainJSON(BaseModel):
    """A domain as ``model.json`` states it."""

    materials: list[dict[str, Any]]
    strain: list[float]
    scheme: str

    def domain(self) -> Domain:
        return Domain(tuple(material(**m) for m in self.materials), tuple(self.strain), self.scheme)
