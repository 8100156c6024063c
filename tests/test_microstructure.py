"""The generator: the paper's statistics, reproducible sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import fourier_gaussian

from lspipe import generate
from lspipe.microstructure import BLOCK, blur, two_phase


@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 80), count=st.integers(0, 6), n=st.integers(3, 9))
def test_a_sample_does_not_depend_on_its_range(first, count, n):
    whole, part = generate(first + count, n, seed=3), generate(count, n, seed=3, first=first)
    for name in ("phase", "seed", "design"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[first:])


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


def test_phase_0_has_the_designed_fraction():
    made = generate(64, 16, seed=0)
    np.testing.assert_allclose((made.phase == 0).mean(axis=(1, 2, 3)), made.design[:, 3], atol=1 / 16**3)
    assert made.phase.dtype == np.uint8
    assert set(np.unique(made.phase)) == {0, 1}


@pytest.mark.parametrize("grain", [(1, 3, 6), (2, 4, 7), (5, 2, 1)])
def test_filter_is_a_gaussian_in_fourier_space(grain):
    """The definition: the Gaussian of standard deviation 1 that SciPy applies to spectra, on a window of g voxels."""
    n = 7
    noise = np.random.default_rng(5).random((n, n, n))
    kernel = np.fft.fftshift(fourier_gaussian(np.ones(grain), 1))
    smooth = sum(w * np.roll(noise, shift, (0, 1, 2)) for shift, w in np.ndenumerate(kernel))
    np.testing.assert_allclose(blur(noise, np.array(grain)), smooth)
    expected = smooth > np.quantile(smooth, 0.4)
    np.testing.assert_array_equal(two_phase(n, np.array(grain), 0.4, np.uint64(5)), expected)


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
    phase = two_phase(31, np.array([grain] * 3), 0.5, np.uint64(0))
    shares = [(phase != np.roll(phase, 1, axis)).mean() for axis in range(3)]
    assert np.mean(shares) == pytest.approx(interface, abs=0.004)


def test_grains_are_long_along_the_axis_of_the_large_grain_size():
    phase = two_phase(31, np.array([25, 4, 4]), 0.5, np.uint64(0)).astype(float)
    same = [(phase == np.roll(phase, 1, axis)).mean() for axis in range(3)]
    assert same[0] > max(same[1:]) + 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((-1, 8, 0), "count = -1"),
        ((1, 0, 0), "n = 0"),
        ((1, 8, 0, "dev"), "split = 'dev'"),
        ((1, 8, 0, "train", -3), "first = -3"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        generate(*arguments)
