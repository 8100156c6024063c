"""Recurrent localization networks of Kelly & Kalidindi (2021, arXiv 2102.00063): FLN, RLN-t and RLN."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn

from lspipe.models.vnet import VNet

PREVIOUS = 2  # iterates before the current one that a pass sees


class Architecture(TypedDict):
    passes: int
    tied: bool


ARCHITECTURES: dict[str, Architecture] = {
    "fln": {"passes": 1, "tied": True},
    "rln-t": {"passes": 5, "tied": True},
    "rln": {"passes": 5, "tied": False},
}


def build(architecture: str, phases: int) -> RLN:
    """A network with fresh weights. Raises ValueError for an architecture that is not there."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture = {architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    return RLN(phases, **ARCHITECTURES[architecture])


class RLN(nn.Module):
    """``passes`` proximal V-Nets in a row, one for all (``tied``) or each with its own weights.

    The iterate y is ε_xx/ε̄_xx, starting at 1. A pass maps the phase indicators times each of the last
    three iterates to a perturbation p and sets y ← 1 + p − ⟨p⟩, so the mean strain is exact.
    """

    def __init__(self, phases: int = 2, passes: int = 5, tied: bool = True) -> None:
        super().__init__()
        self.phases, self.passes = phases, passes
        self.nets = nn.ModuleList([VNet(phases * (1 + PREVIOUS)) for _ in range(1 if tied else passes)])

    def forward(self, phase: Tensor) -> list[Tensor]:
        """The iterates after each pass, each (N, nx, ny, nz) float, for integers (N, nx, ny, nz)."""
        indicator = torch.stack([phase == p for p in range(self.phases)], dim=1).float()
        y = torch.ones_like(indicator[:, :1])
        before = [torch.zeros_like(y)] * PREVIOUS
        iterates = []
        for t in range(self.passes):
            features = torch.cat([indicator * past for past in (y, *before)], dim=1)
            p = self.nets[t % len(self.nets)](features)
            before = [y, *before[:-1]]
            y = 1 + p - p.mean(dim=(1, 2, 3, 4), keepdim=True)
            iterates.append(y[:, 0])
        return iterates
