"""`lspipe predict`: a line from a file to fields, against closed forms and the solver."""

import re
import shlex

import numpy as np
import pytest
import xarray as xr
from conftest import REPOSITORY, invoke
from numpy.testing import assert_allclose, assert_array_equal
from test_export import fields, read

from lspipe import Cubic, Isotropic, solve
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.images import Images, Source
from lspipe.images.source import Crystals
from lspipe.models.files import load_model
from lspipe.predict_image import predict_image, tabulate_accuracy, tabulate_prediction

TWO = ("--material", "1,0.3", "--material", "10,0.2")


@pytest.fixture
def laminate(tmp_path, monkeypatch):
    """A file (z, y, x) with layers along z, and its phases (x, y, z)."""
    monkeypatch.chdir(tmp_path)
    image = np.full((6, 5, 4), 7, np.uint8)
    image[1:3] = 200
    np.save("layers.npy", image)
    return (image.T == 200).astype(int)


def test_the_fields_of_a_laminate(laminate):
    """Strain along the normal of the layers: the stress is one, and the strain is stress over C3333."""
    load = ("--axes", "zyx", "--spacing", "1,1,0.5", "--strain", "0,0,1e-3,0,0,0", "--tol", 1e-6)
    table = invoke("predict", "layers.npy", *TWO, *load, "--out", "layers.vti")
    C = np.array([m.stiffness[2, 2] for m in (Isotropic(1, 0.3), Isotropic(10, 0.2))])
    stress = 1e-3 / (2 / 3 / C[0] + 1 / 3 / C[1])
    image, data = read("layers.vti"), fields("layers.vti")
    assert (image.GetDimensions(), image.GetSpacing()) == ((5, 6, 7), (1, 1, 0.5))
    x_fastest = laminate.ravel(order="F")
    assert_array_equal(data["phase"], x_fastest)
    assert_allclose(data["strain"][:, 2], stress / C[x_fastest], rtol=1e-5)
    assert_allclose(data["stress"][:, 2], stress, rtol=1e-5)
    assert "phase 1, label 200  " in table
    assert "33.33% of the voxels" in table
    assert f"⟨stress zz⟩ / ⟨strain zz⟩ = {stress / 1e-3:.5g}" in table
    assert f"largest strain zz         {stress / C[0]:.4g} in voxel" in table
    assert f"largest von Mises strain  {2 / 3 * stress / C[0]:.4g} in voxel" in table


def test_a_store_opens_with_xarray(laminate):
    invoke("predict", "layers.npy", *TWO, "--axes", "zyx", "--out", "fields.zarr", "--model", "rln-cg")
    data = xr.open_zarr("fields.zarr")
    truth = solve(laminate, [Isotropic(1, 0.3), Isotropic(10, 0.2)], [1e-3, 0, 0, 0, 0, 0], tol=1e-6)
    assert_array_equal(data.phase, laminate)
    assert_allclose(data.strain, truth.strain[0], atol=1e-6)
    assert_allclose(data.stress.sel(component="yy"), truth.stress[0, 1], atol=1e-5)
    assert data.attrs["spacing"] == [1, 1, 1]


def test_uniaxial_stress(tmp_path):
    """A homogeneous cell under uniaxial stress answers with Young's modulus, and a mean strain of −ν across."""
    image = Source(tmp_path, "", (4, 5, 6), np.dtype("u1"), "xyz", lambda part: np.zeros((4, 5, 6), np.uint8)[part])
    problem = Problem((Isotropic(120, 0.3),), (None,) * 6, (0, 0.12, 0, 0, 0, 0))
    rows = dict(tabulate_prediction(predict_image(Images([image]), problem, load_model("cg"), labels=[0])))
    assert rows["effective response"] == "⟨stress yy⟩ / ⟨strain yy⟩ = 120 GPa"
    assert rows["mean strain"] == "xx -0.0003, yy 0.001, zz -0.0003, yz 0, xz 0, xy 0"


def test_grains_have_the_crystals_of_the_file(tmp_path):
    """Turning a cubic crystal by 90° changes nothing; turning it by 45° about z gives (C11 + C12 + 2 C44) / 2."""
    grain = np.ones((4, 4, 4), np.int32)
    for angle, expected in ((90, 168.4), (45, (168.4 + 121.4) / 2 + 75.4)):
        half = np.radians(angle / 2)
        crystals = Crystals(np.array([-1, 0]), np.array([[1.0, 0, 0, 0], [np.cos(half), 0, 0, np.sin(half)]]), ("Cu",))
        source = Source(tmp_path, "", grain.shape, grain.dtype, "xyz", grain.__getitem__, crystals=crystals)
        problem = Problem((Cubic(168.4, 121.4, 75.4),), (1e-3, 0, 0, 0, 0, 0))
        prediction = predict_image(Images([source]), problem, load_model("cg"))
        rows = dict(tabulate_prediction(prediction))
        assert rows["effective response"] == f"⟨stress xx⟩ / ⟨strain xx⟩ = {expected:g} GPa"
        assert rows["Cu"].startswith("100.00%")
        assert prediction.fields["orientation"].shape == (4, 4, 4, 4)
    with pytest.raises(ValueError, match=r"2 materials: .* has 1 kinds of crystals, Cu; give --material once for each"):
        predict_image(Images([source]), Problem(problem.materials * 2, problem.strain), load_model("cg"))


