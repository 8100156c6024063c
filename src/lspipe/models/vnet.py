"""The proximal network of the paper: a V-Net with one down and one up step on a periodic cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, pad


class Block(nn.Module):
    """A convolution followed by a PReLU with one slope a channel."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__()
        self.conv = conv
        self.activ = nn.PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activ(self.conv(x))


def periodic(channels_in: int, channels_out: int) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, 3, padding=1, padding_mode="circular")


class VNet(nn.Module):
    """V-Net of Kelly & Kalidindi (2021, arXiv 2102.00063): 132,801 parameters for 6 → 1 channels.

    Maps (N, channels_in, nx, ny, nz) to (N, channels_out, nx, ny, nz) for any n ≥ 8. The cell is
    padded periodically to the multiple of 4 that adds at least 4 voxels, and cropped at the end. What
    would be cropped is not computed: the last two 3³ convolutions run on the cell and 2 voxels around
    it. The very last two layers have no activation between them and are applied as one convolution.
    """

    def __init__(self, channels_in: int = 6, channels_out: int = 1, d1: int = 16, d2: int = 32) -> None:
        super().__init__()
        self.begin_1 = Block(periodic(channels_in, d1))
        self.begin_2 = Block(periodic(d1, d1))
        self.down = Block(nn.Conv3d(d1, d2, 2, stride=2))
        self.down_1 = Block(periodic(d2, d2))
        self.down_2 = Block(periodic(d2, d2))
        self.up = Block(nn.ConvTranspose3d(d2, d2, 2, stride=2))
        self.end_1 = Block(nn.Conv3d(d1 + d2, d2, 3))
        self.end_2: Any = nn.Conv3d(d2, d1, 3)  # whose bias torch declares optional
        self.flat = nn.Conv3d(d1, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-3:]
        margin = [-(-(n + 4) // 4) * 4 - n for n in grid]
        sides = [side for m in margin[::-1] for side in (m // 2, m - m // 2)]
        skip = self.begin_2(self.begin_1(pad(x, sides, mode="circular")))
        coarse = self.up(self.down_2(self.down_1(self.down(skip))))
        bx, by, bz = (slice(m // 2 - 2, m // 2 + n + 2) for m, n in zip(margin, grid, strict=True))
        y = self.end_1(torch.cat([coarse, skip], dim=1)[..., bx, by, bz])
        flat = self.flat.weight[:, :, 0, 0, 0]
        weight = torch.einsum("of,fixyz->oixyz", flat, self.end_2.weight)
        bias = self.flat(self.end_2.bias[:, None, None, None])[:, 0, 0, 0]
        return conv3d(y, weight, bias)
