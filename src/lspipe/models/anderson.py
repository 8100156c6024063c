"""Anderson's acceleration of fixed-point iterations (1965), for each sample of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

MEMORY = 6  # largest number of iterates in a mixture
REGULARIZATION = 1e-4  # Weight in the least squares. A larger value gives less weight to iterates with large residuals.


def anderson(
    F: Callable[[Tensor], Tensor], x: Tensor, passes: int, regularization: float = REGULARIZATION
) -> Iterator[Tensor]:
    """Look for x = F(x).

    The next iterate is Σ α_i F(x_i) over the last MEMORY iterates x_i. The weights α, of sum 1, minimize
    ‖Σ α_i g_i‖² + regularization·Σ α_i² ‖g_i‖² for the residuals g_i = F(x_i) − x_i.

    Args:
        F: The function, of fields (N, …) into fields (N, …), which treats each sample by itself.
        x: The first iterate, (N, …).
        passes: The number of evaluations of F.
        regularization: Weight of the regularization. It does not depend on the scale of the fields.

    Yields:
        After each evaluation, F(x_i) of the iterate with the smallest residual so far, for each sample, (N, …).
    """
    recent: list[tuple[Tensor, Tensor]] = []
    best, least = x, torch.full_like(x.flatten(1)[:, 0], torch.inf)
    for _ in range(passes):
        f = F(x)
        g = (f - x).flatten(1)
        size = g.norm(dim=1)
        # A sample that has no finite residual yields its NaN, never the first iterate.
        is_better = ((size < least) | least.isinf()).view(-1, *[1] * (x.ndim - 1))
        best, least = torch.where(is_better, f, best), torch.fmin(size, least)
        yield best
        recent = [*recent, (f, g)][-MEMORY:]
        fs, G = torch.stack([f for f, _ in recent], dim=1), torch.stack([g for _, g in recent], dim=1)
        H = G @ G.mT
        H = H + torch.diag_embed(regularization * H.diagonal(dim1=1, dim2=2) + torch.finfo(x.dtype).tiny)
        alpha = torch.linalg.solve(H, torch.ones_like(H[..., 0]))
        x = torch.einsum("nk,nk...->n...", alpha / alpha.sum(dim=1, keepdim=True), fs)
