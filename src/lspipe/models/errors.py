"""Norms and errors of strain fields (N, components, nx, ny, nz) that hold the first components or all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from lspipe.cell.physics import Physics


def square(strain: Tensor, physics: Physics) -> Tensor:
    """Return ‖ε‖² (N, nx, ny, nz) in the Frobenius norm of the tensor, where a shear strain counts twice."""
    return (strain.square() / shear(physics, strain)).sum(dim=1)


def mase(strain: Tensor, truth: Tensor, physics: Physics) -> Tensor:
    """Return the mean absolute strain error in %, 100·⟨‖Δε‖⟩/‖⟨ε⟩‖, of each microstructure, (N,).

    For xx alone this is the error of Kelly & Kalidindi (2021).
    """
    mean = square(truth.mean(dim=(2, 3, 4), keepdim=True), physics)
    return 100 * (square(strain - truth, physics) / mean).sqrt().mean(dim=(1, 2, 3))


def shear(physics: Physics, like: Tensor) -> Tensor:
    """Return tensor strain over engineering strain for the components of a field, (components, 1, 1, 1)."""
    return torch.tensor(physics.tensor_factors[: like.shape[1]]).to(like).view(-1, 1, 1, 1)
