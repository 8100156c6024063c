"""The base class of FNO, IFNO and TherINO, which see the stiffness of each voxel and the direction of the load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.cell.problem import Problem
from lspipe.models.network import Network, around, loss_of


class NeuralOperator(Network):
    """A network for any materials under any macroscopic strain, which predicts all components.

    Tensors are in Mandel's components here, where the norm of a vector is that of the tensor. The stiffness C is
    relative to ‖⟨C⟩‖, the norm of its mean over the microstructure, and the macroscopic strain E to ‖E‖. So the
    prediction is a multiple of the load, and a common factor of all stiffnesses has no effect.

    Args:
        physics: The physics of the materials.
        passes: The number of passes of a prediction.
    """

    sees_moduli = True

    def __init__(self, physics: Physics = ELASTICITY, passes: int = 1) -> None:
        super().__init__(len(physics.components), passes)
        self.physics = physics

    @property
    def counts(self) -> tuple[int, ...]:
        """The powers of 2 up to the number of passes."""
        return tuple(2**i for i in range(self.passes.bit_length()))

    def states(self, C: Tensor, E: Tensor, passes: int) -> Iterator[Tensor]:
        """Yield the state after each pass.

        Args:
            C: The relative stiffness, (N, strains, strains, nx, ny, nz) float32.
            E: The macroscopic strain over its norm, (strains, 1, 1, 1) float32.
            passes: The number of passes.
        """
        raise NotImplementedError

    def decode(self, state: Tensor) -> Tensor:
        """Return the strain over ‖E‖ that belongs to a state, (N, strains, nx, ny, nz), with any mean."""
        return state

    def iterates(self, phase: Tensor, problem: Problem, counts: Sequence[int]) -> list[Tensor]:
        C, mean = relative_stiffness(phase, problem), self.mean(problem, phase.device)
        unit = mandel(self.physics, mean)
        size = (unit * mean).norm()
        states = enumerate(self.states(C, unit * mean / size, counts[-1]), 1)
        return [around(mean, size / unit * self.decode(state).to(mean.dtype)) for k, state in states if k in counts]

    def learn(self, phase: Tensor, y: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Return the loss of the last iterate (see ``loss_of``), and this iterate."""
        (iterate,) = self.iterates(phase, problem, (self.passes,))
        iterate = problem.fill_voids(phase, iterate)
        return loss_of([iterate], y, self.physics), iterate


def mandel(physics: Physics, like: Tensor) -> Tensor:
    """Return the factors that turn a strain with tensor shear into Mandel's components, (strains, 1, 1, 1)."""
    return torch.tensor(physics.tensor_factors**-0.5).to(like).view(-1, 1, 1, 1)


def relative_stiffness(phase: Tensor, problem: Problem) -> Tensor:
    """Return C/‖⟨C⟩‖ in Mandel's components, (N, strains, strains, nx, ny, nz) float32; 0 in voids."""
    factors = problem.physics.tensor_factors
    table = problem.stiffnesses / np.sqrt(np.outer(factors, factors))
    relative = torch.tensor(table / (np.abs(table).max() or 1.0), dtype=torch.float32, device=phase.device)
    C = relative[phase.long()].movedim((-2, -1), (1, 2))
    size = C.mean(dim=(3, 4, 5), keepdim=True).norm(dim=(1, 2), keepdim=True)
    return C / torch.where(size > 0, size, 1)


def join_medium(C: Tensor, E: Tensor) -> Tensor:
    """Return the entries of C on and above its diagonal, then E, (N, s(s + 1)/2 + s, nx, ny, nz) for s strains."""
    rows, columns = torch.triu_indices(len(E), len(E), device=C.device)
    return torch.cat([C[:, rows, columns], fill(E, C)], dim=1)


def fill(E: Tensor, C: Tensor) -> Tensor:
    """Return the same strain (strains, 1, 1, 1) at each voxel of C, (N, strains, nx, ny, nz)."""
    return E.expand(len(C), -1, *C.shape[3:])
