"""How far a strain field (N, components, nx, ny, nz) is from the truth, per microstructure: (N,)."""

from __future__ import annotations

import torch
from torch import Tensor

from lspipe.cell.material import TENSOR_SHEAR


def square(strain: Tensor) -> Tensor:
    """‖ε‖² of Frobenius, (N, nx, ny, nz); each shear strain stands for two entries of the tensor."""
    squares = strain.square()
    return squares.sum(dim=1) + squares[:, 3:].sum(dim=1)


def mase(strain: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute strain error in %: 100·⟨‖Δε‖⟩/‖⟨ε⟩‖. For xx alone, the paper's (Kelly & Kalidindi 2021)."""
    mean = square(truth.mean(dim=(2, 3, 4), keepdim=True))
    return 100 * (square(strain - truth) / mean).sqrt().mean(dim=(1, 2, 3))


def energy(phase: Tensor, C: Tensor, strain: Tensor) -> Tensor:
    """Σ ε:C:ε over the voxels. Arguments as of ``stress``."""
    return (stress(phase, C, strain) * strain / tensor_shear(strain)).sum(dim=(1, 2, 3, 4))


def stress(phase: Tensor, C: Tensor, strain: Tensor) -> Tensor:
    """C:ε (N, 6, nx, ny, nz), of all components of ε and of ``C`` (phases, 6, 6), made for engineering shear."""
    e = strain / tensor_shear(strain)
    parts = [(phase == p)[:, None] * torch.einsum("ij,njxyz->nixyz", Cp, e) for p, Cp in enumerate(C)]
    return torch.stack(parts).sum(dim=0)


def tensor_shear(like: Tensor) -> Tensor:
    return torch.tensor(TENSOR_SHEAR, dtype=like.dtype, device=like.device).view(6, 1, 1, 1)
