"""Tests compare every number that a figure draws with the data, which they count voxel by voxel."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from lspipe.figures import effective, errors, fields
from lspipe.statistics import average_by_distance, average_by_passes

MEAN, N = 2e-3, 6  # macroscopic strain; voxels along an edge


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(seed, counts, **columns):
    """Errors of nine microstructures after some numbers of passes; a later pass takes longer."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([{"sample": k, "passes": p, "seconds": 1e-3 * p + 1e-4 * k} for p in counts for k in range(9)])
    for name in ("mase", "energy", "volume_fraction", "grain"):
        rows[name] = rng.uniform(1, 5, len(rows))
    rows.attrs = {"passes": counts[-1]}
    return rows.assign(**columns)


PER_PASS = {"green": lambda rows: rows["passes"]}
ERRORS = {
    "cg": table(0, (0, 1, 2, 5), **PER_PASS),
    "fln": table(1, (1,)).drop(columns="energy"),
    "rln-cg": table(2, (1, 5), **PER_PASS),
}


def example_fields(seed):
    """Samples 0, 1, 2 and 7 with three iterates; the first three are common to all predictors."""
    rng = np.random.default_rng(seed)
    grid = ("x", "y", "z")
    phase = np.random.default_rng(9).integers(0, 2, (4, N, N, N))
    variables = {
        "sample": ("example", [0, 1, 2, 7]),
        "phase": (("example", *grid), phase.astype(np.uint8)),
        "distance": (("example", *grid), np.where(phase, 1.2, rng.choice([0.9, 2.4, np.inf], phase.shape))),
        "truth": (("example", *grid), MEAN * (1 + 0.3 * rng.standard_normal(phase.shape))),
        "iterates": (("example", "pass", *grid), MEAN * (1 + 0.3 * rng.standard_normal((4, 3, N, N, N)))),
        "scale": ("example", np.full(4, MEAN)),
        "mase": (("example", "pass"), rng.random((4, 3))),
    }
    attributes = {"worst": 7, "median": 1, "hardest": 2, "first": 3, "passes": 3, "spacing": [1, 1, 2]}
    attributes |= {"symbol": "ε", "mean": "⟨ε⟩"}
    return xr.Dataset(variables, {"pass": [1, 2, 3]}, attributes)


EXAMPLES = {"cg": example_fields(0), "rln": example_fields(1)}


def data(line):
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def test_learning_curves_are_the_metrics():
    """The training loss of every row, and the validation of the rows at the end of an epoch."""
    columns = {"train_loss": [3.5, 3.0, 2.0], "valid_loss": [np.nan, 4.0, 2.5], "valid_mase": [np.nan, 5.0, 4.0]}
    figure = errors.learning_curves({"fln": pd.DataFrame({"epoch": [0.5, 1, 2], **columns})})
    left, right = figure.axes
    drawn = [data(line) for line in (*left.get_lines()[:2], right.get_lines()[0])]
    for (x, y), (name, values) in zip(drawn, columns.items(), strict=True):
        assert_array_equal(x, [0.5, 1, 2] if name == "train_loss" else [1, 2])
        assert_array_equal(y, values if name == "train_loss" else values[1:])


def test_mase_is_counted():
    left, right = errors.mase(ERRORS).axes
    for patch, name in zip(left.patches, ("fln", "rln-cg"), strict=True):
        heights = patch.get_xy()[:, 1]
        assert heights.sum() / 2 == 9  # a step has two corners
        values = ERRORS[name].query("passes == passes.max()")["mase"]
        assert patch.get_xy()[:, 0].min() < values.min() < values.max() < patch.get_xy()[:, 0].max()
    curves = {line.get_label(): data(line) for line in right.get_lines()}
    assert [*curves] == ["fln", "rln-cg", "cg, 0 iterations", "cg, 1 iteration", "cg, 5 iterations"]
    x, y = curves["cg, 1 iteration"]
    values = ERRORS["cg"].query("passes == 1")["mase"].to_numpy()
    for level in (1.5, 3.0, 4.5):
        assert y[x <= level].max(initial=0) == (values <= level).mean()
    (alone,) = errors.mase({"cg": ERRORS["cg"]}).axes[0].patches  # a run without networks
    assert alone.get_xy()[:, 1].sum() / 2 == 9


