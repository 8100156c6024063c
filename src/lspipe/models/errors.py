"""Norms and errors of strain fields (N, components, nx, ny, nz) that hold the first components or all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem
from lspipe.measure import count_measured, is_thermal, prescribed_size


def square(strain: Tensor, physics: Physics) -> Tensor:
    """Return ‖ε‖² (N, nx, ny, nz) in the Frobenius norm of the tensor, where a shear strain counts twice."""
    return (strain.square() / shear(physics, strain)).sum(dim=1)


def mase(strain: Tensor, truth: Tensor, problem: Problem, unit: float = 1.0) -> Tensor:
    """Return the mean absolute strain error in %, 100·⟨‖Δε‖⟩/‖⟨ε⟩‖, of each microstructure, (N,).

    ``count_measured`` chooses the components. ``prescribed_size`` and ``is_thermal`` choose the reference of the error.
    For xx alone this is the error of Kelly & Kalidindi (2021). Both fields are 0 in voids, which do not count, and are
    in units of ``unit``.
    """
    measured = count_measured(problem, truth.shape[1])
    solid = (truth != 0).any(dim=1).double().mean(dim=(1, 2, 3))
    off, size = (mean_norm(field[:, :measured], problem.physics) for field in (strain - truth, truth))
    if not is_thermal(problem):
        size = mean_norm(truth[:, :measured].mean(dim=(2, 3, 4), keepdim=True), problem.physics)
    if prescribed := prescribed_size(problem, measured):
        size = solid * prescribed / abs(unit)
    return 100 * off / size


def mean_norm(strain: Tensor, physics: Physics) -> Tensor:
    """Return ⟨‖ε‖⟩ of each microstructure, (N,)."""
    return square(strain, physics).sqrt().mean(dim=(1, 2, 3))


def shear(physics: Physics, like: Tensor) -> Tensor:
    """Return tensor strain over engineering strain for the components of a field, (components, 1, 1, 1)."""
    return torch.tensor(physics.tensor_factors[: like.shape[1]]).to(like).view(-1, 1, 1, 1)
