"""Recurrent localization networks of Kelly & Kalidindi (2021, arXiv 2102.00063): FLN, RLN-t and RLN."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lspipe.models.architectures import LEAST
from lspipe.models.network import Network, around, indicators
from lspipe.models.vnet import VNet

PREVIOUS = 2  # iterates before the current one that a pass sees


class RLN(Network):
    """``passes`` proximal V-Nets in a row, one for all (``tied``) or each with its own weights.

    The iterate y has ε_xx alone as in the paper, or all components. It starts at its mean, the macroscopic strain Ē. A
    pass maps the phase indicators times each component of the last three iterates to a perturbation p and sets
    y ← Ē + p − ⟨p⟩, so the mean strain is exact.
    """

    least: ClassVar[int] = LEAST

    def __init__(self, phases: int = 2, channels: int = 1, passes: int = 5, tied: bool = True) -> None:
        super().__init__(channels, passes)
        self.phases = phases
        features = phases * (1 + PREVIOUS) * channels
        self.nets = nn.ModuleList([VNet(features, channels) for _ in range(1 if tied else passes)])

    def forward(self, phase: Tensor, mean: Tensor, passes: int | None = None) -> list[Tensor]:
        indicator = indicators(phase, self.phases)[:, :, None]
        y = mean.expand(len(phase), -1, *phase.shape[1:])
        before = [torch.zeros_like(y)] * PREVIOUS
        iterates = []
        for t in range(passes or self.passes):
            features = torch.cat([(indicator * past[:, None]).flatten(1, 2) for past in (y, *before)], dim=1)
            p = self.nets[t % len(self.nets)](features).to(y.dtype)  # in training it may be bf16
            before = [y, *before[:-1]]
            y = around(mean, p)
            iterates.append(y)
        return iterates
