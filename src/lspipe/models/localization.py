"""A trained network with the domain it was trained for: phases in, strain field out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from lspipe.cell.arguments import check_materials, check_phase
from lspipe.cell.material import Material
from lspipe.cell.numbers import integer
from lspipe.cell.operator_torch import VOXELS
from lspipe.cell.solver import Solution
from lspipe.models.domain import Domain
from lspipe.models.rln import RLN


def at_once(device: str, grid: Sequence[int]) -> int:
    """Microstructures of nx×ny×nz voxels in a batch: on a GPU as many as the solver takes there."""
    return max(1, VOXELS // math.prod(grid)) if device.startswith("cuda") else 16


class LocalizationModel:
    """Predicts ε_xx, or all components of ε, with ``network`` inside ``domain``."""

    def __init__(self, network: RLN, domain: Domain) -> None:
        self.network, self.domain = network, domain

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def device(self) -> str:
        return str(next(self.network.parameters()).device)

    @property
    def passes(self) -> int:
        return self.network.passes

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(range(1, self.passes + 1))

    def under(self, scheme: str) -> LocalizationModel:
        """This model, if ``scheme`` is the element it was trained for; ValueError otherwise."""
        if scheme != self.domain.scheme:
            raise ValueError(f"scheme = {scheme!r}: this model was trained for fields of {self.domain.scheme!r}")
        return self

    def predict(
        self,
        phase: ArrayLike,
        materials: Sequence[Material],
        strain: Sequence[float | None],
        *,
        passes: int | None = None,
    ) -> Solution:
        """The strain after ``passes``, all unless given, in the network's channels. Arguments as for ``solve``;
        ValueError outside the domain."""
        if passes is not None and integer("passes", passes, 0) not in self.counts:
            raise ValueError(f"passes = {passes}: must lie between 1 and {self.passes}, those of this network")
        materials = check_materials(materials)
        checked = check_phase(phase, len(materials))
        if min(checked.shape[1:]) < 8:
            raise ValueError(f"phase has shape {checked.shape}: networks need at least 8 voxels along each axis")
        mean = self.domain.check(materials, strain)
        with torch.inference_mode():
            batches = [
                self.network(torch.from_numpy(p.astype(np.int32)).to(self.device), passes)[-1]
                for p in np.array_split(checked, -(-len(checked) // at_once(self.device, checked.shape[1:])))
            ]
        return Solution(
            strain=torch.cat(batches).cpu().numpy() * mean,
            components=self.domain.physics.components[: self.network.channels],
        )
