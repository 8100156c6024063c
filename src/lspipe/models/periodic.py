"""Periodic continuation of fields on a cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Sides = list[tuple[int, int]]


def wrap(x: Tensor, sides: Sides) -> Tensor:
    """(N, C, nx, ny, nz) continued by (before, after) voxels along each axis, more than once around a short one."""
    if all(max(widths) <= n for widths, n in zip(sides, x.shape[2:], strict=True)):
        return Wrap.apply(x, sides)
    for axis, (before, after) in enumerate(sides, 2):
        n = x.shape[axis]
        x = x.index_select(axis, torch.arange(-before, n + after, device=x.device) % n)
    return x


class Wrap(Function):
    """PyTorch's own padding leaves the layout channels-last, and its gradient takes as long as a convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sides: Sides) -> Tensor:
        ctx.sides = sides
        for axis, (before, after) in enumerate(sides, 2):
            n = x.shape[axis]
            x = torch.cat([x.narrow(axis, n - before, before), x, x.narrow(axis, 0, after)], axis)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        g = g.clone()
        for axis, (before, after) in enumerate(ctx.sides, 2):
            n = g.shape[axis] - before - after
            first, g, last = g.split([before, n, after], axis)
            g.narrow(axis, n - before, before).add_(first)
            g.narrow(axis, 0, after).add_(last)
        return g, None
