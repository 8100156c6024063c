"""A trained network with the domain it was trained for: phases in, strain field out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from lspipe.cell.arguments import check_load, check_phase
from lspipe.cell.material import VOIGT, Isotropic, stiffnesses
from lspipe.cell.solver import Solution
from lspipe.models.rln import RLN

BATCH = 16


@dataclass(frozen=True)
class Domain:
    """What a network was trained for: the stiffnesses up to a common factor, the load up to another, and
    the element of its fields."""

    materials: tuple[Isotropic, ...]
    strain: tuple[float, ...]
    scheme: str

    def check(self, materials: Sequence[Isotropic], strain: Sequence[float | None]) -> float:
        """The macroscopic ε̄_xx. Raises ValueError outside the domain."""
        E, _, free = check_load(strain, [0.0 if e is None else None for e in strain])
        E0, _, _ = check_load(self.strain)
        if free.any() or E[0] == 0 or not np.allclose(E / E[0], E0 / E0[0], atol=1e-6):
            raise ValueError(f"strain = {list(strain)}: this model was trained for multiples of {list(self.strain)}")
        C, C0 = stiffnesses(materials), stiffnesses(self.materials)
        if C.shape != C0.shape or not np.allclose(C / C[0, 0, 0], C0 / C0[0, 0, 0], rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"materials = {list(materials)}: this model was trained for {list(self.materials)} "
                "or common multiples of their moduli"
            )
        return float(E[0])

    def relative(self, components: Sequence[str]) -> list[float]:
        """Ē/Ē_xx."""
        return [self.strain[VOIGT.index(component)] / self.strain[0] for component in components]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Domain:
        return cls(tuple(Isotropic(**m) for m in data["materials"]), tuple(data["strain"]), data["scheme"])


class LocalizationModel:
    """Predicts ε_xx, or all components of ε, with ``network`` inside ``domain``."""

    def __init__(self, network: RLN, domain: Domain) -> None:
        self.network, self.domain = network, domain

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def under(self, scheme: str) -> LocalizationModel:
        """This model, if ``scheme`` is the element it was trained for; ValueError otherwise."""
        if scheme != self.domain.scheme:
            raise ValueError(f"scheme = {scheme!r}: this model was trained for fields of {self.domain.scheme!r}")
        return self

    def predict(self, phase: ArrayLike, materials: Sequence[Isotropic], strain: Sequence[float | None]) -> Solution:
        """The strain, in the network's components. Arguments as for ``solve``; ValueError outside the domain."""
        return self.iterates(phase, materials, strain)[-1]

    def iterates(
        self, phase: ArrayLike, materials: Sequence[Isotropic], strain: Sequence[float | None]
    ) -> list[Solution]:
        """The fields after each pass."""
        checked = check_phase(phase, len(materials))
        if min(checked.shape[1:]) < 8:
            raise ValueError(f"phase has shape {checked.shape}: networks need at least 8 voxels along each axis")
        mean = self.domain.check(materials, strain)
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            batches = [
                self.network(torch.from_numpy(p.astype(np.int32)).to(device))
                for p in np.array_split(checked, -(-len(checked) // BATCH))
            ]
        fields = (torch.cat(passed).cpu().numpy() * mean for passed in zip(*batches, strict=True))
        return [Solution(strain=field, components=self.network.components) for field in fields]
