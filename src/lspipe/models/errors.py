"""How far a strain field (N, components, nx, ny, nz) is from the truth, per microstructure: (N,)."""

from __future__ import annotations

import torch
from torch import Tensor

from lspipe.cell.physics import Physics


def square(strain: Tensor, physics: Physics) -> Tensor:
    """‖ε‖² of Frobenius, (N, nx, ny, nz), of the first components or all: a shear strain stands for two entries of the
    tensor."""
    return (strain.square() / shear(physics, strain)).sum(dim=1)


def mase(strain: Tensor, truth: Tensor, physics: Physics) -> Tensor:
    """Mean absolute strain error in %: 100·⟨‖Δε‖⟩/‖⟨ε⟩‖. For xx alone, the paper's (Kelly & Kalidindi 2021)."""
    mean = square(truth.mean(dim=(2, 3, 4), keepdim=True), physics)
    return 100 * (square(strain - truth, physics) / mean).sqrt().mean(dim=(1, 2, 3))


def shear(physics: Physics, like: Tensor) -> Tensor:
    """See Physics, for the components of a field."""
    return torch.tensor(physics.shear[: like.shape[1]]).to(like).view(-1, 1, 1, 1)
