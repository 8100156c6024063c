"""The proximal network of the paper: a V-Net with one down and one up step on a periodic cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv3d, conv_transpose3d, pad, prelu

from lspipe.models.periodic import wrap


class Slope(Function):
    """PReLU. The gradient that PyTorch has takes three times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        slope = slope.to(x.dtype)
        ctx.save_for_backward(x, slope)
        return prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(g, x, 0)
        below = g - above
        return torch.addcmul(above, below, slope[:, None, None, None]), below.mul_(x).sum((0, 2, 3, 4))


class PReLU(nn.PReLU):
    def forward(self, x: Tensor) -> Tensor:
        return Slope.apply(x, self.weight)


class Periodic(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(wrap(x, [(1, 1)] * 3))


class Doubling(nn.ConvTranspose3d):
    """Doubles the resolution. The bias is apart, since its gradient would take as long as all the rest."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        bias: Any = self.bias  # which torch declares optional
        y = conv_transpose3d(x, self.weight, stride=self.stride)
        return y + bias.to(y.dtype)[:, None, None, None]


class Block(nn.Module):
    """A convolution followed by a PReLU with one slope a channel."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__()
        self.conv = conv
        self.activ = PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activ(self.conv(x))


class VNet(nn.Module):
    """V-Net of Kelly & Kalidindi (2021, arXiv 2102.00063): 132,801 parameters for 6 → 1 channels.

    Maps (N, channels_in, nx, ny, nz) to (N, channels_out, nx, ny, nz) for any n ≥ 8. The cell is
    padded periodically to the multiple of 4 that adds at least 4 voxels, and cropped at the end. What
    would be cropped is not computed: the last two 3³ convolutions run on the cell and 2 voxels around
    it. The very last two layers have no activation between them and are one convolution 3³ with one channel, to which
    vector units are idle: it is applied as nine along z, whose results are shifted along x and y and summed.
    """

    def __init__(self, channels_in: int = 6, channels_out: int = 1, d1: int = 16, d2: int = 32) -> None:
        super().__init__()
        self.begin_1 = Block(Periodic(channels_in, d1, 3))
        self.begin_2 = Block(Periodic(d1, d1, 3))
        self.down = Block(nn.Conv3d(d1, d2, 2, stride=2))
        self.down_1 = Block(Periodic(d2, d2, 3))
        self.down_2 = Block(Periodic(d2, d2, 3))
        self.up = Block(Doubling(d2, d2, 2, stride=2))
        self.end_1 = Block(nn.Conv3d(d1 + d2, d2, 3))
        self.end_2: Any = nn.Conv3d(d2, d1, 3)  # whose bias torch declares optional
        self.flat = nn.Conv3d(d1, channels_out, 1)
        # In this layout a CPU takes a sixth less time.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-3:]
        margin = [-(-(n + 4) // 4) * 4 - n for n in grid]
        sides = [(m // 2, m - m // 2) for m in margin]
        skip = self.begin_2(self.begin_1(wrap(x, sides)))
        coarse = self.up(self.down_2(self.down_1(self.down(skip))))
        y = self.end_1(pad(torch.cat([coarse, skip], dim=1), [2 - side for pair in sides[::-1] for side in pair]))
        flat = self.flat.weight[:, :, 0, 0, 0]
        weight = torch.einsum("of,fixyz->xyoiz", flat, self.end_2.weight)
        bias = self.flat(self.end_2.bias[:, None, None, None])
        nx, ny, _ = grid
        z = conv3d(y, weight.flatten(0, 2)[:, :, None, None]).unflatten(1, weight.shape[:3])
        return bias + sum(z[:, i, j, :, i : i + nx, j : j + ny] for i in range(3) for j in range(3))
