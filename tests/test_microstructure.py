"""The generator: the paper's statistics, reproducible sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lspipe import generate
from lspipe.microstructure import BLOCK, two_phase


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


def test_filter_is_the_truncated_gaussian():
    """Against a convolution written out over the window."""
    n, grain = 7, np.array([1, 3, 6])
    noise = np.random.default_rng(5).random((n, n, n))
    smooth = np.zeros_like(noise)
    windows = [np.arange(g) for g in grain]
    for i in windows[0]:
        for j in windows[1]:
            for k in windows[2]:
                distance = (np.array([i, j, k]) - (grain - 1) / 2) / (grain / (2 * np.pi))
                smooth += np.exp(-0.5 * distance @ distance) * np.roll(noise, (i, j, k), (0, 1, 2))
    expected = smooth > np.quantile(smooth, 0.4)
    np.testing.assert_array_equal(two_phase(n, grain, 0.4, np.uint64(5)), expected)


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
