"""Generated samples: reproducible one by one, with the paper's statistics."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import fourier_gaussian

from lspipe import generate
from lspipe.microstructure import Fibres, Gaussian, Polycrystal, ShortFibres, Spheres, read_generator
from lspipe.microstructure.gaussian import blur
from lspipe.microstructure.generator import Grid
from lspipe.microstructure.samples import BLOCK

GENERATORS = [
    Gaussian(),
    Gaussian(phases=4),
    Gaussian(fractions=(0.2, 0.3, 0.5)),
    Polycrystal(grains=5, spread=10, fractions=(0.4, 0.6)),
    Spheres(count=3, fraction=0.2),
    Fibres(count=3, fraction=(0.2, 0.4), axis="x"),
    ShortFibres(count=2, fraction=0.12, aspect=2),
]


@settings(max_examples=6, deadline=None)
@given(first=st.integers(0, 80), count=st.integers(0, 6), shape=st.tuples(*[st.integers(6, 9)] * 3))
@pytest.mark.parametrize("generator", GENERATORS, ids=str)
def test_a_sample_does_not_depend_on_its_range(generator, first, count, shape):
    whole = generate(first + count, shape, seed=3, generator=generator)
    part = generate(count, shape, seed=3, first=first, generator=generator)
    assert part.phase.shape == (count, *shape)
    assert part.design.shape == (count, len(generator.parameters))
    for name, values in vars(whole).items():
        np.testing.assert_equal(getattr(part, name), None if values is None else values[first:])


@pytest.mark.parametrize("generator", GENERATORS, ids=str)
def test_a_file_describes_a_generator(generator):
    assert read_generator(json.loads(json.dumps(generator.to_dict()))) == generator


def test_the_default_generator_is_the_papers():
    assert read_generator({}) == Gaussian()
    made = generate(3, 9, seed=1)
    np.testing.assert_array_equal(generate(3, (9, 9, 9), seed=1, generator=Gaussian()).phase, made.phase)
    assert made.material is None
    assert made.orientation is None


def test_splits_and_seeds_share_no_sample():
    seeds = np.concatenate(
        [generate(100, 1, seed, split).seed for seed in (0, 1) for split in ("train", "valid", "test")]
    )
    assert len(np.unique(seeds)) == 600


def test_splits_of_the_papers_size_share_no_sample():
    """Neither a seed nor, but for cells of one phase alone, a microstructure."""
    splits = [generate(count, 5, 0, split) for split, count in (("train", 8192), ("valid", 4096), ("test", 8192))]
    assert len(np.unique(np.concatenate([s.seed for s in splits]))) == 20480
    cells = [{p.tobytes() for p in s.phase if 8 <= p.sum() <= 117} for s in splits]
    assert sum(map(len, cells)) > 15000
    assert len(set.union(*cells)) == sum(map(len, cells))


def test_design_is_a_latin_hypercube_of_the_papers_ranges():
    n = 31
    design = generate(BLOCK, n, seed=0).design
    assert set(design[:, :3].ravel()) <= set(range(1, n + 1))
    for column in (design[:, :3] - 0.5).T / n, [design[:, 3]]:
        for u in column:
            counts = np.bincount((np.asarray(u) * BLOCK).astype(int), minlength=BLOCK)
            # Whole voxels blur the strata of a grain size into their neighbours; fractions keep them.
            assert counts.max() <= (3 if len(column) == 3 else 1)


def two_phase(n, grain, fraction, seed):
    return Gaussian().make(Grid((n, n, n)), np.array([*grain, fraction]), np.random.default_rng(seed))[0]


def test_phase_0_has_the_designed_fraction():
    made = generate(64, 16, seed=0)
    np.testing.assert_allclose((made.phase == 0).mean(axis=(1, 2, 3)), made.design[:, 3], atol=1 / 16**3)
    assert made.phase.dtype == np.uint8
    assert set(np.unique(made.phase)) == {0, 1}


@pytest.mark.parametrize(("shape", "allowed"), [((16, 12, 10), 1), ((40, 30, 1), 1)])
def test_phases_have_the_given_fractions(shape, allowed):
    made = generate(4, shape, seed=0, generator=Gaussian(fractions=(0.2, 0.3, 0.5)))
    for phase in made.phase:
        np.testing.assert_allclose(np.bincount(phase.ravel()), np.array([0.2, 0.3, 0.5]) * phase.size, atol=1)
    assert len(np.unique(made.design, axis=0)) == 4


def test_all_fractions_are_equally_likely():
    """Moments of the flat Dirichlet distribution of three fractions: mean 1/3, variance 1/18, covariance −1/36."""
    design = generate(640, 1, seed=0, generator=Gaussian(phases=3)).design[:, 3:]
    fractions = np.column_stack([design, 1 - design.sum(axis=1)])
    assert fractions.min() >= 0
    np.testing.assert_allclose(fractions.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(np.cov(fractions.T), (3 * np.eye(3) - 1) / 36, atol=0.005)
    made = generate(8, 12, seed=0, generator=Gaussian(phases=3))
    for p in range(2):
        np.testing.assert_allclose((made.phase == p).mean(axis=(1, 2, 3)), made.design[:, 3 + p], atol=2 / 12**3)


@pytest.mark.parametrize("grain", [(1, 3, 6), (2, 4, 7), (5, 2, 1)])
def test_filter_is_a_gaussian_in_fourier_space(grain):
    """The definition: the Gaussian of standard deviation 1 that SciPy applies to spectra, on a window of g voxels."""
    n = 7
    noise = np.random.default_rng(5).random((n, n, n))
    kernel = np.fft.fftshift(fourier_gaussian(np.ones(grain), 1))
    smooth = sum(w * np.roll(noise, shift, (0, 1, 2)) for shift, w in np.ndenumerate(kernel))
    np.testing.assert_allclose(blur(noise, np.array(grain)), smooth)
    expected = smooth > np.quantile(smooth, 0.4)
    np.testing.assert_array_equal(two_phase(n, grain, 0.4, 5), expected)


@pytest.mark.parametrize(
    ("seed", "grain", "stiff", "faces"),
    [
        (81, (24, 11, 2), 6296, (1276, 2692, 9598)),
        (115, (2, 26, 8), 21777, (11942, 1344, 4232)),
        (128, (11, 1, 2), 8737, (3354, 12442, 12446)),
        (67, (9, 3, 24), 15922, (4488, 12818, 1716)),
    ],
)
def test_published_cells(seed, grain, stiff, faces):
    """Cells of 31³ voxels that the paper's authors publish (conlain-k/structure_generation, gen_test_micros.h5).

    NumPy's seed of their noise, grain sizes, voxels of phase 1, and faces between the phases across each axis."""
    smooth = blur(np.random.RandomState(seed).random_sample((31, 31, 31)), np.array(grain))
    phase = smooth > np.sort(smooth, axis=None)[-stiff - 1]
    assert tuple((phase != np.roll(phase, 1, axis)).sum() for axis in range(3)) == faces


