"""Algebra of N displacements or N forces, each a pair of a nodal part and a mean part; see cell/autograd.py."""

from __future__ import annotations

import torch
from torch import Tensor

from lspipe.cell.autograd import Pair


def dot(x: Pair, y: Pair) -> Tensor:
    """Return the inner product x·y, (N,) float64, of a displacement and a force."""
    return (x[0] * y[0]).sum(dim=(1, 2, 3, 4), dtype=torch.float64) + (x[1] * y[1]).sum(dim=1)


def size(x: Pair) -> Tensor:
    """Return the largest absolute entry of each sample, (N,)."""
    return torch.maximum(x[0].abs().amax(dim=(1, 2, 3, 4)), x[1].abs().amax(dim=1)).detach()


def unit(x: Pair) -> Pair:
    """Divide x by its largest entry, so that no units lead out of the range of single precision."""
    largest = size(x)
    scale = 1 / torch.where(largest > 0, largest, 1)
    return per_sample(scale, x[0]) * x[0], per_sample(scale, x[1]) * x[1]


def add(x: Pair, b: Tensor, y: Pair) -> Pair:
    """Return x + b y for factors b (N,)."""
    nodal, mean = (torch.addcmul(p, per_sample(b, q), q) for p, q in zip(x, y, strict=True))
    return nodal, mean


def where(used: Tensor, x: Pair) -> Pair:
    """Return x for the samples that are used and 0 for the others, even if they hold NaN."""
    nodal, mean = (torch.where(per_sample(used, part).bool(), part, 0) for part in x)
    return nodal, mean


def per_sample(a: Tensor, like: Tensor) -> Tensor:
    """Return values (N,) in the type of ``like`` (N, …) and in a shape that broadcasts with it."""
    return a.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
