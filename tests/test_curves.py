"""The curves of a store of load paths: their table, the command that writes it, and what the figures draw of it."""

from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import invoke
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from plastic import uniaxial
from test_export import fields

from lspipe import Isotropic, Plastic, open_dataset
from lspipe.cell.path_problem import PathProblem
from lspipe.curves import summarize_curves, tabulate_curves
from lspipe.dataset import create_paths, solve_fields, write_microstructures
from lspipe.figures import READERS, paths

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
METAL = Plastic(70, 0.3, yield_stress=0.2, hardening=2)
STRAINS = (0.002, 0.006, 0.01)
STEPS = tuple(((e, *[None] * 5), (None, *[0.0] * 5)) for e in STRAINS)  # tension without other stresses


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two microstructures of 6³ voxels under three steps of uniaxial stress; the last two steps are kept."""
    folder = tmp_path_factory.mktemp("curves")
    cells, fields = folder / "cells.zarr", folder / "paths.zarr"
    write_microstructures(cells, count=2, n=6, seed=0, split="test", per_shard=2)
    create_paths(fields, cells, PathProblem((Isotropic(400, 0.2), METAL), STEPS), keep=(1, 2), tol=1e-4, per_shard=2)
    solve_fields(fields, cells)
    return fields


@pytest.fixture(scope="module")
def table(store):
    return tabulate_curves(store)


def points(line):
    return np.array(line.get_data(), float).T


def test_the_table_has_the_means_of_the_fields_and_the_closed_form_of_each_phase_alone(table, store):
    """A phase alone follows the curve of a bar under tension."""
    data, cells = open_dataset(store), open_dataset(store.with_name("cells.zarr"))
    for (sample, step), rows in table[table["sample"].notna()].groupby(["sample", "step"]):
        (row,) = rows.itertuples()
        assert row.E_xx == pytest.approx(STRAINS[step])
        assert row.f1 == 1 - row.f0 == pytest.approx(float(cells.phase[sample].mean()))
        assert row.von_mises == pytest.approx(row.S_xx, rel=1e-3)  # of a uniaxial stress
        if step in data.kept:
            for letter, field in (("E", data.strain), ("S", data.stress)):
                mean = field.sel(sample=sample, kept=step).mean(("x", "y", "z"))
                assert_allclose(rows[[f"{letter}_{c}" for c in COMPONENTS]].iloc[0], mean, atol=1e-5)
        e = np.diag([row.E_xx, row.E_yy, row.E_zz]) - (row.E_xx + row.E_yy + row.E_zz) / 3 * np.eye(3)
        shear = 2 * (row.E_yz**2 + row.E_xz**2 + row.E_xy**2)
        assert row.equivalent_strain == pytest.approx(np.sqrt(2 / 3 * ((e**2).sum() + shear)))
        assert (row.newton, row.iterations, row.cuts) > (0, 0, -1)
        assert row.residual <= 1e-4
        assert row.converged
    elastic, metal = (table[table["phase"] == phase]["S_xx"] for phase in (0, 1))
    assert_allclose(elastic, 400 * np.array(STRAINS), rtol=1e-4)
    assert_allclose(metal, uniaxial(METAL, STRAINS), rtol=1e-3)
    assert np.isfinite(table["bound"]).all()
    assert len(table) == 4 * len(STEPS)


def end_early(table):
    """The same table where sample 1 does not reach the last step."""
    numbers = [name for name in table if name[:2] in ("E_", "S_") or name == "von_mises"]
    late = (table["sample"] == 1) & (table["step"] == 2)
    return table.assign(converged=table["converged"] & ~late, **{n: table[n].mask(late) for n in numbers})


def test_the_command_writes_the_table_and_a_summary(table, store, tmp_path):
    printed = invoke("curves", store / "zarr.json", "--table", tmp_path / "curves.csv")
    assert_frame_equal(READERS["curves"](tmp_path / "curves.csv"), table)
    last = table[table["sample"].notna() & (table["step"] == 2)]["S_xx"]
    assert "2 of 2 microstructures have reached step 2" in printed
    assert "early" not in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("| S_xx"))
    numbers = [last.mean(), abs(last.diff().iloc[-1]) / 2**0.5, last.min(), last.max()]
    assert_allclose([float(word) for word in row.split("|")[2:-1]], numbers, rtol=1e-3)
    summary = summarize_curves(end_early(table))
    assert "1 of 2 microstructures have reached step 2" in summary
    assert "ended early: 1 (2 of 3 steps)" in summary


def test_other_files_are_refused(store, tmp_path):
    cells, other = store.with_name("cells.zarr"), tmp_path / "other.csv"
    for read in (tabulate_curves, READERS["paths"]):
        with pytest.raises(ValueError, match=r"cells.zarr: holds no load paths; must be a store that"):
            read(cells)
    for text in ("sample,gap\n0,1\n", "sample,phase,step\na,b,c\n", ""):
        other.write_text(text)
        with pytest.raises(ValueError, match=r"other.csv: must be a table of `lspipe curves`"):
            READERS["curves"](other)


def test_the_kept_steps_are_exported_as_images(store, tmp_path):
    cells, data = store.with_name("cells.zarr"), open_dataset(store)
    invoke("export", tmp_path, cells, store, "--sample", 1)
    for step in (1, 2):
        image, kept = fields(tmp_path / f"1_step{step}.vti"), data.isel(sample=1).sel(kept=step)
        for name in ("strain", "stress"):
            voigt = kept[name].sel(component=["xx", "yy", "zz", "xy", "yz", "xz"])
            assert_array_equal(image[name], voigt.values.T.reshape(-1, 6))
        assert_array_equal(image["accumulated_plastic_strain"], kept.accumulated_plastic_strain.values.T.ravel())
        assert_array_equal(image["phase"], open_dataset(cells).phase[1].values.T.ravel())
    listed = ElementTree.parse(tmp_path / "1.pvd").findall("Collection/DataSet")
    assert [(entry.get("timestep"), entry.get("file")) for entry in listed] == [
        ("1", "1_step1.vti"),
        ("2", "1_step2.vti"),
    ]
    with pytest.raises(ValueError, match="holds load paths; must be exported as images alone, without a model"):
        invoke("export", tmp_path / "other", cells, store, "--sample", 1, "--table")


def test_the_curves_begin_without_load_and_show_each_microstructure(table, tmp_path):
    left, right, *_ = paths.curves({"cg": table}).axes
    *samples, mean, elastic, metal = map(points, left.get_lines())
    curves = [table[table["sample"] == k][["E_xx", "S_xx"]].to_numpy() * (100, 1) for k in (0, 1)]
    for line, curve in zip(samples, curves, strict=True):
        assert_allclose(line, np.vstack([(0, 0), curve]))
    assert_allclose(mean[1:], np.mean(curves, axis=0))
    assert_allclose(elastic[1:, 1], 400 * np.array(STRAINS), rtol=1e-4)
    assert_allclose(metal[1:, 1], uniaxial(METAL, STRAINS), rtol=1e-3)
    stresses = np.array(curves)[..., 1]
    assert left.get_ylim()[1] <= 1.2 * stresses.max() < elastic.max()
    spread = 100 * abs(stresses[0] - stresses[1]) / 2**0.5 / stresses.mean(axis=0)
    stress, von_mises = right.get_lines()  # The strain is prescribed.
    for line in (stress, von_mises):  # A uniaxial stress is its von Mises stress.
        assert_allclose(points(line), np.transpose([range(3), spread]), rtol=1e-3)
    turned = table.rename(columns={"E_xx": "S_xx", "S_xx": "E_xx"}).assign(E_xx=table["S_xx"] / 10)
    strain = paths.curves({"cg": turned}).axes[1].get_lines()[0]  # as if the stress were prescribed
    assert_allclose(strain.get_ydata(), spread)
    assert left.get_xlabel() == "macroscopic strain ε$_{xx}$ (%)"


def test_a_path_that_ends_early_has_a_cross_and_leaves_the_mean(table):
    left, *_ = paths.curves({"cg": end_early(table)}).axes
    (cross,) = (line for line in left.get_lines() if line.get_marker() == "x")
    assert_allclose(points(cross)[0, 0], 100 * STRAINS[1])
    (mean,) = (line for line in left.get_lines() if line.get_label().startswith("mean"))
    assert mean.get_ydata()[-1] == table["S_xx"][2]  # of sample 0 alone
    held = paths.curves({"cg": table.assign(**{f"E_{c}": 0.0 for c in COMPONENTS})})  # no strain yet
    assert held.axes[0].get_xlabel() == "macroscopic strain ε$_{xx}$ (%)"


def test_the_plastic_strain_is_drawn_in_percent_in_the_middle_slice(store):
    figure = paths.plastic({"cg": READERS["paths"](store / "zarr.json")})
    panels = [axes for axes in figure.axes if axes.images]
    drawn = [np.asarray(axes.images[0].get_array()).T for axes in panels]
    data, cells = open_dataset(store), open_dataset(store.with_name("cells.zarr"))
    for k in (0, 1):
        phase, *strains = drawn[3 * k : 3 * k + 3]
        assert_array_equal(phase, cells.phase[k, :, :, 3])
        for strain, step in zip(strains, (1, 2), strict=True):
            assert_allclose(strain, 100 * data.accumulated_plastic_strain.sel(kept=step)[k, :, :, 3])
            assert (strain[phase == 0] == 0).all()
    titles = [axes.get_title() for axes in panels[:3]]
    assert titles == ["phase", "step 1, ε$_{xx} = 0.6$%", "step 2, ε$_{xx} = 1$%"]
    ((low, high),) = {axes.images[0].get_clim() for i, axes in enumerate(panels) if i % 3}
    largest = max(image.max() for i, image in enumerate(drawn) if i % 3)
    assert 0 < low < 0.01 * high == pytest.approx(0.01 * largest)


def test_steps_and_samples_without_plastic_strain_are_not_drawn(store):
    """Sample 0 fails before the kept steps, and sample 1 between them."""
    data = READERS["paths"](store / "zarr.json").load()
    data["converged"][:] = [[True, False, False], [True, True, False]]
    for name in ("mean_strain", "accumulated_plastic_strain"):
        data[name][0], data[name][1, -1] = np.nan, np.nan
    phase, strain, _ = paths.plastic({"cg": data}).axes
    assert [axes.get_title() for axes in (phase, strain)] == ["phase", "step 1, ε$_{xx} = 0.6$%"]
    assert phase.get_ylabel().startswith("sample 1\n")