def test_a_network_of_one_component_writes_what_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phase = np.random.default_rng(0).integers(0, 2, (8, 9, 10))
    np.save("a.npy", phase)
    ten = ("--material", "120,0.3", "--material", "1200,0.3", "--model", "rln-c10")
    table = invoke("predict", "a.npy", *ten, "--passes", 2, "--out", "a.vti")
    assert set(fields("a.vti")) == {"phase", "strain_xx"}
    materials = [Isotropic(120, 0.3), Isotropic(1200, 0.3)]
    truth = load_model("rln-c10").predict(phase, materials, [1e-3, 0, 0, 0, 0, 0], passes=2).strain[0, 0]
    assert_allclose(fields("a.vti")["strain_xx"], truth.ravel(order="F"), rtol=1e-6)
    assert "none: this network predicts xx alone" in table


def test_the_report_shows_what_a_network_states_of_its_error():
    strain = np.zeros((1, 1, 2, 2, 2))
    rows = dict(tabulate_accuracy(Solution(strain, ("xx",), mase_90=np.array([3.214]))))
    assert rows["guaranteed error"].startswith("none")
    assert rows["likely MASE"].startswith("at most 3.21% for 90 % of the microstructures")
    rows = dict(tabulate_accuracy(Solution(strain, ("xx",), residual=np.array([0.12]), bound=np.array([0.3]))))
    assert rows == {
        "guaranteed error": "at most 30% of the field, in the energy norm",
        "relative residual": "0.12",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers.npy", *TWO, "--model", "none"], "none: must be a folder with a model.json, or one of 'fln-c10'"),
        (["layers.npy", *TWO, "--model", "rln-c10"], "has 6×5×4 voxels; this network needs at least 8"),
        (["layers.npy", *TWO, "--model", "rln-cg", "--passes", 3, "--tol", 0.1], "--tol and --passes: give one"),
        (["layers.npy", *TWO, "--model", "rln-c10", "--tol", 0.1], "--tol 0.1: this network has no residual"),
        (["layers.npy", *TWO, "--out", "a.png"], "a.png: must end in .vti or .zarr"),
        (["layers.npy", *TWO, "--out", "there.zarr"], "there.zarr: exists already and is not replaced"),
        (
            ["layers.npy", *TWO[:2]],
            r"1 material: layers.npy has 2 phases, label 7 \(80 voxels\), label 200 \(40 voxels",
        ),
        (["layers.npy", *TWO, "--labels", "7,8"], r"label 200 \(40 voxels\): must have no label but labels = \[7, 8\]"),
        (["layers.npy", *TWO, "--blocks", "2"], "layers.npy: makes 12 cells; choose one with --image 0 to 11"),
        (["layers.npy", *TWO, "--image", 1], "--image 1: must be 0, the only cell of layers.npy"),
        (["layers.npy", "--material", "0,0.3", "--material", "1,0", "--crop", "0:1,:,:", "--labels", "7,200"], "solid"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(laminate, tmp_path, words, message):
    (tmp_path / "there.zarr").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        invoke("predict", *(words if "--out" in words else [*words, "--out", "new.zarr"]))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cell_larger_than_the_memory(tmp_path):
    huge = Source(tmp_path / "huge.npy", "", (9999,) * 3, np.dtype("u1"), "xyz", lambda part: np.zeros((1, 1, 1)))
    with pytest.raises(
        ValueError, match=r"huge.npy: a cell of 9999 × 9999 × 9999 voxels takes about 499850 GB: must take"
    ):
        predict_image(Images([huge]), Problem((Isotropic(1, 0),), (1, 0, 0, 0, 0, 0)), load_model("cg"), labels=[0])


def test_the_documentation_shows_what_the_commands_print(tmp_path, monkeypatch):
    """The blocks of docs/predict.md run in their order; each shown line is printed by the command before it."""
    monkeypatch.chdir(tmp_path)
    printed = ""
    for language, block in re.findall(
        r"^```(\w+)\n(.*?)^```", (REPOSITORY / "docs/predict.md").read_text(), re.S | re.M
    ):
        if language == "python":
            exec(block, {})
        elif language == "sh":
            lines = block.replace("\\\n", "").splitlines()
            printed = "".join(invoke(*shlex.split(line, comments=True)[1:]) for line in lines)
        else:
            assert set(block.splitlines()) <= set(printed.splitlines())
    assert {file.name for file in tmp_path.glob("s*.*")} == {f"spheres.{s}" for s in ("npy", "png", "vti", "zarr")}
