"""TherINO: a neural operator that iterates on the strain (Kelly & Kalidindi 2024, arXiv 2411.06529)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.models.anderson import anderson
from lspipe.models.network import around
from lspipe.models.neural_operator import NeuralOperator, fill
from lspipe.models.spectral import Operator

PASSES = 16


class TherINO(NeuralOperator):
    """The strain is a fixed point of a map F, which sees the thermodynamics of the strain ε that it refines.

    F maps E, ε, the stress σ = C:ε and ε:σ to a strain of mean E. The iteration starts at E, and Anderson's
    acceleration looks for the fixed point. ``sizes`` are those of ``Operator``.

    Training differentiates the last application of F alone, which takes less time and memory than all of them.
    """

    def __init__(self, physics: Physics = ELASTICITY, **sizes: int) -> None:
        super().__init__(physics, PASSES)
        self.operator = Operator(3 * self.channels + 1, self.channels, **sizes)

    def states(self, C: Tensor, E: Tensor, passes: int) -> Iterator[Tensor]:
        start = fill(E, C)

        def F(strain: Tensor) -> Tensor:
            stress = torch.einsum("nij...,nj...->ni...", C, strain)
            energy = (strain * stress).sum(dim=1, keepdim=True)
            fields = torch.cat([start, strain, stress, energy], dim=1)
            return around(E, self.operator(fields).to(E.dtype))

        if self.training:
            with torch.no_grad():
                strains = [start, *anderson(F, start, passes - 1)]
            yield from strains[1:]
            yield F(strains[-1])
        else:
            yield from anderson(F, start, passes)
