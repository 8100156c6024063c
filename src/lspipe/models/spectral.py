"""The layers of Fourier neural operators (Li et al. 2021, arXiv 2010.08895)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class SpectralConvolution(nn.Module):
    """A convolution of periodic fields, whose kernel has the Fourier coefficients W(k) for frequencies |k| < modes.

    A grid has frequencies below its Nyquist frequency, |k| < n/2 along each axis. W acts on those, and a field has no
    others afterwards. So the weights give the same function on finer grids, odd or even. The coefficients come from
    dense products with the waves of each axis: most frequencies are left out, and 31 voxels, a prime number, take an
    FFT 20 times as long on a CPU.

    Args:
        width: The number of channels.
        modes: The number of frequencies along an axis that are not negative.
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        # Real and imaginary parts, so that files and the number of parameters have real numbers. Negative frequencies
        # along z follow from those of x and y, for the fields are real.
        shape = (2 * modes - 1, 2 * modes - 1, modes, width, width, 2)
        self.W = nn.Parameter(torch.randn(shape) / math.sqrt(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() if x.dtype == torch.bfloat16 else x  # in training it may be bf16
        kx, ky, kz = (min(self.modes, (n + 1) // 2) for n in x.shape[2:])
        Fx, Fy, Fz = (waves(n, k, x) for n, k in zip(x.shape[2:], (kx, ky, kz), strict=True))
        Fz = Fz[kz - 1 :]
        middle = self.modes - 1
        W = torch.view_as_complex(self.W[middle - kx + 1 : middle + kx, middle - ky + 1 : middle + ky, :kz].to(x.dtype))

        along_z = torch.view_as_real(Fz.T.contiguous()).flatten(1)
        X = torch.view_as_complex((x @ along_z).unflatten(-1, (kz, 2)))
        X = torch.einsum("ax,nixbc->niabc", Fx, Fy @ X)
        Y = torch.einsum("niabc,abcio->noabc", X, W)
        y = Fy.mH @ torch.einsum("ax,noabc->noxbc", Fx.conj(), Y)
        Fz = Fz * torch.where(torch.arange(kz, device=x.device) > 0, 2, 1)[:, None] / math.prod(x.shape[2:])
        back = torch.stack([Fz.real, Fz.imag], dim=1).flatten(0, 1)  # the real part of y times the conjugate of Fz
        return torch.view_as_real(y).flatten(-2) @ back


def waves(n: int, count: int, like: Tensor) -> Tensor:
    """Return exp(−2πi k x/n) for k = 1 − count … count − 1 and x = 0 … n − 1, complex (2·count − 1, n)."""
    k = torch.arange(1 - count, count, device=like.device)
    turns = torch.outer(k, torch.arange(n, device=like.device)).remainder(n).to(like.dtype) / n
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


class Block(nn.Module):
    """x ↦ GELU(K v + L v + g): v is the normalized x, K a spectral and L a pointwise convolution, g an input or 0."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.spectral = SpectralConvolution(width, modes)
        self.local = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor, g: Tensor | float = 0.0) -> Tensor:
        v = self.norm(x)
        return gelu(self.spectral(v) + self.local(v) + g)


class Operator(nn.Module):
    """The layers before, between and after: inputs → normalized → lifted to ``width`` → blocks → projected.

    Args:
        inputs: The number of channels of the input.
        outputs: The number of channels of the output.
        width: The number of channels of the blocks.
        modes: As for ``SpectralConvolution``.
        layers: The number of blocks.
        hidden: The number of channels between the two pointwise layers of the projection.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int = 24, modes: int = 8, layers: int = 2, hidden: int = 48
    ) -> None:
        super().__init__()
        self.lift = nn.Sequential(nn.GroupNorm(1, inputs), nn.Conv3d(inputs, width, 1))
        self.blocks = nn.ModuleList([Block(width, modes) for _ in range(layers)])
        self.project = nn.Sequential(nn.Conv3d(width, hidden, 1), nn.GELU(), nn.Conv3d(hidden, outputs, 1))

    def forward(self, fields: Tensor) -> Tensor:
        """Map fields (N, inputs, nx, ny, nz) to fields (N, outputs, nx, ny, nz). Each block sees the lifted inputs."""
        lifted: Tensor = self.lift(fields)
        x = lifted
        for block in self.blocks:
            x = block(x, lifted)
        projected: Tensor = self.project(x)
        return projected
