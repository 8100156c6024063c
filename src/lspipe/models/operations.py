"""The number of floating-point operations in a prediction. A multiplication and an addition are two operations.

For networks, PyTorch counts the convolutions and the matrix products; activations and other cheap layers are left out.
The Fourier coefficients of the neural operators are matrix products too. A product of complex numbers counts as four
real ones. All passes of a network count the same; what comes before and after them counts once.

For the solver, the number is an estimate of everything that ``predict`` does, stress and bound included. It assumes the
CPU engine, whose element matrices are sparse; a GPU may do more. The estimate counts voxels, not the nodes on opposite
faces, and leaves out the residuals that long iterations compute anew in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lspipe.cell.autograd import Cells
from lspipe.cell.engine import build_operator
from lspipe.cell.numbers import Array
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.problem import Problem
from lspipe.cell.transform import blocks, pairs
from lspipe.models.files import Model
from lspipe.models.localization import LocalizationModel
from lspipe.models.path_baseline import PathBaseline
from lspipe.models.rln_cg import MEMORY, RLNCGModel

# Operations to bring the 8 corner values of a voxel to the amplitudes of its modes, and back, for each component.
GATHER, SCATTER = 16, 24
# Operations for each number of a vector. A residual takes f − K x and r·z; an iteration of CG three updates a x + b y
# and two inner products; a step of RLN-CG two scalings, three inner products and two updates x + b y. To make a
# direction K-orthogonal to an earlier one takes an inner product and two updates.
RESIDUAL, ITERATION, STEP, ORTHOGONAL = 5, 13, 12, 6


def operations(model: Model | PathBaseline, grid: tuple[int, int, int], problem: Problem) -> dict[int, float]:
    """Count the operations of predictions for one microstructure.

    Args:
        model: The model that predicts.
        grid: The number of voxels along x, y, z.
        problem: The problem that is solved.

    Returns:
        The number of operations for each number of passes in ``model.counts``; NaN for the baseline on a load path.
    """
    if isinstance(model, PathBaseline):
        return dict.fromkeys(model.counts, math.nan)
    if isinstance(model, LocalizationModel):
        # PyTorch's counter would also look for gradients.
        network, phase = deepcopy(model.network).cpu().requires_grad_(False), torch.zeros(1, *grid, dtype=torch.int32)
        first, last = (count(partial(network.iterates, phase, problem, (k,)))[0] for k in (1, model.passes))
        return {k: first + (k - 1) * (last - first) // max(model.passes - 1, 1) for k in model.counts}

    op = build_operator(problem.without_load, grid, "cpu")
    assert isinstance(op, NumbaOperator)
    c, voxels = op.constants, math.prod(grid)
    n = c.d * voxels
    # Forward and backward transforms of a number: folded dense products along each axis, or a real FFT.
    transforms = 2 * (sum(map(count_folded, grid)) if c.bases else 2.5 * math.log2(voxels))
    if c.has_full_stiffness:
        strains = c.modal_strains.reshape(-1, 8 * c.d)
        multiply = 2 * product(strains) + len(strains) * (2 * len(c.C0) - 1)
    elif len(groups := op.precisions[np.dtype(np.float32)].groups[0]):
        # The entries of two matrices are weighted, then used. One matrix multiplies the weighted rows.
        weighting = (lambda g: 3 * g * (g + 1) // 2) if c.coefficients.shape[1] == 2 else (lambda g: g)
        multiply = sum(weighting(g) + g * (2 * g - 1) for g in (len({*rows}) for rows in groups.tolist()))
    else:
        multiply = product(c.modal_matrices)
    K = n * (GATHER + SCATTER) + voxels * multiply
    green = n * transforms + c.d * (2 * c.d - 1) * voxels
    residual = K + green + RESIDUAL * n
    fields = n * GATHER + voxels * (product(c.modal_B) + product(c.stiffness_matrices))
    if not isinstance(model, RLNCGModel):
        return {
            k: fields + residual + (k > 0) * (residual + k * (K + ITERATION * n) + (k - 1) * green)
            for k in model.counts
        }

    cells, device = Cells(op, np.zeros((1, *grid), np.uint16), np.zeros_like(c.C0)), torch.device(model.device)
    features, S = count(lambda: model.network.local_solver(cells, device))
    local, _ = count(lambda: S(torch.zeros(1, c.d, *grid, device=device)))

    def descent(k: int) -> float:
        steps = 2 * k + 1
        earlier = sum(min(j, MEMORY) for j in range(steps))
        return steps * (K + STEP * n) + ORTHOGONAL * n * earlier + k * green + (k + 1) * local

    return {k: fields + 2 * residual + features + K + descent(k) for k in model.counts}


def count_folded(n: int) -> float:
    """Return the operations for each number of a folded dense product along an axis of n voxels."""
    steps = np.concatenate(pairs(n))
    return (2 * (blocks(n, derived=False)[:, 2] ** 2).sum() + 2 * (steps[:, 0] != steps[:, 1]).sum()) / n


def count(run: Callable[[], Any]) -> tuple[int, Any]:
    """Return the operations in the convolutions and matrix products of a call, and what the call returns."""

    def matrix_product(a: Any, _: Any, *, out_val: Any) -> int:
        return (8 if a.is_complex() else 2) * a.shape[-1] * out_val.numel()

    matrix_product._get_raw = True  # type: ignore[attr-defined]  # PyTorch gives it tensors, not shapes
    aten = torch.ops.aten
    unknown_to_torch: Any = {aten.mm: matrix_product, aten.bmm: matrix_product}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as counter:
        result = run()
    return counter.get_total_flops(), result


def product(matrices: Array) -> int:
    """Return the operations of a weighted sum of sparse matrices times a vector."""
    entries = abs(matrices) > 1e-10 * abs(matrices).max()  # the others are rounding
    return int(2 * entries.sum() + entries.any(axis=-1).sum())
