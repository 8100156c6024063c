"""Generated inclusions: their volume fractions, the gaps between them, and their shapes in space."""

from itertools import product

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.spatial import cKDTree

from lspipe import generate
from lspipe.microstructure import Fibres, ShortFibres, Spheres
from lspipe.microstructure.generator import Grid
from lspipe.microstructure.inclusions import measure_distance
from lspipe.microstructure.packing import pack, separate

KINDS = [
    (Spheres(count=5, fraction=(0.1, 0.35), gap=0.2), (16, 16, 16), (1, 1, 1)),
    (Spheres(count=20, fraction=0.55, gap=0), (20, 20, 20), (1, 1, 1)),
    (Spheres(count=4, fraction=0.3), (24, 12, 8), (0.5, 1, 1.5)),
    (Spheres(count=8, fraction=0.6, gap=0), (30, 30, 1), (1, 1, 1)),
    (Fibres(count=7, fraction=0.6, gap=0.05), (24, 24, 3), (1, 1, 1)),
    (Fibres(count=4, fraction=0.5, axis="x"), (2, 16, 32), (3, 1, 0.5)),
    (ShortFibres(count=10, fraction=0.2, aspect=5), (16, 16, 16), (1, 1, 1)),
    (ShortFibres(count=6, fraction=0.3, aspect=3), (16, 32, 8), (1, 0.5, 2)),
    (ShortFibres(count=20, fraction=0.4, gap=0.02, aspect=5), (60, 1, 60), (1, 1, 1)),
]


def pack_again(generator, shape, spacing):
    """Yield phase, radius, and points on the axes (inclusions, points, d) of the samples that ``generate`` makes."""
    made, grid = generate(2, shape, 0, generator=generator, spacing=spacing), Grid(shape, spacing)
    for phase, (radius, _), seed in zip(made.phase, made.design, made.seed, strict=True):
        centres, halves = generator.pack(radius, grid, np.random.default_rng(seed), 1000)
        fine = np.linspace(-1, 1, 31 if halves.any() else 1)
        yield phase, radius, centres[:, None] + fine[:, None] * halves[:, None]


def smallest_distance(points, edges):
    """The smallest distance between points on the axes of different inclusions, among all periodic images."""
    nearest = np.inf
    for shift, i in product(product((-2, -1, 0, 1, 2), repeat=len(edges)), range(len(points))):
        others = points if any(shift) else np.delete(points, i, axis=0)
        if len(others):
            images = (others + np.array(shift) * edges).reshape(-1, len(edges))
            nearest = min(nearest, cKDTree(images).query(points[i])[0].min())
    return nearest


@pytest.mark.parametrize(("generator", "shape", "spacing"), KINDS, ids=str)
def test_inclusions_keep_their_distance(generator, shape, spacing):
    edges = generator.section(Grid(shape, spacing)).edges
    for _, radius, points in pack_again(generator, shape, spacing):
        assert smallest_distance(points, edges) >= (2 + generator.gap) * radius - 1e-12


def test_a_long_fibre_keeps_its_distance_from_its_images():
    edges = np.array([1.0, 1.2, 1.4])
    for seed in range(12):
        centres, halves = pack(1, 0.3, 1.8, edges, np.random.default_rng(seed), 100)
        assert smallest_distance(centres + np.linspace(-1, 1, 31)[:, None] * halves[None], edges) >= 0.3


@pytest.mark.parametrize(("generator", "shape", "spacing"), KINDS, ids=str)
def test_inclusions_fill_their_fraction(generator, shape, spacing):
    made = generate(3, shape, 0, generator=generator, spacing=spacing)
    section = generator.section(Grid(shape, spacing))
    np.testing.assert_allclose((made.phase == 1).mean(axis=(1, 2, 3)), made.design[:, 1], atol=1 / section.size)
    assert generator.fraction[0] <= made.design[:, 1].min() <= made.design[:, 1].max() <= generator.fraction[1]
    # The nominal volume of the inclusions: spheres or discs, and cylinders or strips between their halves.
    r, length = made.design[:, 0], 2 * (generator.aspect - 1) * made.design[:, 0]
    flat = len(section.edges) == 2
    volume = np.pi * r**2 + 2 * r * length if flat else 4 / 3 * np.pi * r**3 + np.pi * r**2 * length
    np.testing.assert_allclose(generator.count * volume / section.edges.prod(), made.design[:, 1])


