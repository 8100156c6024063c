"""Periodic continuation of fields on a cell."""

from __future__ import annotations

import torch
from torch import Tensor


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
