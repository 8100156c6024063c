"""The optimizers of training, and the decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

LAST_RATE = 1e-8  # the learning rate at which the cosine decay ends
BETAS = 0.9, 0.999  # decay of the running means of the gradient and of its square, as in Adam
DECAY = 0.95  # decay of the running means of the covariances
EVERY = 10  # steps from one turn of the bases to the next
LARGEST = 2048  # rows or columns of a kernel that SOAP turns


class Soap(torch.optim.Optimizer):
    """SOAP (Vyas et al. 2025, arXiv 2409.11321): Adam in the eigenbases of the covariances of the gradient.

    A kernel is a matrix G with a row for each entry of its first axis. Its covariances are the running means of G·Gᵀ
    and Gᵀ·G. Weights without rows, such as biases, those of one row, and kernels with more than LARGEST rows or
    columns, such as those of Fourier layers, follow Adam.

    Args:
        parameters: The weights.
        lr: The learning rate, as for Adam.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change the weights. The first gradient only sets the bases, in the order of falling eigenvalues."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, weight.grad, group["lr"])

    def _change(self, weight: Tensor, gradient: Tensor, lr: float) -> None:
        is_kernel = weight.ndim > 1 and len(weight) > 1 and max(len(weight), weight[0].numel()) <= LARGEST
        state = self.state[weight]
        gradient = gradient.flatten(1) if is_kernel else gradient
        covariances = [gradient @ gradient.T, gradient.T @ gradient] if is_kernel else []
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            state["covariances"] = covariances
            state["bases"] = [torch.linalg.eigh(covariance)[1].flip(1) for covariance in covariances]
            return
        state["step"] += 1
        for mean, covariance in zip(state["covariances"], covariances, strict=True):
            mean.lerp_(covariance, 1 - DECAY)
        if state["step"] % EVERY == 0:  # A power iteration keeps the order of the bases.
            pairs = zip(state["covariances"], state["bases"], strict=True)
            state["bases"] = [torch.linalg.qr(covariance @ basis)[0] for covariance, basis in pairs]
        first, second = BETAS
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(rotate(gradient, state["bases"]).square(), 1 - second)
        mean = rotate(state["mean"], state["bases"]) / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        change = rotate(mean / (square.sqrt() + 1e-8), [basis.T for basis in state["bases"]])
        weight.sub_(lr * change.view(weight.shape))


OPTIMIZERS = {"adam": torch.optim.Adam, "soap": Soap}


def rotate(matrix: Tensor, bases: list[Tensor]) -> Tensor:
    """Return Q₁ᵀ·G·Q₂ for the bases Q₁, Q₂ of a matrix G; G itself without bases."""
    for basis in bases:
        matrix = torch.tensordot(matrix, basis, dims=([0], [0]))
    return matrix


def cosine(learning_rate: float, done: float) -> float:
    """Return the learning rate after the part ``done`` of the steps, 0 to 1."""
    return LAST_RATE + (learning_rate - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
