"""Recurrent localization networks of Kelly & Kalidindi (2021, arXiv 2102.00063): FLN, RLN-t and RLN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from lspipe.cell.physics import Physics
from lspipe.models.errors import square
from lspipe.models.vnet import VNet

if TYPE_CHECKING:
    from lspipe.models.domain import Domain

PREVIOUS = 2  # iterates before the current one that a pass sees


class Architecture(TypedDict):
    passes: int
    tied: bool


PAPER: dict[str, Architecture] = {
    "fln": {"passes": 1, "tied": True},
    "rln-t": {"passes": 5, "tied": True},
    "rln": {"passes": 5, "tied": False},
}


class RLN(nn.Module):
    """``passes`` proximal V-Nets in a row, one for all (``tied``) or each with its own weights.

    The iterate y is ε/ε̄_xx: of ε_xx alone as in the paper, or of all components, its ``channels``. It starts at its
    ``mean``, Ē/Ē_xx. A pass maps the phase indicators times each component of the last three iterates to a perturbation
    p and sets y ← Ē/Ē_xx + p − ⟨p⟩, so the mean strain is exact.
    """

    mean: Tensor

    def __init__(self, phases: int = 2, mean: Sequence[float] = (1.0,), passes: int = 5, tied: bool = True) -> None:
        super().__init__()
        self.phases, self.passes, self.channels = phases, passes, len(mean)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1, 1), persistent=False)
        channels = (phases * (1 + PREVIOUS) * len(mean), len(mean))
        self.nets = nn.ModuleList([VNet(*channels) for _ in range(1 if tied else passes)])

    def forward(self, phase: Tensor, passes: int | None = None) -> list[Tensor]:
        """The iterates after each pass, each (N, channels, nx, ny, nz) float, for integers (N, nx, ny, nz).
        ``passes``: all unless given."""
        indicator = torch.stack([phase == p for p in range(self.phases)], dim=1).float()[:, :, None]
        y = self.mean.expand(len(phase), -1, *phase.shape[1:])
        before = [torch.zeros_like(y)] * PREVIOUS
        iterates = []
        for t in range(passes or self.passes):
            features = torch.cat([(indicator * past[:, None]).flatten(1, 2) for past in (y, *before)], dim=1)
            p = self.nets[t % len(self.nets)](features).to(y.dtype)  # in training it may be bf16
            before = [y, *before[:-1]]
            y = self.mean + p - p.mean(dim=(2, 3, 4), keepdim=True)
            iterates.append(y)
        return iterates

    def learn(self, phase: Tensor, y: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        """The loss (see loss_of) and the last iterate, both float32."""
        iterates = self(phase)
        return loss_of(iterates, y, domain.physics), iterates[-1]


def loss_of(iterates: list[Tensor], y: Tensor, physics: Physics) -> Tensor:
    """Mean over the passes of 100·√⟨‖ŷ − y‖²⟩/‖⟨y⟩‖, ⟨·⟩ over the batch (Kelly & Kalidindi 2021, for xx alone)."""
    mean = square(y.mean(dim=(0, 2, 3, 4), keepdim=True), physics)
    return torch.stack([100 * (square(i - y, physics).mean() / mean).sqrt() for i in iterates]).mean()
