"""Generated polycrystals: Voronoi cells in the periodic metric, and the statistics of their orientations."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from lspipe import generate
from lspipe.microstructure import Polycrystal
from lspipe.microstructure.generator import Grid
from lspipe.microstructure.polycrystal import voronoi


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((7, 6, 5), (1, 1, 1)), ((6, 6, 6), (1.0, 2.5, 0.4)), ((9, 1, 8), (1, 7, 2)), ((1, 1, 5), (1, 1, 1))],
)
def test_a_voxel_belongs_to_the_nearest_point(shape, spacing):
    points = np.random.default_rng(1).random((2, sum(n > 1 for n in shape)))
    nearest = np.full(shape, np.inf), np.zeros(shape, int)
    for voxel in np.ndindex(shape):
        x = np.array([(i + 0.5) / n for i, n in zip(voxel, shape, strict=True) if n > 1])
        edges = np.array([n * h for n, h in zip(shape, spacing, strict=True) if n > 1])
        away = np.abs(x - points)
        distances = np.linalg.norm(edges * np.minimum(away, 1 - away), axis=1)
        nearest[1][voxel] = distances.argmin()
    np.testing.assert_array_equal(voronoi(Grid(shape, spacing), 2, np.random.default_rng(1)), nearest[1])


@pytest.mark.parametrize(("shape", "grains"), [((6, 6, 6), 108), ((10, 10, 1), 50), ((1, 1, 1), 1), ((2, 1, 1), 1)])
def test_every_grain_has_a_voxel(shape, grains):
    made = generate(3, shape, 0, generator=Polycrystal(grains))
    assert made.phase.dtype == np.uint16
    for phase in made.phase:
        np.testing.assert_array_equal(np.unique(phase), np.arange(grains))


def test_orientations_are_uniform():
    """Moments of the Haar measure, its mean angle π/2 + 2/π, and the mean disorientation of cubic crystals, 40.74°.

    The last one is in J. K. Mackenzie, Biometrika 45 (1958) 229."""
    orientation = generate(2, 20, 0, generator=Polycrystal(4000)).orientation
    np.testing.assert_allclose(np.linalg.norm(orientation, axis=-1), 1)
    one, other = (Rotation.from_quat(q, scalar_first=True) for q in orientation)
    R = one.as_matrix()
    np.testing.assert_allclose(R.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose((R**2).mean(axis=0), 1 / 3, atol=0.02)
    assert one.magnitude().mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.03)
    cubic = (one.inv() * other).reduce(Rotation.create_group("O"))
    assert np.rad2deg(cubic.magnitude()).mean() == pytest.approx(40.74, abs=0.5)


def test_spread_is_the_standard_deviation_of_the_rotation_vector():
    quaternions = generate(1, 16, 0, generator=Polycrystal(2000, spread=8)).orientation[0]
    vectors = np.rad2deg(Rotation.from_quat(quaternions, scalar_first=True).as_rotvec())
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.6)
    np.testing.assert_allclose(np.cov(vectors.T), 64 * np.eye(3), atol=6)
    angles = np.linalg.norm(vectors, axis=1)
    assert angles.mean() == pytest.approx(8 * np.sqrt(8 / np.pi), rel=0.02)
    assert kstest(angles / 8, "maxwell").pvalue > 0.01


def test_no_spread_is_one_crystal():
    orientation = generate(1, 4, 0, generator=Polycrystal(5, spread=0)).orientation
    np.testing.assert_array_equal(orientation, np.broadcast_to([1.0, 0, 0, 0], (1, 5, 4)))


def test_materials_have_their_shares_of_the_grains():
    generator = Polycrystal(40, fractions=(0.5, 0.2, 0.3))
    made = generate(3, 8, 0, generator=generator)
    assert generator.phases == 3
    assert made.material.dtype == np.uint16
    for material in made.material:
        np.testing.assert_allclose(np.bincount(material), [20, 8, 12], atol=1)
    assert len(np.unique(made.material, axis=0)) == 3
    assert not generate(1, 8, 0, generator=Polycrystal(40)).material.any()
