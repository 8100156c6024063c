"""The base class of networks that predict the strain of microstructures directly, and their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem
from lspipe.models.domain import relative_strain
from lspipe.models.errors import square
from lspipe.models.processes import average


class Network(nn.Module):
    """A network that is told the macroscopic strain, and sees the phases or their moduli.

    Its iterates are fields of the strain with ``channels`` components, one field after each of its ``passes``. Strains
    are relative to ``load_scale``, which is ε̄_xx in the paper.

    Attributes:
        least: Smallest number of voxels along an axis.
        sees_moduli: Whether it sees the moduli, and so serves more than one list of materials and more than its loads.
    """

    least: ClassVar[int] = 1
    sees_moduli: ClassVar[bool] = False

    def __init__(self, channels: int, passes: int) -> None:
        super().__init__()
        self.channels, self.passes = channels, passes

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of passes after which evaluation measures errors."""
        return tuple(range(1, self.passes + 1))

    def forward(self, phase: Tensor, mean: Tensor, passes: int | None = None) -> list[Tensor]:
        """Compute the iterates.

        Args:
            phase: The phase of each voxel, integers (N, nx, ny, nz).
            mean: The mean of each iterate, which is the macroscopic strain, (channels, 1, 1, 1) float32.
            passes: The number of passes; all unless given.

        Returns:
            The iterate after each pass, (N, channels, nx, ny, nz) float32.
        """
        raise NotImplementedError

    def iterates(self, phase: Tensor, problem: Problem, counts: Sequence[int]) -> list[Tensor]:
        """Compute the iterates of a problem after some numbers of passes, in ascending order."""
        iterates = self(phase, self.mean(problem, phase.device), counts[-1])
        return [iterates[k - 1] for k in counts]

    def mean(self, problem: Problem, device: torch.device | str) -> Tensor:
        """Return the argument ``mean`` of ``forward`` for a problem."""
        mean = torch.tensor(relative_strain(problem)[: self.channels], dtype=torch.float32, device=device)
        return mean.view(-1, 1, 1, 1)

    def check_grid(self, grid: Sequence[int]) -> None:
        """Raise ValueError where a grid of nx×ny×nz voxels is too small."""
        if min(grid) < self.least:
            raise ValueError(
                f"phase: has {'×'.join(map(str, grid))} voxels; this network needs at least {self.least} along each "
                "axis; rln-cg takes any grid"
            )

    def check(self, phase: Tensor, loads: int) -> None:
        """Raise ValueError where the network cannot learn microstructures (N, nx, ny, nz) under several loads."""
        self.check_grid(phase.shape[1:])

    def learn(self, phase: Tensor, y: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Return the loss (see ``loss_of``) and the last iterate, for the true fields ``y`` like the iterates.

        In voids, ``y`` is 0, and so are the iterates here.
        """
        iterates = [problem.fill_voids(phase, iterate) for iterate in self(phase, self.mean(problem, y.device))]
        return loss_of(iterates, y, problem.physics), iterates[-1]


def indicators(phase: Tensor, phases: int) -> Tensor:
    """Return 1 where a voxel has a phase and 0 elsewhere, (N, phases, nx, ny, nz) float32."""
    return torch.stack([phase == p for p in range(phases)], dim=1).float()


def around(mean: Tensor, field: Tensor) -> Tensor:
    """Return a field (N, channels, nx, ny, nz) with its mean replaced by ``mean``, (channels, 1, 1, 1)."""
    return mean + field - field.mean(dim=(2, 3, 4), keepdim=True)


def loss_of(iterates: list[Tensor], y: Tensor, physics: Physics) -> Tensor:
    """Return the mean over the passes of 100·√⟨‖ŷ − y‖²⟩/‖⟨y⟩‖, where ⟨·⟩ is the mean over the batch of all processes.

    For ε_xx alone this is the loss of Kelly & Kalidindi (2021).
    """
    mean = square(average(y.mean(dim=(0, 2, 3, 4), keepdim=True), len(y)), physics)
    errors = average(torch.stack([square(i - y, physics).mean() for i in iterates]), len(y))
    return (100 * (errors / mean).sqrt()).mean()
