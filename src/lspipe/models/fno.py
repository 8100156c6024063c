"""FNO: a Fourier neural operator that maps stiffness and load to the strain in one pass (Li et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.models.neural_operator import NeuralOperator, join_medium
from lspipe.models.spectral import Operator


class FNO(NeuralOperator):
    """ε/‖E‖ = F(C, E); ``sizes`` are those of ``Operator``."""

    def __init__(self, physics: Physics = ELASTICITY, **sizes: int) -> None:
        super().__init__(physics)
        s = self.channels
        self.operator = Operator(s * (s + 1) // 2 + s, s, **sizes)

    def states(self, C: Tensor, E: Tensor, passes: int) -> Iterator[Tensor]:
        yield self.operator(join_medium(C, E))