def test_convergence_is_mean_and_confidence_by_passes():
    (mase_by_green, mase_by_time, energy_by_green, _) = errors.convergence(ERRORS).axes
    cg, level, rln_cg = mase_by_green.get_lines()
    for line, name, counts in ((cg, "cg", (0, 1, 2, 5)), (rln_cg, "rln-cg", (1, 5))):
        means = [np.mean(ERRORS[name].query(f"passes == {k}")["mase"]) for k in counts]
        assert_array_equal(line.get_xdata(), counts)
        assert_allclose(line.get_ydata(), means)
    assert_allclose(level.get_ydata(), np.mean(ERRORS["fln"]["mase"]))
    values = ERRORS["cg"].query("passes == 2")["mase"]
    low, high = stats.norm.interval(0.95, np.mean(values), stats.sem(values))
    band = mase_by_green.collections[0].get_paths()[0].vertices
    assert_allclose(sorted({*band[band[:, 0] == 2][:, 1]}), [low, high], rtol=1e-4)
    times = mase_by_time.get_lines()[0].get_xdata()
    assert_allclose(times, [0.4, 1.4, 2.4, 5.4])  # the fifth of nine microstructures, ms
    assert (np.diff(times) > 0).all(), "a longer run takes less time"
    assert len(energy_by_green.get_lines()) == 2  # a network of xx alone has no energy error
    assert average_by_passes(ERRORS["cg"], "mase").index.tolist() == [0, 1, 2, 5]


def test_trends_show_each_microstructure():
    for axes, quantity in zip(errors.trends(ERRORS).axes, ("volume_fraction", "grain"), strict=True):
        for points, rows in zip(axes.collections, ERRORS.values(), strict=True):
            last = rows[rows["passes"] == rows["passes"].max()]
            assert_array_equal(points.get_offsets(), last[[quantity, "mase"]])
    images = {name: rows.drop(columns="grain") for name, rows in ERRORS.items()}
    assert len(errors.trends(images).axes) == 1


def images(axes):
    """The array (x, y) of the image of each axes that has one."""
    return [np.asarray(a.images[0].get_array()).T for a in axes if a.images]


def test_the_gallery_shows_the_middle_slices():
    examples = EXAMPLES["cg"]
    drawn = images(fields.gallery(EXAMPLES).axes)
    assert len(drawn) == 2 * 3
    for k in range(3):
        assert_array_equal(drawn[k], examples["phase"][k, :, :, 3])
        assert_allclose(drawn[3 + k], examples["truth"][k, :, :, 3] / MEAN)


@pytest.mark.parametrize(("row", "sample", "index"), [(0, 7, 3), (1, 1, 1)])
def test_slices_cut_the_worst_voxel(row, sample, index):
    examples = EXAMPLES["rln"]
    axes = fields.slices({"rln": examples}).axes
    truth, prediction = examples["truth"].values[index] / MEAN, examples["iterates"].values[index, 2] / MEAN
    largest = max((abs(prediction[i, j, k] - truth[i, j, k]), k) for i, j, k in np.ndindex(N, N, N))
    z = largest[1]
    drawn = images(axes)[4 * row : 4 * row + 4]
    cut = examples["phase"].values[index], truth, prediction, abs(prediction - truth)
    for image, field in zip(drawn, cut, strict=True):
        assert_allclose(image, field[:, :, z])
    assert f"sample {sample}, z = {z}" in axes[4 * row].get_title()
    assert axes[4 * row + 2].get_title() == f"rln, MASE {examples['mase'].values[index, 2]:.2g}%"
    assert drawn[3].max() == pytest.approx(largest[0])


