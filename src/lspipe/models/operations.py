"""Floating-point operations that a prediction takes: a multiplication and an addition are two.

They do not depend on the device: counted is what a CPU does. There the widest convolution is Winograd's, with half the
products, and K is sparse; a GPU may do more.

Of networks these are the convolutions, as PyTorch counts them where they are called, each pass being as the first; and
not the activations, the sums of Winograd's transforms, and the like. Of the solver they are an estimate by the formulas
below, of all that ``predict`` does, stress and bound included. It counts voxels, not the nodes on opposite faces, and
leaves out the residuals computed anew in double precision within a long iteration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from lspipe.cell.autograd import Cells
from lspipe.cell.operator import Constants
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.problem import Problem
from lspipe.models.files import Model
from lspipe.models.localization import LocalizationModel
from lspipe.models.rln_cg import MEMORY, RLNCGModel

GATHER, SCATTER = 24, 32  # corner values of a voxel ↔ amplitudes of its modes, for a component
# For a number of a vector: f − K x and r·z; an iteration of CG (three updates a x + b y, two inner products); a step of
# RLN-CG (two scalings, three inner products, two updates x + b y), and making its direction K-orthogonal to an earlier
# one (an inner product, two updates).
RESIDUAL, ITERATION, STEP, ORTHOGONAL = 5, 13, 12, 6


def operations(model: Model, grid: tuple[int, int, int], problem: Problem) -> dict[int, float]:
    """Operations for one microstructure of nx×ny×nz voxels, by the numbers of passes in ``model.counts``."""
    if isinstance(model, LocalizationModel):
        # Without gradients, which PyTorch's counter would look for.
        network, phase = deepcopy(model.network).cpu().requires_grad_(False), torch.zeros(1, *grid, dtype=torch.int32)
        one, _ = _counted(lambda: network(phase, 1))
        return {k: float(k * one) for k in model.counts}

    op = NumbaOperator(Constants(problem.materials, grid, problem.spacing, problem.scheme))
    own, d, voxels = op.precisions[np.dtype(np.float32)], op.constants.d, math.prod(grid)
    n = d * voxels
    # There and back, for a number: a dense product along each axis, or a real FFT.
    transforms = 2 * (2 * sum(grid) if own.bases else 2.5 * math.log2(voxels))
    K = n * (GATHER + SCATTER) + voxels * _product(own.matrix)
    green = n * transforms + d * (2 * d - 1) * own.symbol.shape[1]
    residual = K + green + RESIDUAL * n
    fields = n * GATHER + voxels * (_product(own.B) + _product(own.stiffness))
    if not isinstance(model, RLNCGModel):
        return {
            k: fields + residual + (k > 0) * (residual + k * (K + ITERATION * n) + (k - 1) * green)
            for k in model.counts
        }

    cells = Cells(op, np.zeros((1, *grid), np.uint16), np.zeros_like(op.constants.C0))
    device = torch.device(model.device)
    features, S = _counted(lambda: model.network.local(cells, device))
    local, _ = _counted(lambda: S(torch.zeros(1, d, *grid, device=device)))

    def descent(k: int) -> float:
        steps = 2 * k + 1
        earlier = sum(min(j, MEMORY) for j in range(steps))
        return steps * (K + STEP * n) + ORTHOGONAL * n * earlier + k * green + (k + 1) * local

    return {k: fields + 2 * residual + features + K + descent(k) for k in model.counts}


def _counted(run: Callable[[], Any]) -> tuple[int, Any]:
    """The operations of a call, and what it returns."""

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return conv_flop_count(x, weight, out_shape)

    ours: Any = {torch.ops.aten.mkldnn_convolution: convolution}  # which it does not know
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=ours) as counter:
        result = run()
    return counter.get_total_flops(), result


def _product(matrix: tuple[Any, ...]) -> int:
    """Of a sparse matrix with a vector: two for each entry, and for three of a row one with their weight."""
    entries, _, rows = matrix
    return 2 * len(entries) + int((-(-np.diff(rows) // 3)).sum())
