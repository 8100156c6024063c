"""Periodic continuation of fields on a cell, and convolutions of fields."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv3d

SMALL = 20480  # values in C·nx·ny up to which PyTorch convolves a single field without oneDNN


def wrap(x: Tensor, sides: list[tuple[int, int]]) -> Tensor:
    """Continue a periodic field beyond the cell.

    Args:
        x: The field, (N, C, nx, ny, nz).
        sides: The number of voxels to add before and after the cell along each axis, which may exceed the cell.

    Returns:
        The continued field.
    """
    # PyTorch's own circular padding loses the layout channels-last, which makes the next convolution slower.
    for axis, (before, after) in enumerate(sides, 2):
        n = x.shape[axis]
        start, end = x.narrow(axis, n - before % n, before % n), x.narrow(axis, 0, after % n)
        x = torch.cat([start, *[x] * (before // n + 1 + after // n), end], axis)
    return x


def convolve(x: Tensor, W: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Convolve fields where the kernel lies inside them.

    Args:
        x: The fields, (N, C, nx, ny, nz).
        W: The kernel, (C_out, C, kx, ky, kz).
        bias: The number that is added to each output channel, (C_out).
        dilation: The distance of neighbours in the kernel, in voxels.

    Returns:
        The convolved fields, smaller by (k − 1)·dilation along each axis.
    """
    if len(x) != 1 or x[..., 0].numel() > SMALL or x.device.type != "cpu":
        return conv3d(x, W, bias, dilation=dilation)
    # Without oneDNN, a convolution takes two to four times as long. Two halves that overlap are a batch of two.
    lost = (W.shape[2] - 1) * dilation
    n = x.shape[2] - lost
    half = -(-n // 2)
    halves = torch.cat([x[:, :, : half + lost], x[:, :, n - half :]])
    first, second = conv3d(halves, W, bias, dilation=dilation).split(1)
    return torch.cat([first, second[:, :, 2 * half - n :]], 2)
