"""SOAP: a constant gradient, rotated coordinates, and Adam for weights that have no rows."""

import numpy as np
import pytest
import torch
from scipy.linalg import polar
from scipy.stats import ortho_group

from lspipe.optimizer import Soap

RATE = 1e-2


def descend(optimizer, weight, gradients):
    for gradient in gradients:
        weight.grad = torch.tensor(gradient).view(weight.shape)
        optimizer.step()
    return weight.detach().flatten(1).numpy() if weight.ndim > 1 else weight.detach().numpy()


@pytest.mark.parametrize("shape", [(4, 2, 1, 2, 3), (6, 1, 1, 2, 2), (3, 2)])
def test_a_constant_gradient_gives_steps_along_its_orthogonal_factor(shape):
    """Adam makes each singular value 1, because in its bases the gradient is the diagonal matrix of them."""
    gradient = np.random.default_rng(0).normal(size=(shape[0], np.prod(shape[1:])))
    weight = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    changed = descend(Soap([weight], lr=RATE), weight, [gradient] * 26)
    np.testing.assert_allclose(changed, -25 * RATE * polar(gradient)[0], rtol=0, atol=1e-6)


def test_rotated_coordinates_give_rotated_weights():
    rng = np.random.default_rng(0)
    left, right = ortho_group.rvs(5, size=2, random_state=0)
    gradients = rng.normal(size=(25, 5, 5))
    ends = []
    for shown in (gradients, left @ gradients @ right):
        weight = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
        ends.append(descend(Soap([weight], lr=RATE), weight, shown))
    np.testing.assert_allclose(ends[1], left @ ends[0] @ right, rtol=0, atol=1e-9)
    assert np.abs(ends[0]).max() > RATE


@pytest.mark.parametrize("shape", [(7,), (1, 3, 1, 1, 2), (2, 3000)])
def test_weights_without_rows_and_large_ones_follow_adam(shape):
    """The first gradient only sets the bases, so Adam begins with the second one."""
    gradients = np.random.default_rng(0).normal(size=(12, *shape))
    weights = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    soap = descend(Soap(weights[:1], lr=RATE), weights[0], gradients)
    adam = descend(torch.optim.Adam(weights[1:], lr=RATE), weights[1], gradients[1:])
    np.testing.assert_allclose(soap, adam, rtol=1e-12)
