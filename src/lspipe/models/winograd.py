"""Winograd's convolution F(4, 3) along one axis: 6 products where a direct one takes 12.

Four neighbours of a convolution with three weights w on six inputs x are Aᵀ((G w) ⊙ (Bᵀ x)). Here a number of w, x and
of the products is a convolution over the other two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv3d, pad

BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
AT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / torch.tensor(24).double()


def times(matrix: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Matrix times the vector of the parts."""
    rows = []
    for row in matrix.tolist():
        (first, part), *others = [(a, part) for a, part in zip(row, parts, strict=True) if a]
        rows.append(part * first)
        for a, part in others:
            rows[-1].add_(part, alpha=a)
    return rows


class Winograd(Function):
    """Convolution (N, C, X, Y, Z) → (N, O, X − 2, Y − 2, Z − 2) with weights (O, C, 3, 3, 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        n = x.shape[2] - 2
        ctx.missing = -n % 4  # in the last four
        x = pad(x, (0, 0, 0, 0, 0, ctx.missing))
        v = times(BT, [x[:, :, k : k + n : 4] for k in range(6)])
        u = torch.einsum("jk,oikyz->joiyz", G.to(weight), weight)[:, :, :, None]
        ctx.save_for_backward(u, *v)
        y = times(AT, [conv3d(a, b) for a, b in zip(v, u, strict=True)])
        return torch.stack(y, 3).flatten(2, 3)[:, :, :n]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        u, *v = ctx.saved_tensors
        g = pad(g, (0, 0, 0, 0, 0, ctx.missing))
        rest = (None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1, [True, True, False])
        products = times(AT.T, g.unflatten(2, (-1, 4)).unbind(3))
        pairs = [torch.ops.aten.convolution_backward(*p, *rest) for p in zip(products, v, u, strict=True)]
        *four, fifth, sixth = times(BT.T, [dv for dv, _, _ in pairs])
        dx = pad(torch.stack(four, 3).flatten(2, 3), (0, 0, 0, 0, 0, 2))
        dx[:, :, 4::4] += fifth
        dx[:, :, 5::4] += sixth
        du = torch.stack([du[:, :, 0] for _, du, _ in pairs])
        return dx[:, :, : dx.shape[2] - ctx.missing], torch.einsum("jk,joiyz->oikyz", G.to(g), du)


class WinogradConv3d(nn.Conv3d):
    """A 3³ convolution for a CPU. There direct ones of many channels run at the speed of the processor's arithmetic, so
    that fewer products are faster. cuDNN chooses for itself, and bfloat16 would lose digits."""

    def forward(self, x: Tensor) -> Tensor:
        bias: Any = self.bias  # which torch declares optional
        if x.device.type != "cpu" or x.dtype != self.weight.dtype:
            return super().forward(x)
        return Winograd.apply(x, self.weight) + bias[:, None, None, None]
