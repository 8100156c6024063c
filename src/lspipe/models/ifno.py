"""IFNO: an implicit Fourier neural operator, whose layers share their weights (You et al. 2022, arXiv 2203.08205)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.models.neural_operator import NeuralOperator, join_medium
from lspipe.models.spectral import Operator

PASSES = 16


class IFNO(NeuralOperator):
    """x ← x + B(x)/PASSES, where B are the blocks; x starts as the lifted C and E, and the last x is projected.

    ``sizes`` are those of ``Operator``.
    """

    def __init__(self, physics: Physics = ELASTICITY, **sizes: int) -> None:
        super().__init__(physics, PASSES)
        s = self.channels
        self.operator = Operator(s * (s + 1) // 2 + s, s, **sizes)

    def states(self, C: Tensor, E: Tensor, passes: int) -> Iterator[Tensor]:
        x = self.operator.lift(join_medium(C, E))
        for _ in range(passes):
            y = x
            for block in self.operator.blocks:
                y = block(y)
            x = x + y / PASSES
            yield x

    def decode(self, state: Tensor) -> Tensor:
        return self.operator.project(state)
