"""Whole runs of tiny configurations: odd names in another locale, the shipped configurations, load paths."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, assert_complete, invoke, perform, run
from test_config import TEST
from test_published import checkpoint, save

from lspipe import Isotropic, load_model, open_dataset
from lspipe.read_config import parse_config


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory):
    """The environment of a shell in a Latin-1 locale, which is compiled for the test."""
    if not (shutil.which("localedef") and Path("/usr/share/i18n/charmaps/ISO-8859-1.gz").exists()):
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up("needs Debian's package locales (.ci/run installs it)")
    folder = tmp_path_factory.mktemp("locale")
    subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"], check=True)
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_a_run_in_a_latin_1_locale_with_files_of_odd_names(tmp_path, latin_1):
    """The whole workflow, on images and with a published network; the names are UTF-8."""
    encoding = "import sys; print(sys.getfilesystemencoding(), sys.stdout.encoding)"
    assert run(sys.executable, "-c", encoding, cwd=tmp_path, **latin_1).stdout == "iso8859-1 iso8859-1\n"
    folder = tmp_path / 'it\'s a "run" of µ $(touch pwned)'
    folder.mkdir()
    phase = np.random.default_rng(0).integers(2, size=(4, 8, 8, 8), dtype=np.uint8)
    names = [f"-größe µ'$(touch pwned)&*,{{}} (1).{suffix}" for suffix in ("npy", "pth")]
    np.save(folder / names[0], phase)
    save(checkpoint("rln")[1], folder / names[1], legacy=True)
    config = TEST | {"microstructures": {"images": names[0], "train": 1, "valid": 1, "test": 2}}
    config |= {"cases": {"c10": TEST["cases"]["c10"]}}
    config |= {"networks": [{"name": "paper", "architecture": "rln", "published": names[1], "train_on": ["c10"]}]}
    text = yaml.safe_dump(config, allow_unicode=True)
    (folder / "my config's µ $(touch pwned).yaml").write_text(text, encoding="utf-8")
    where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", "my config's µ $(touch pwned).yaml")
    done = run("snakemake", *where, "--cores", 2, cwd=folder, **latin_1)
    assert "Report: results/test/report.html" in done.stdout
    results = folder / "results/test"
    assert_complete(
        results / "report.html", ["slices/paper/imported/c10", "iterates/paper/imported/c10", "gallery/c10"]
    )
    np.testing.assert_array_equal(open_dataset(results / "microstructures/test.zarr").phase, phase[:2])
    assert parse_config(yaml.safe_load((results / "config.yaml").read_text(encoding="utf-8"))) == parse_config(config)
    row = pd.read_csv(results / "tables/mase.csv").set_index(["predictor", "passes"]).loc[("paper", 5)]
    assert row["parameters"] == 664_005
    truth = open_dataset(results / "fields/c10/test.zarr").strain[:, 0].values
    model = load_model(results / "models/paper/imported")
    field = model.predict(phase[:2], [Isotropic(120, 0.3), Isotropic(1200, 0.3)], [1e-3, 0, 0, 0, 0, 0])
    assert row["mean"] == pytest.approx(100 * np.abs(field.strain[:, 0] - truth).mean() / 1e-3, rel=1e-4)
    assert "±" in (results / "tables/mase.md").read_text(encoding="utf-8")
    assert not list(folder.glob("**/pwned"))
    assert "Nothing to be done" in run("snakemake", *where, "--cores", 2, cwd=folder, **latin_1).stderr


TINY = {
    "polycrystal": {"generator": {"kind": "polycrystal", "grains": 12}, "n": 6},
    "porous": {"generator": {"kind": "spheres", "count": 2, "fraction": 0.2}, "n": 8},
    "shear": {"generator": {"kind": "fibres", "count": 1, "fraction": 0.3}, "n": [8, 8, 8], "spacing": [1, 1, 2]},
    "small-first": {"n": 9, "small": {"n": 8, "train": 3, "valid": 1}},
}


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_version_of_a_shipped_configuration_reaches_its_table(tmp_path, name, monkeypatch):
    """Crystals, voids, shear and small cells, from generation to the errors of every problem and predictor."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((REPOSITORY / f"config/{name}.yaml").read_text())
    config["microstructures"] = TINY[name] | {"train": 2, "valid": 1, "test": 2}
    left_out = ("fln", "rln-t-c10", "rln-t-c50", "rln-c10")
    config["networks"] = [network for network in config["networks"] if network["name"] not in left_out]
    config["training"] |= {"epochs": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", "tiny.yaml", "--cores", 1)
    perform(run("snakemake", "-n", "-p", *where, f"results/{name}/tables/mase.csv", cwd=tmp_path).stdout)
    table = pd.read_csv(tmp_path / f"results/{name}/tables/mase.csv")
    checked = parse_config(config)
    assert set(table["case"]) == {*checked.problems}
    assert set(table["predictor"]) == {"cg", *(network.name for network in checked.networks)}
    errors = table.set_index(["case", "predictor", "passes"])["mean"]
    for case in checked.problems:
        assert errors[case, "cg", 10] < 0.1 * errors[case, "cg", 0]
        if name != "small-first":
            assert errors[case, "rln-cg", 5] < errors[case, "cg", 1]
    if name == "small-first":
        models = [json.loads(file.read_text()) for file in Path().glob("results/small-first/models/*/seed0/model.json")]
        of_small = {model["training"].get("start", "none"): model["valid_grids"] for model in models}
        assert of_small == {"none": [[8, 8, 8]], "results/small-first/models/small/seed0": [[9, 9, 9]]}
    if name == "polycrystal":  # the Python of the tutorial, on this run
        blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/polycrystal.md").read_text(), re.S)
        assert len(blocks) == 2
        exec(compile("".join(blocks), "polycrystal.md", "exec"), {})


@pytest.mark.filterwarnings("ignore::lspipe.cell.solver.NotConverged")
def test_a_tiny_version_of_the_load_paths_reaches_its_table(tmp_path, monkeypatch):
    """A network learns two steps of a path. Each kept step of each path is a case of its own.

    The metal cannot carry the third load. The run warns of it and shows the other loads.
    """
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((REPOSITORY / "config/plasticity.yaml").read_text())
    config["microstructures"] = TINY["porous"] | {"train": 2, "valid": 1, "test": 2}
    config["networks"] = [config["networks"][0] | {"epochs": 1}]
    for load in config["loads"].values():
        load["steps"][0]["increments"], load["keep"] = 3, [1, -1]
    config["cases"]["metal"][0]["hardening"]["modulus"] = 0  # It cannot carry more than 0.35 GPa.
    config["loads"]["pull"] = {"steps": [{"stress": [100, 0, 0, 0, 0, 0]}]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", "tiny.yaml", "--cores", 1)
    results = Path("results/plasticity")
    targets = [results / "tables/mase.csv", results / "figures/convergence/metal/stretch/step2.png"]
    targets += [
        results / f"figures/{name}/metal/{load}.png" for name in ("curves", "plastic") for load in ("pull", "stretch")
    ]
    with pytest.warns(UserWarning, match="no microstructure has reached") as warned:
        perform(run("snakemake", "-n", "-p", *where, *targets, cwd=tmp_path).stdout)
    reason = "load path; the load exceeds what the cells can carry, or the increments are too large"
    lines = [line for warning in warned if "no micro" in (line := str(warning.message))]
    fields = results / "fields/metal/pull/test.zarr"
    assert sorted(lines) == [
        f"{fields}: no microstructure has reached {steps} of the {reason}" for steps in ("any step", "step 0")
    ]
    assert all(target.is_file() for target in targets)
    table = pd.read_csv(targets[0]).set_index(["case", "predictor"])
    assert table.loc["metal/pull/step0"]["microstructures"].tolist() == [0]
    assert "<td>not reached</td>" in (results / "tables/mase.html").read_text(encoding="utf-8")
    table = table.drop("metal/pull/step0")
    steps = [f"metal/{step}" for step in ("tension/step1", "tension/step4", "stretch/step1", "stretch/step2")]
    assert {*table.index} == {*((case, "cg") for case in steps), *((case, "fln") for case in steps[2:])}
    for case in steps:
        assert table.loc[case, "cg"]["mean"].iloc[-1] < 0.02 * table.loc[case, "cg"]["mean"].iloc[0]
    conclusion = (results / "tables/conclusion.txt").read_text(encoding="utf-8")
    assert "At metal/stretch/step2, " in conclusion
    assert f"At metal/pull/step0: no microstructure has reached this step of the {reason}.\n" in conclusion
    errors, cells = tmp_path / "errors.parquet", results / "microstructures/test.zarr"
    with pytest.raises(ValueError, match=r"test.zarr: no microstructure has reached step 0 of the load path; "):
        invoke("evaluate", "cg", cells, fields, "--step", 0, "--errors", errors, "--examples", tmp_path / "examples")
    assert not errors.exists()