@pytest.mark.parametrize(("grain", "interface"), [(2, 0.498), (4, 0.344)])
def test_interfaces_between_small_even_grains(grain, interface):
    """The share of neighbours that differ in phase, in cells of the authors' generator with grains of one size."""
    phase = two_phase(31, [grain] * 3, 0.5, 0)
    shares = [(phase != np.roll(phase, 1, axis)).mean() for axis in range(3)]
    assert np.mean(shares) == pytest.approx(interface, abs=0.004)


def test_grains_are_long_along_the_axis_of_the_large_grain_size():
    phase = two_phase(31, [25, 4, 4], 0.5, 0).astype(float)
    same = [(phase == np.roll(phase, 1, axis)).mean() for axis in range(3)]
    assert same[0] > max(same[1:]) + 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((-1, 8, 0), "count = -1"),
        ((1, 0, 0), "n = 0"),
        ((1, (8, 8), 0), r"n = \(8, 8\)"),
        ((1, (8, 8, 0), 0), "n = 0"),
        ((1, 8, 0, "dev"), "split = 'dev'"),
        ((1, 8, 0, "train", -3), "first = -3"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        generate(*arguments)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "foam"}, "kind = 'foam': must be one of gaussian, spheres"),
        ({"kind": "spheres", "cuont": 3}, "cuont is not a key of spheres; allowed here: count, fraction, gap"),
        ({"phases": 256}, "phases = 256"),
        ({"phases": 3, "fractions": [0.5, 0.5]}, "phases = 3: there are 2 fractions"),
        ({"fractions": [0.5, 0.6]}, r"fractions = \[0.5, 0.6\]"),
        ({"fractions": [1.5, -0.5]}, "positive numbers whose sum is 1"),
        ({"kind": "polycrystal", "grains": 65536}, "grains = 65536"),
        ({"kind": "polycrystal", "grains": 0}, "grains = 0"),
        ({"kind": "polycrystal", "spread": 50}, "spread = 50.0"),
        ({"kind": "spheres", "count": 0}, "count = 0"),
        ({"kind": "spheres", "fraction": [0.4, 0.1]}, r"fraction = \[0.4, 0.1\]"),
        ({"kind": "spheres", "fraction": [0.1, 1.0]}, "fraction"),
        ({"kind": "spheres", "gap": -1}, "gap = -1.0"),
        ({"kind": "fibres", "axis": "w"}, "axis = 'w'"),
        ({"kind": "short-fibres", "aspect": 0.5}, "aspect = 0.5"),
    ],
)
def test_bad_generators_are_named(values, named):
    with pytest.raises(ValueError, match=named) as error:
        read_generator(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("generator", "shape", "named"),
    [
        (Polycrystal(grains=33), 4, "grains = 33: a cell of 4×4×4 voxels has at most 32 grains"),
        (
            Spheres(count=8, fraction=(0.1, 0.7)),
            12,
            r"fraction = 0.7: 5 attempts to pack 8 .* failed",
        ),
        (Spheres(count=1, fraction=0.3, gap=0), (32, 8, 8), "fraction = 0.3: 5 attempts"),  # touches its own image
        (Spheres(gap=1e99), 31, "fraction = 0.3: 5 attempts"),
        (ShortFibres(count=1, fraction=0.01, aspect=100), 150, "fraction = 0.01: 5 attempts"),
        (Spheres(count=50), 8, "fraction = 0.1: 50 inclusions in 8×8×8 voxels would have the radius 0.62"),
        (Fibres(count=3, fraction=0.9), 12, "fraction = 0.9"),
        (ShortFibres(count=3, fraction=0.5, aspect=10), 12, "fraction = 0.5"),
    ],
    ids=str,
)
def test_cells_that_cannot_be_made_are_refused_before_any_is(generator, shape, named):
    with pytest.raises(ValueError, match=named) as error:
        generate(0, shape, 0, generator=generator)
    assert "\n" not in str(error.value)
