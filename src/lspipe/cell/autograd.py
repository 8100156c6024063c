"""K and K⁰⁻¹ as differentiable functions of tensors, for networks that work inside the solver.

Both maps are self-adjoint: the gradient of each is the map itself, applied by the operator's engine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lspipe.cell import transform
from lspipe.cell.operator import Array, Operator, Vector

Pair = tuple[Tensor, Tensor]


class SelfAdjoint(Function):
    @staticmethod
    def forward(ctx: Any, apply: Callable[[Tensor, Tensor], Pair], nodal: Tensor, mean: Tensor) -> Pair:
        ctx.map = apply
        return apply(nodal, mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, nodal: Tensor, mean: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, *ctx.map(nodal, mean)


class Cells:
    """The operators of N cells.

    A displacement or a force has a nodal part (N, d, nx, ny, nz) float32 or float64, with each node once, and a mean
    part (N, strains) float64; cell/operator.py describes them.

    Args:
        op: Engine for the problem and the grid of the cells.
        phase: (N, nx, ny, nz).
        compliance: K⁰⁻¹ for the mean part, (strains, strains), as in System.
    """

    def __init__(self, op: Operator, phase: NDArray[np.integer], compliance: Array) -> None:
        self.op, self.phase, self.compliance = op, phase, compliance
        batches = [slice(i, i + op.batch) for i in range(0, len(phase), op.batch)]
        self.batches = [(batch, op.voxels(phase[batch])) for batch in batches]
        # Threads keep their buffers, so the pool is kept. A single batch runs in the thread of the caller.
        threads = min(op.threads, len(batches))
        self.each: Callable[..., Any] = map if threads == 1 else ThreadPoolExecutor(threads).map

    def apply_stiffness(self, u: Tensor, e: Tensor) -> Pair:
        """Return the nodal forces and the volume integral of the stress for a displacement and a macroscopic strain."""
        return SelfAdjoint.apply(partial(self._map, transform.extend, self.op.apply_stiffness), u, e)

    def apply_green(self, f: Tensor, s: Tensor) -> Pair:
        """Return K⁰⁻¹ of nodal forces and a volume integral of the stress."""

        def apply(_: Any, r: Vector, z: Vector) -> None:
            self.op.apply_green(r, self.compliance, z)

        return SelfAdjoint.apply(partial(self._map, _write_force, apply), f, s)

    def _map(self, write: Callable[..., Any], apply: Callable[..., Any], nodal: Tensor, mean: Tensor) -> Pair:
        """Apply an operator to all batches; ``write`` puts a nodal part into the form of the engine."""
        nodal, mean = nodal.detach(), mean.detach()
        out = torch.empty_like(nodal), torch.empty_like(mean)
        dtype = np.float32 if nodal.dtype == torch.float32 else np.float64

        def batch(samples: slice, voxels: Any) -> None:
            x, y = (self.op.empty(len(nodal[samples]), dtype) for _ in range(2))
            write(nodal[samples], self.op.nodes(x))
            x.mean[:] = mean[samples]
            apply(voxels, x, y)
            nodes = torch.as_tensor(self.op.nodes(y))
            out[0][samples], out[1][samples] = nodes[..., :-1, :-1, :-1], torch.as_tensor(y.mean)

        list(self.each(batch, *zip(*self.batches, strict=True)))
        return out


def _write_force(f: Any, out: Any) -> None:
    """Write a force to ``out``, which is 0 on the nodes 0 … n of each axis."""
    out[..., :-1, :-1, :-1] = f
