"""The two ways to apply the Green operator are one map."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lspipe.cell import transform as module
from lspipe.cell.element import green, hexahedron
from lspipe.cell.material import isotropic_stiffness
from lspipe.cell.transform import hartley, transform

GRIDS = [(5, 4, 3), (8, 6, 7), (2, 9, 1), (1, 1, 1)]


def fields(grid, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((3, *grid)).astype(dtype)


@pytest.fixture(params=GRIDS, ids=str)
def ways(request, monkeypatch):
    """Dense products and FFT on one grid."""
    element = hexahedron("bbar", (1, 0.7, 1.3))
    symbol = green(element.stiffness(isotropic_stiffness(2, 1)), request.param)
    maps = []
    for dense in (99, 0):
        monkeypatch.setattr(module, "DENSE", dense)
        maps.append(transform(symbol, request.param))
    return request.param, maps


def test_products_equal_fft(ways):
    grid, (products, by_fft) = ways
    assert_allclose(products(fields(grid)), by_fft(fields(grid)), atol=1e-13)


def test_single_precision_is_that_of_its_argument(ways):
    grid, maps = ways
    for apply in maps:
        single = apply(fields(grid, np.float32))
        assert single.dtype == np.float32
        assert_allclose(single, apply(fields(grid)), atol=1e-5)


def test_argument_is_left_alone(ways):
    grid, maps = ways
    for apply in maps:
        apply(r := fields(grid))
        assert_allclose(r, fields(grid), rtol=0)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_hartley_matrix_is_its_own_inverse(n):
    assert_allclose(hartley(n) @ hartley(n), np.eye(n), atol=1e-14)
