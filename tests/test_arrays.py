"""Periodic arrays of spheres and fibres against published series.

The surfaces of voxels are too rough: the relative error falls with the voxels along an edge, and is extrapolated.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import sphere

from lspipe import Conductor, Isotropic, solve


def errors(cell, compute, series, sizes):
    """Relative errors for each number of voxels along an edge, and their limit."""
    values = []
    for n in sizes:
        phase = cell(n)
        values.append(compute(n, phase) / series(phase.mean()) - 1)
    return np.array(values), np.polyfit(1 / np.array(sizes), values, 1)[1]


def spheres(f):
    """Return the function that makes cells of n³ voxels with one sphere of this volume fraction."""
    return lambda n: sphere(n, n * (6 * f / np.pi) ** (1 / 3))


@pytest.mark.parametrize(("k", "f"), [(10.0, 0.2), (0.1, 0.3)])
def test_conduction_of_spheres_in_a_simple_cubic_array(k, f):
    """McPhedran & McKenzie (1978); the coefficients are those of Sangani & Acrivos (1983)."""

    def series(f):
        L1, L2, L3, L4, L5 = ((k - 1) / (k + (n + 1) / n) for n in (1, 3, 5, 7, 9))
        pairs = 1.3047 * L2 * f ** (10 / 3) * (1 + 0.2305 * L3 * f ** (11 / 3)) / (1 - 0.4054 * L2 * f ** (7 / 3))
        more = 0.07231 * L3 * f ** (14 / 3) + 0.1526 * L4 * f**6 + 0.0105 * L5 * f ** (22 / 3)
        return 1 - 3 * f / (-1 / L1 + f + pairs + more)

    def compute(n, phase):
        return solve(phase, [Conductor(1.0), Conductor(k)], [1, 0, 0]).stress[0, 0].mean()

    each, limit = errors(spheres(f), compute, series, (16, 24, 32, 48))
    assert abs(each[-1]) < 0.02
    assert abs(limit) < 0.006


@pytest.mark.parametrize(("k", "f"), [(10.0, 0.5), (0.1, 0.3)])
def test_conduction_of_fibres_in_a_hexagonal_array(k, f):
    """Perrins, McKenzie & McPhedran (1979), across the fibres; on voxels that are not cubes."""
    edge = np.sqrt(3)

    def cell(n):
        x, y = (np.arange(n) + 0.5) / n, (np.arange(2 * n) + 0.5) / (2 * n) * edge
        centres = *((a, b) for a in (0, 1) for b in (0, edge)), (0.5, edge / 2)
        distances = [np.add.outer((x - a) ** 2, (y - b) ** 2) for a, b in centres]
        return (np.min(distances, axis=0) < edge * f / (2 * np.pi))[:, :, None]

    def series(f):
        T = (1 + k) / (1 - k)
        return 1 - 2 * f / (T + f - 0.075422 * T * f**6 / (T**2 - 1.060283 * f**12) - 0.000076 * f**12 / T)

    def compute(n, phase):
        arguments = [Conductor(1.0), Conductor(k)], {"spacing": (1 / n, edge / (2 * n), 1)}
        stress = [solve(phase, arguments[0], e, **arguments[1]).stress[0] for e in np.eye(3)[:2]]
        return np.array([s[i].mean() for i, s in enumerate(stress)])

    each, limit = errors(cell, compute, series, (32, 64, 128))
    assert_allclose(each[-1], 0, atol=0.008)
    assert_allclose(limit, 0, atol=0.006)


def test_elasticity_of_rigid_spheres_in_a_simple_cubic_array():
    """Nunan & Keller (1984), by the series of Zuzovsky, Adler & Brenner (1983); the matrix hardly changes volume."""
    matrix, rigid = Isotropic(3.0, 0.499), Isotropic(3000.0, 0.3)

    def series(f):
        """Shear modulus along the axes, and between them, over that of the matrix."""
        a, b = 0.2857, -0.04655
        dilute = 1 - 60 * b, 1 + 40 * b
        return 1 + 2.5 * f / (1 - np.array(dilute) * f + np.array([12, -8]) * a * f ** (5 / 3))

    def compute(n, phase):
        along = solve(phase, [matrix, rigid], [1, -1, 0, 0, 0, 0], tol=1e-3).stress[0, 0].mean()
        between = solve(phase, [matrix, rigid], [0, 0, 0, 1, 0, 0], tol=1e-3).stress[0, 3].mean()
        return np.array([along, between]) / (2 * matrix.stiffness[3, 3])

    each, limit = errors(spheres(0.1), compute, series, (24, 32, 48))
    assert_allclose(each[-1], 0, atol=0.05)
    assert_allclose(limit, 0, atol=0.01)
