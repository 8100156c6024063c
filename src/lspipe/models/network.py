"""What all networks have in common that give the strain of microstructures directly, and the loss they learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lspipe.cell.physics import Physics
from lspipe.models.errors import square

if TYPE_CHECKING:
    from lspipe.models.domain import Domain


class Network(nn.Module):
    """A network for one list of materials and one load.

    Its iterates are fields ε/ε̄_xx with ``channels`` components, one field after each of its ``passes``. Their mean is
    the macroscopic strain Ē/Ē_xx: ``mean`` (1, channels, 1, 1, 1).
    """

    mean: Tensor

    def __init__(self, phases: int, mean: Sequence[float], passes: int) -> None:
        super().__init__()
        self.phases, self.passes, self.channels = phases, passes, len(mean)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, phase: Tensor, passes: int | None = None) -> list[Tensor]:
        """Compute the iterates.

        Args:
            phase: The phase of each voxel, integers (N, nx, ny, nz).
            passes: The number of passes; all unless given.

        Returns:
            The iterate after each pass, (N, channels, nx, ny, nz) float32.
        """
        raise NotImplementedError

    def indicators(self, phase: Tensor) -> Tensor:
        """Return 1 where a voxel has a phase and 0 elsewhere, (N, phases, nx, ny, nz) float32."""
        return torch.stack([phase == p for p in range(self.phases)], dim=1).float()

    def around_mean(self, field: Tensor) -> Tensor:
        """Replace the mean of a field by the macroscopic strain."""
        return self.mean + field - field.mean(dim=(2, 3, 4), keepdim=True)

    def learn(self, phase: Tensor, y: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        """Return the loss (see ``loss_of``) and the last iterate, for the true fields ``y`` like the iterates."""
        iterates = self(phase)
        return loss_of(iterates, y, domain.physics), iterates[-1]


def loss_of(iterates: list[Tensor], y: Tensor, physics: Physics) -> Tensor:
    """Return the mean over the passes of 100·√⟨‖ŷ − y‖²⟩/‖⟨y⟩‖, where ⟨·⟩ is the mean over the batch.

    For ε_xx alone this is the loss of Kelly & Kalidindi (2021).
    """
    mean = square(y.mean(dim=(0, 2, 3, 4), keepdim=True), physics)
    return torch.stack([100 * (square(i - y, physics).mean() / mean).sqrt() for i in iterates]).mean()