def test_the_comparison_shows_all_predictors_in_one_slice():
    """It is the slice through the largest error of any, and there is one row for five predictors."""
    six = {f"p{k}": example_fields(k) for k in range(6)}
    errors = {name: abs(e["iterates"].values[2, 2] - e["truth"].values[2]) for name, e in six.items()}
    worst = max(errors, key=lambda name: errors[name].max())
    z = np.argwhere(errors[worst] == errors[worst].max())[0][2]
    figure = fields.comparison(six)
    panels = [axes for axes in figure.axes if axes.images]
    drawn = images(panels)
    assert [axes.get_title() for axes in panels[:6]] == ["truth", *[*six][:5]]
    for row, names in ((0, [*six][:5]), (12, ["p5"])):
        top, bottom = drawn[row : row + 1 + len(names)], drawn[row + 1 + len(names) :]
        assert_allclose(top[0], six["p0"]["truth"].values[2, :, :, z] / MEAN)
        assert_array_equal(bottom[0], six["p0"]["phase"].values[2, :, :, z])
        for field, error, name in zip(top[1:], bottom[1:], names, strict=False):
            assert_allclose(field, six[name]["iterates"].values[2, 2, :, :, z] / MEAN)
            least = errors[worst].max() / MEAN / 1e3
            assert_allclose(error, np.maximum(errors[name][:, :, z] / MEAN, least))
    scales = {tuple(np.ravel(axes.images[0].get_clim())) for axes in panels if axes.get_title().startswith("MASE")}
    assert len(scales) == 1
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes if axes.axison]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_iterates_are_drawn_pass_by_pass():
    examples = EXAMPLES["rln"]
    axes = fields.iterates({"rln": examples}).axes
    drawn = images(axes)
    error = abs(examples["iterates"].values[1] - examples["truth"].values[1])
    z = np.argwhere(error[2] == error[2].max())[0][2]
    for t in range(3):
        assert_allclose(drawn[t], examples["iterates"].values[1, t, :, :, z] / MEAN)
        shown = np.maximum(error[t, :, :, z] / MEAN, error[:, :, :, z].max() / MEAN / 1e3)
        assert_allclose(drawn[4 + t], shown)
        assert axes[t].get_title() == f"rln, pass {t + 1}"
        assert axes[4 + t].get_title() == f"MASE {examples['mase'].values[1, t]:.2g}%"
    assert_allclose(drawn[3], examples["truth"].values[1, :, :, z] / MEAN)


def phases(examples):
    """Truth and prediction of the voxels of the common samples, by phase."""
    phase = examples["phase"].values[:3]
    return [
        [f[phase == p] / MEAN for f in (examples["truth"].values[:3], examples["iterates"].values[:3, 2])]
        for p in (0, 1)
    ]


def test_the_density_counts_voxels():
    examples = EXAMPLES["rln"]
    panels = [axes for axes in fields.density({"rln": examples}).axes if "phase" in axes.get_title()]
    for axes, (truth, predicted) in zip(panels, phases(examples), strict=True):
        counts = axes.collections[0].get_array()
        (low, high), _ = data(axes.get_lines()[0])
        inside = (np.minimum(truth, predicted) >= low) & (np.maximum(truth, predicted) <= high)
        assert counts.sum() == inside.sum() > 0.98 * len(truth)
        assert axes.get_title() in ("rln, phase 0", "rln, phase 1")


def test_distributions_are_fractions_of_voxels():
    for axes, (_, predicted) in zip(fields.distributions(EXAMPLES).axes, phases(EXAMPLES["rln"]), strict=True):
        bars = axes.patches[:59]
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
        middle = bars[30]
        low, high = middle.get_x(), middle.get_x() + middle.get_width()
        in_cg = phases(EXAMPLES["cg"])[int(axes.get_title()[-1])][0]
        assert middle.get_height() == pytest.approx(((in_cg >= low) & (in_cg < high)).mean())
        steps = axes.patches[-1].get_xy()  # of the last predictor
        height = steps[np.abs(steps[:, 0] - low) < 1e-9][-1, 1]
        assert height == pytest.approx(((predicted >= low) & (predicted < high)).mean())


