"""The proximal network of the paper: a V-Net with one down and one up step on a periodic cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Block(nn.Module):
    """A convolution followed by a PReLU with one slope a channel."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__()
        self.conv = conv
        self.activ = nn.PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activ(self.conv(x))


def conv3(channels_in: int, channels_out: int) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, 3, padding=1, padding_mode="circular")


class VNet(nn.Module):
    """V-Net of Kelly & Kalidindi (2021, arXiv 2102.00063): 132,801 parameters for 6 → 1 channels.

    Maps (N, channels_in, nx, ny, nz) to (N, channels_out, nx, ny, nz) for any n ≥ 8. The cell is
    padded periodically to the multiple of 4 that leaves at least 4 voxels, and cropped at the end.
    """

    def __init__(self, channels_in: int = 6, channels_out: int = 1, d1: int = 16, d2: int = 32) -> None:
        super().__init__()
        self.begin_1 = Block(conv3(channels_in, d1))
        self.begin_2 = Block(conv3(d1, d1))
        self.down = Block(nn.Conv3d(d1, d2, 2, stride=2))
        self.down_1 = Block(conv3(d2, d2))
        self.down_2 = Block(conv3(d2, d2))
        self.up = Block(nn.ConvTranspose3d(d2, d2, 2, stride=2))
        self.end_1 = Block(conv3(d1 + d2, d2))
        self.end_2 = conv3(d2, d1)
        self.flat = nn.Conv3d(d1, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[-3:]
        margin = [-(-(n + 4) // 4) * 4 - n for n in grid]
        before = [m // 2 for m in margin]
        sides = [s for m, b in zip(margin[::-1], before[::-1], strict=True) for s in (b, m - b)]
        skip = self.begin_2(self.begin_1(pad(x, sides, mode="circular")))
        coarse = self.up(self.down_2(self.down_1(self.down(skip))))
        y = self.flat(self.end_2(self.end_1(torch.cat([coarse, skip], dim=1))))
        (bx, by, bz), (nx, ny, nz) = before, grid
        return y[..., bx : bx + nx, by : by + ny, bz : bz + nz]