@pytest.mark.parametrize(("generator", "shape", "spacing"), KINDS, ids=str)
def test_voxels_within_the_radius_are_inclusions(generator, shape, spacing):
    """In space, whatever the voxels: all but those whose centre is nearer to the surface than part of a voxel."""
    section = generator.section(Grid(shape, spacing))
    for phase, radius, points in pack_again(generator, shape, spacing):
        tree = cKDTree(points.reshape(-1, len(section.edges)) % section.edges, boxsize=section.edges)
        distance = tree.query(section.centres)[0]
        inside = phase[tuple(slice(n) for n in section.shape)].ravel()
        margin = 0.2 * max(section.spacing[a] for a in section.axes)
        assert inside[distance < radius - margin].all()
        assert not inside[distance > radius + margin].any()


def test_spheres_are_apart_in_the_voxels():
    made = generate(4, 32, 0, generator=Spheres(count=6, fraction=0.2, gap=0.4))
    for phase in made.phase:
        pieces, _ = label(np.tile(phase, (2, 2, 2)))  # a sphere is whole in at least one of the images
        sizes = np.bincount(pieces.ravel())[1:]
        whole = sizes[sizes > 0.97 * phase.sum() / 6]
        np.testing.assert_allclose(whole, phase.sum() / 6, rtol=0.03)
        assert len(whole) >= 6


def test_fibres_run_along_their_axis():
    for axis in range(3):
        phase = generate(1, (12, 13, 14), 0, generator=Fibres(count=2, axis="xyz"[axis])).phase[0]
        differs = [(phase != np.roll(phase, 1, a)).any() for a in range(3)]
        assert differs == [a != axis for a in range(3)]


def test_short_fibres_have_all_directions():
    _, halves = pack(3000, 1e-6, 0.001, np.ones(3), np.random.default_rng(0), 1)
    n = halves / 0.0005
    np.testing.assert_allclose(n.T @ n / 3000, np.eye(3) / 3, atol=0.02)
    np.testing.assert_allclose(n.mean(axis=0), 0, atol=0.03)


def test_a_shift_of_the_centres_shifts_the_cell():
    grid, rng = Grid((9, 8, 10), (1.0, 2.0, 0.5)), np.random.default_rng(0)
    centres, halves = rng.random((4, 3)) * grid.edges, rng.standard_normal((4, 3))
    field = measure_distance(grid, centres, halves, 1.5)
    for axis, spacing in enumerate(grid.spacing):
        shift = 3 * spacing * np.eye(3)[axis]
        shifted = measure_distance(grid, centres + shift, halves, 1.5)
        np.testing.assert_allclose(shifted, np.roll(field, 3, axis), atol=1e-12)


def test_shortest_vector_between_segments():
    """The least distance of a fine sampling; parallel segments and points are included."""
    rng = np.random.default_rng(0)
    w, p, q = rng.standard_normal((3, 60, 3))
    q[:10], p[10:20], q[15:25] = 0.7 * p[:10], 0, 0
    fine = np.linspace(-1, 1, 201)
    away = w[:, None, None] + fine[:, None, None] * p[:, None, None] - fine[:, None] * q[:, None, None]
    sampled = np.linalg.norm(away, axis=-1).min(axis=(1, 2))
    exact = np.linalg.norm(separate(w, p, q), axis=1)
    assert (exact <= sampled + 1e-12).all()
    np.testing.assert_allclose(exact, sampled, atol=0.02)