def test_interfaces_average_the_error_by_distance():
    """Distances are rounded to voxels: 0.9 and 1.2 to 1, 2.4 to 2; an infinite one is of a cell of one phase."""
    line = fields.interfaces(EXAMPLES).axes[0].get_lines()[1]
    examples = EXAMPLES["rln"]
    error = 100 * abs(examples["iterates"].values[:3, 2] - examples["truth"].values[:3]) / MEAN
    distance = examples["distance"].values[:3]
    expected = [error[(distance == 0.9) | (distance == 1.2)].mean(), error[distance == 2.4].mean()]
    assert_array_equal(line.get_xdata(), [1, 2])
    assert_allclose(line.get_ydata(), expected)
    few = examples.assign(distance=examples["distance"].where(examples["distance"] != 2.4, 1.2))
    few["distance"][0, 0, 0, :3] = 4.0  # three voxels say little
    assert average_by_distance(few).index.tolist() == [1]


def effective_table(name, **columns):
    """Properties of nine microstructures between bounds, in a random order of their volume fractions."""
    f = np.random.default_rng(4).permutation(np.linspace(0.1, 0.9, 9))
    rows = pd.DataFrame({"sample": range(9), "gap": 1e-3, "f0": 1 - f, "f1": f})
    for suffix, factor in (("reuss", 1), ("low", 2.9), ("high", 3.2), ("voigt", 5)):
        rows[f"{name}_{suffix}"] = factor * f
    return rows.assign(**{name: 3 * f}, **columns)


def test_effective_moduli_lie_between_their_bounds():
    (axes,) = effective.effective({"cg": effective_table("k")}).axes
    (range_,) = axes.collections[:1]
    assert {tuple(np.round(p, 9)) for p in range_.get_paths()[0].vertices} >= {(0.1, 0.1), (0.1, 0.5), (0.9, 4.5)}
    (points, _, (bars,)) = axes.containers[0]
    x, y = data(points)
    assert_allclose(y, 3 * x)
    ends = np.array(bars.get_segments(), float)[..., 1]
    assert_allclose(ends / x[:, None], np.tile([2.9, 3.2], (9, 1)))


def test_cells_with_voids_have_an_upper_bound_alone():
    """They are drawn in the order of the modulus where there is one material."""
    table = effective_table("K").assign(gap=[1.0] * 4 + [1e-3] * 5).drop(columns="f1")
    (axes,) = effective.effective({"cg": table}).axes
    (triangles,) = (line for line in axes.get_lines() if line.get_marker() == "v")
    assert_allclose(triangles.get_ydata(), table.sort_values("K").query("gap == 1")["K_high"])
    assert_array_equal(triangles.get_xdata(), np.flatnonzero(table.sort_values("K")["gap"] == 1))


def test_errors_of_effective_properties_stand_beside_the_guaranteed_interval():
    """An interval that is wider than the property is not drawn."""
    tables = {
        name: t.assign(effective=t["mase"] ** 2, mean_stress=t["energy"]) for name, t in ERRORS.items() if name != "fln"
    }
    tables["cg"]["bound"] = 2.0 / (1 + tables["cg"]["passes"])
    left, right = effective.effective_errors(tables | {"fln": ERRORS["fln"]}).axes
    lines = {line.get_label(): data(line) for line in left.get_lines()}
    assert set(lines) == {"cg", "cg, guaranteed interval", "rln-cg"}
    assert_allclose(lines["cg"][1], tables["cg"].groupby("passes")["effective"].mean())
    x, y = lines["cg, guaranteed interval"]
    assert_array_equal(x, [2, 5])
    assert_allclose(y, 100 * np.array([4 / 9, 1 / 9]))
    assert_allclose(data(right.get_lines()[1])[1], tables["rln-cg"].groupby("passes")["energy"].mean())
