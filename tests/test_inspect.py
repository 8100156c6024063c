"""`lspipe inspect`: what it counts is what NumPy counts, whatever the parts in which it reads."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import invoke
from numpy.testing import assert_allclose

from lspipe.figures.image import draw_slices
from lspipe.images import read_images, scan
from lspipe.inspect_images import find_slices


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).choice([3, 40, 250], (7, 6, 5), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    np.save("labels.npy", image)
    return tmp_path


def fractions(table):
    """The percentages that the rows of phases or of the histogram show."""
    return [float(x) for x in re.findall(r"^  (?:phase|from) .*?([\d.]+)%", table, re.M)]


@pytest.mark.parametrize("slab", [1, 60, 2**25])
def test_changes_do_not_depend_on_the_slabs(folder, monkeypatch, slab):
    """Reading by one layer, by several, and at once; the file is (z, y, x)."""
    monkeypatch.setattr(scan, "SLAB", slab)
    image = np.load("labels.npy").T
    found = scan.scan_voxels(read_images("labels.npy", axes="zyx"), False)
    assert found.counts == dict(zip(*(x.tolist() for x in np.unique(image, return_counts=True)), strict=True))
    for axis, changes in enumerate(found.changes):
        for i in range(image.shape[axis]):
            expected = (image.take(i, axis) != image.take(i - 1, axis)).mean()
            assert_allclose(changes[i], expected)


def test_the_table_of_labels(folder):
    table = invoke("inspect", "labels.npy", "--axes", "zyx", "--spacing", "1,1,0.5")
    assert "axes              zyx, as you state" in table
    assert "1 of 5 × 6 × 7 voxels along x, y, z" in table
    assert "size              5 × 6 × 3.5" in table
    _, counts = np.unique(np.load("labels.npy"), return_counts=True)
    assert_allclose(fractions(table), 100 * counts / 210, atol=0.006)
    assert "lspipe import cells.zarr labels.npy --axes zyx --spacing 1,1,0.5\n" in table
    assert table.endswith("predict labels.npy --axes zyx --spacing 1,1,0.5 --material … --material … --material …\n")


def test_blocks_that_repeat_are_counted_and_the_rest_is_named(folder):
    image = np.zeros((9, 8, 8), np.uint8)
    image[:4, :4, :4] = np.random.default_rng(0).integers(0, 2, (4, 4, 4))
    np.save("blocks.npy", image)
    table = invoke("inspect", "blocks.npy", "--blocks", 4)
    assert "8 of 4 × 4 × 4 voxels" in table
    assert "2 × 2 × 2 of each image; 11.11% of its voxels are left over" in table
    assert "6 blocks equal earlier ones" in table


def test_a_ramp_is_not_periodic_until_it_is_mirrored(folder):
    ramp = np.zeros((5, 6, 6), np.uint8)
    ramp[1, :2], ramp[2, :3], ramp[3, :4], ramp[4] = 1, 1, 1, 1  # 12 voxels of 36, then 6, 6 and 12 change
    np.save("ramp.npy", ramp)
    table = invoke("inspect", "ramp.npy")
    assert "periodic along x  100.0% of voxels change across the faces, 25.0% from layer to layer" in table
    assert "not periodic in 1 of 1 cells" in table
    assert re.search("periodic +yes, for cells are mirrored", invoke("inspect", "ramp.npy", "--mirror"))


def test_grey_values_get_a_histogram_and_the_threshold_of_otsu(folder):
    """The threshold minimizes the variance within the two classes, over all thresholds."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((20, 20, 20)) < 0.3, rng.normal(90, 8, (20,) * 3), rng.normal(40, 8, (20,) * 3))
    values = values.astype(np.float32)
    np.save("grey.npy", values)
    table = invoke("inspect", "grey.npy")
    bars = np.histogram(values, 10)[0] / values.size
    assert_allclose(fractions(table), 100 * bars, atol=0.006)
    threshold = float(re.search(r"Otsu's threshold +([\d.]+)", table)[1])

    def within(t):
        return sum(part.var() * part.size for part in (values[values < t], values[values >= t]))

    best = min(within(t) for t in np.linspace(values.min(), values.max(), 500)[1:-1])
    assert within(threshold) <= 1.001 * best
    assert f"lspipe import cells.zarr grey.npy --threshold {threshold:g}\n" in table
    np.save("wide.npy", (values * 100).astype(np.uint16))
    assert "taken for grey values, not phases" in invoke("inspect", "wide.npy")
    phases = invoke("inspect", "grey.npy", "--threshold", 65)
    assert_allclose(fractions(phases)[1], 100 * (values >= 65).mean(), atol=0.006)


def test_the_figure_shows_the_slices_to_scale(folder):
    invoke("inspect", "labels.npy", "--axes", "zyx", "--spacing", "1,1,0.5", "--figure", "slices.png")
    assert plt.imread("slices.png").shape[2] == 4
    drawn = find_slices([Path("labels.npy")], axes="zyx", spacing=[1, 1, 0.5])
    panels = draw_slices(**drawn | {"unit": "µm"}).axes
    image = np.load("labels.npy").T
    top = panels[1]  # across y
    assert (top.get_title(), top.get_xlabel(), top.get_ylabel()) == ("layer 3 along y", "x (µm)", "z (µm)")
    assert top.images[0].get_extent() == [0, 5, 0, 3.5]
    assert_allclose(top.images[0].get_array(), np.searchsorted([3, 40, 250], image[:, 3].T))
    plt.close("all")


def test_a_threshold_that_is_missing_or_wrong(folder):
    with pytest.raises(ValueError, match=r"threshold = \[2.0, 1.0\]: must be ascending numbers"):
        invoke("inspect", "labels.npy", "--threshold", "2,1")
    np.save("five.npy", np.zeros((2, 2, 3, 3, 3)))
    assert "state the axes with --axes" in invoke("inspect", "five.npy")
