"""The whole workflow at its tiny configuration: everything is there, right, and done once."""

import json
import os
import re
import shutil
from contextlib import suppress
from html.parser import HTMLParser
from importlib.metadata import version

import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
import yaml
from conftest import REPOSITORY, assert_complete, environment, run
from test_config import TEST

from lspipe import Isotropic, load_model, open_dataset, solve
from lspipe.cell.problem import Problem
from lspipe.evaluate import compute_distances
from lspipe.machine import cores, processor
from lspipe.models.operations import operations
from lspipe.read_config import parse_config
from lspipe.summary import summary
from lspipe.tables import html, table
from lspipe.verify import verify

PREDICTORS = {"c10": ["cg", "fln", "rln-cg"], "c50": ["cg", "rln-t-50", "rln-cg"]}
FIGURES = ["learning_curves/c10", "slices/fln/seed0/c10", "iterates/rln-t-50/seed0/c50"]
SHOWN = {"cg": [0, 1, 5, 10], "fln": [1], "rln-t-50": [5], "rln-cg": [1, 5, 10]}


@pytest.fixture
def copied(pipeline, tmp_path):
    folder = shutil.copytree(pipeline.folder, tmp_path / "copy")
    return pipeline._replace(folder=folder, results=folder / "results/test")


def test_a_second_run_does_nothing(copied):
    assert "Nothing to be done" in copied.snakemake("--cores", 2).stderr


def test_every_product_has_its_log_and_benchmark(pipeline):
    for name in ("microstructures/train", "allocate/c10/test", "solve/c50/train/1", "train/fln/seed0", "table"):
        assert (pipeline.results / f"logs/{name}.log").is_file()
        assert "max_rss" in (pipeline.results / f"benchmarks/{name}.tsv").read_text()


def test_fields_are_right(pipeline):
    cells = open_dataset(pipeline.results / "microstructures/test.zarr")
    for case, stiff in (("c10", 1200), ("c50", 6000)):
        fields = open_dataset(pipeline.results / f"fields/{case}/test.zarr")
        truth = solve(cells.phase.values, [Isotropic(120, 0.3), Isotropic(stiff, 0.3)], [1e-3, 0, 0, 0, 0, 0], tol=1e-8)
        error = np.abs(fields.strain - truth.strain).mean(("component", "x", "y", "z"))
        assert (error < 2e-4 * 1e-3).all()
        receipts = (
            json.loads((pipeline.results / f"fields/{case}/test.receipts/{k}.json").read_text()) for k in (0, 1)
        )
        assert [receipt["samples"] for receipt in receipts] == [[0, 4], [4, 6]]


def test_stores_are_read_as_the_docs_say(pipeline, monkeypatch):
    """The Python of docs/data.md, each block a program of its own."""
    monkeypatch.chdir(pipeline.folder)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/data.md").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block.replace("results/default", "results/test"), "data.md", "exec"), {})


def test_every_store_verifies(pipeline):
    stores = [*pipeline.results.glob("microstructures/*.zarr"), *pipeline.results.glob("fields/*/*.zarr")]
    assert len(stores) == 9
    assert not [verify(store).table() for store in stores if verify(store).faults]


def test_a_product_is_made_again_in_place(copied):
    """Snakemake has removed the store's zarr.json by then."""
    store = copied.results / "evaluation/cg/c10.zarr"
    before = open_dataset(store).load()
    copied.snakemake("--cores", 1, "--force", "results/test/evaluation/cg/c10.parquet")
    assert open_dataset(store).equals(before)


@pytest.mark.parametrize("case", PREDICTORS)
def test_table_is_what_the_models_predict(pipeline, case):
    """Every number recomputed, voxel by voxel and with Hooke's law by hand, from the stores and the model files."""
    table = pd.read_csv(pipeline.results / "tables/mase.csv").set_index(["case", "predictor", "passes"]).loc[case]
    assert list(table.index) == [(p, passes) for p in PREDICTORS[case] for passes in SHOWN[p]]
    phase = open_dataset(pipeline.results / "microstructures/test.zarr").phase.values
    truth = xr.open_zarr(pipeline.results / f"fields/{case}/test.zarr", consolidated=False).strain.values.astype(float)
    stiff = 1200 if case == "c10" else 6000
    young = np.where(phase == 1, stiff, 120)[:, None]
    shear = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)

    def hooke(strain):
        volumetric = np.zeros_like(strain)
        volumetric[:, :3] = strain[:, :3].sum(axis=1, keepdims=True)
        return young / 1.3 * (strain + 0.3 / 0.4 * volumetric)

    def equivalent(strain):
        """The von Mises stress (N, nx, ny, nz), of the stress without its trace."""
        deviator = hooke(strain)
        deviator[:, :3] -= deviator[:, :3].mean(axis=1, keepdims=True)
        return np.sqrt(1.5 * (deviator**2 * shear).sum(axis=1))

    for (predictor, passes), row in table.iterrows():
        model = load_model(predictor if predictor == "cg" else pipeline.results / f"models/{predictor}/seed0")
        problem = Problem([Isotropic(120, 0.3), Isotropic(stiff, 0.3)], [1e-3, 0, 0, 0, 0, 0])
        found = model.predict_problem(phase, problem, passes=passes)
        strain = found.strain.astype(float)
        error = strain - truth if strain.shape[1] == 6 else strain - truth[:, :1]
        errors = np.array([100 * np.mean(np.abs(e[0])) / 1e-3 for e in error])
        numbers = {
            "mean": errors.mean(),
            "std": errors.std(ddof=1),
            "ci95": 1.96 * errors.std(ddof=1) / np.sqrt(6),
            "median": np.median(errors),
            "max": errors.max(),
            "rmse": np.mean([100 * np.sqrt(np.mean(e[0] ** 2)) / 1e-3 for e in error]),
            "max_error": np.mean([100 * np.abs(e[0]).max() / 1e-3 for e in error]),
            "hot_spot": np.mean([100 * abs(s[0].max() / t[0].max() - 1) for s, t in zip(strain, truth, strict=True)]),
        }
        if strain.shape[1] == 6:
            norms = [np.sqrt((hooke(e) * e * shear).sum(axis=(1, 2, 3, 4))) for e in (error, truth)]
            stresses = [hooke(e).mean(axis=(2, 3, 4)) for e in (error, truth)]
            sizes = [np.sqrt((s**2 * shear[:, 0, 0, 0]).sum(axis=1)) for s in stresses]
            numbers |= {"energy": 100 * np.mean(norms[0] / norms[1]), "mean_stress": 100 * np.mean(sizes[0] / sizes[1])}
            mises = [equivalent(field) for field in (strain, truth)]
            off, size = (np.mean(field, axis=(1, 2, 3)) for field in (abs(mises[0] - mises[1]), mises[1]))
            numbers["von_mises"] = 100 * np.mean(off / size)
        if found.bound is not None:
            numbers |= {"bound": found.bound.mean(), "residual": found.residual.mean()}
        if found.green is not None:
            numbers["green"] = passes
        numbers["operations"] = operations(model, (8, 8, 8), problem)[passes]
        for name, value in numbers.items():
            assert row[name] == pytest.approx(value, rel=2e-3), name
        assert row[[name for name in ("energy", "mean_stress", "bound") if name not in numbers]].isna().all()
        text = (pipeline.results / "tables/mase.md").read_text()
        (line,) = re.findall(rf"^\| {case} *\| {predictor} *\| {passes} *\|.*", text, re.M)
        *_, cost, rate = (word.strip() for word in line.strip("|").split("|"))
        assert f"{row['mean']:.3g} ± {row['std']:.2g}" in line
        assert cost == f"{row['operations'] / 1e9:.3g}"
        assert float(rate.replace(",", "")) == pytest.approx(1e3 / row["ms"], rel=0.06)
        assert row["device"].startswith(processor())
        assert row["device"] in text
    assert table["parameters"].to_dict().get(("fln", 1), 132_801) == 132_801


def test_examples_are_the_worst_the_median_and_the_first(pipeline):
    folder = pipeline.results / "evaluation/rln-t-50/seed0"
    errors, examples = pd.read_parquet(folder / "c50.parquet"), open_dataset(folder / "c50.zarr")
    errors = errors[errors["passes"] == 5].set_index("sample")
    worst, median = examples.attrs["worst"], examples.attrs["median"]
    assert errors["mase"].idxmax() == worst
    assert sorted(errors["mase"]).index(errors["mase"][median]) == 3
    assert examples["sample"].values.tolist() == list(range(6))
    np.testing.assert_allclose(examples["mase"][:, -1], errors["mase"], rtol=1e-5)
    assert examples["iterates"].sizes["pass"] == 5


def test_a_network_of_all_components_gives_the_mean_strain(pipeline):
    phase = open_dataset(pipeline.results / "microstructures/test.zarr").phase.values
    model, load = load_model(pipeline.results / "models/rln-t-50/seed0"), [1e-3, 0, 0, 0, 0, 0]
    solution = model.predict(phase, [Isotropic(120, 0.3), Isotropic(6000, 0.3)], load)
    assert solution.components == ("xx", "yy", "zz", "yz", "xz", "xy")
    np.testing.assert_allclose(solution.strain.mean(axis=(2, 3, 4)), np.tile(load, (6, 1)), atol=1e-8)


def test_report_is_complete_and_opens_offline(pipeline):
    assert_complete(pipeline.results / "report.html", FIGURES)
    conclusion = (pipeline.results / "tables/conclusion.txt").read_text()
    assert re.findall("^At (c10|c50), .*; after 5 applications of the Green operator, ", conclusion, re.M) == [
        "c10",
        "c50",
    ]
    assert f"Report: results/test/report.html\n{conclusion}" in pipeline.output


def test_a_report_that_is_cut_short_is_made_by_the_next_run(copied):
    """The disk is full, and then Snakemake is killed while it writes."""
    report, unfinished = copied.results / "report.html", copied.results / "report.html.new.html"
    report.unlink()
    unfinished.symlink_to("/dev/full")
    done = copied.snakemake("--cores", 1, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert not re.search("^Report: ", done.stdout + done.stderr, re.M)
    assert not report.exists()

    unfinished.unlink()
    os.mkfifo(unfinished)
    reader = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    process = psutil.Popen(copied.command("--cores", 1), cwd=copied.folder, env=environment())
    written = b""
    while not written:  # until the first bytes of the report have arrived
        assert process.poll() is None
        with suppress(BlockingIOError):
            written = os.read(reader, 4096)
    for each in [process, *process.children(recursive=True)]:
        each.kill()
    process.wait()
    os.close(reader)
    unfinished.unlink()
    unfinished.write_bytes(written)
    assert not report.exists()

    copied.snakemake("--unlock")
    assert "Report: results/test/report.html" in copied.snakemake("--cores", 1).stdout
    assert_complete(report, FIGURES)
    assert not unfinished.exists()


def test_the_workflow_as_a_module(copied):
    """As docs/workflow.md has it, in a project of one's own: it goes on from what is there, and makes a report."""
    (text,) = re.findall(r"```text\n(.*?)```", (REPOSITORY / "docs/workflow.md").read_text(), re.S)
    for folder in ("workflow", "config"):
        (copied.folder / folder).mkdir()
    snakefile = text.replace(
        'github("…/lspipe", path="workflow/Snakefile", tag="…")', f'"{REPOSITORY}/workflow/Snakefile"'
    )
    assert "…" not in snakefile
    (copied.folder / "workflow/Snakefile").write_text(snakefile)
    shutil.copy(REPOSITORY / "config/test.yaml", copied.folder / "config/config.yaml")
    (copied.results / "report.html").unlink()
    done = run("snakemake", "--cores", 1, cwd=copied.folder)
    assert set(re.findall(r"^(?:local)?rule (\w+):", done.stderr, re.M)) == {"report", "all"}
    assert_complete(copied.results / "report.html", FIGURES)

    # The same, its rules renamed, in a part of the configuration and of the folder.
    (copied.folder / "sub").mkdir()
    (copied.folder / "results").rename(copied.folder / "sub/results")
    changes = {
        "        config\n": '        config["cells"]\n    prefix:\n        "sub"\n',
        "* from lspipe": "* from lspipe as lspipe_*",
    }
    for old, new in changes.items():
        assert snakefile.count(old) == 1
        snakefile = snakefile.replace(old, new)
    (copied.folder / "workflow/Snakefile").write_text(snakefile)
    (copied.folder / "config/config.yaml").write_text(yaml.safe_dump({"cells": TEST}))
    plan = run("snakemake", "-n", "-p", "--forceall", cwd=copied.folder).stdout
    assert "rule lspipe_report:" in plan
    commands = re.findall("^Shell command: (.*)", plan, re.M)
    assert len(commands) > 40
    assert not [command for command in commands if re.search("(?<!sub/)results/", command)]


class Elements(HTMLParser):
    """The names of all elements of a page."""

    def __init__(self, page):
        super().__init__()
        self.names = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)


def test_what_a_file_says_is_text_in_html(pipeline):
    errors = {}
    for case, name in (("c10", "cg"), ("c10", "fln/seed0")):
        errors[case, name] = [pd.read_parquet(pipeline.results / f"evaluation/{name}/{case}.parquet")]
        errors[case, name][0].attrs["device"] = "<img src=x onerror=alert(1)>"
    rows = table(errors)
    assert "img" not in Elements(html(rows)).names
    page = summary(parse_config(TEST), rows, {}, {})
    assert "img" not in Elements(page).names
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_figures_come_as_png_and_pdf(pipeline):
    figures = {p.relative_to(pipeline.results / "figures") for p in (pipeline.results / "figures").rglob("*.png")}
    of_cases = ("learning_curves", "mase", "convergence", "trends", "gallery", "distributions", "interfaces")
    of_cases += ("effective", "effective_errors", "comparison")
    assert {str(p) for p in figures} == {
        *(f"{kind}/{case}.png" for kind in of_cases for case in PREDICTORS),
        *(
            f"{kind}/{p}.png"
            for kind in ("slices", "iterates", "density")
            for p in ("fln/seed0/c10", "rln-t-50/seed0/c50", "rln-cg/seed0/c10", "rln-cg/seed0/c50")
        ),
    }
    assert all((pipeline.results / "figures" / p.with_suffix(".pdf")).is_file() for p in figures)


def test_the_first_page_says_what_was_run_on_what(pipeline):
    page = (pipeline.results / "summary.html").read_text()
    for said in (
        "generated cells (gaussian) of 8×8×8 voxels, seed 0: 12 to train on, 4 to choose the epoch, 6 to test",
        "isotropic, poisson 0.3, young 120.0 (moduli in GPa); isotropic, poisson 0.3, young 6000.0 (moduli in GPa)",
        "macroscopic strain xx 0.001, yy 0, zz 0, yz 0, xz 0, xy 0",
        "2 epochs, batches of 4, learning rate 0.002, seeds 0, adam, float32",
        f"torch {version('torch')}",
        f"{cores()} cores",
        "trained, seed 0",
        (pipeline.results / "tables/conclusion.txt").read_text().splitlines()[0],
        "<figcaption>Test microstructures (dark: phase 1) and their true strain",
        "samples_per_shard: 4",  # of the complete configuration
        "safe center",  # or Snakemake would put the top out of reach
        f"{json.loads((pipeline.results / 'models/fln/seed0/model.json').read_text())['samples_per_second']:.3g}",
    ):
        assert said in page
    assert page.count("data:image/png;base64,") == 3
    table = pd.read_csv(pipeline.results / "tables/mase.csv")
    assert all(f"{mean:.3g} ± {std:.2g}" in page for mean, std in zip(table["mean"], table["std"], strict=True))
    assert json.dumps(page)[1:-1].split("\\n")[0] in (pipeline.results / "report.html").read_text()


def test_what_examples_say_of_distance_is_counted_by_hand():
    """Of a cell 5×1×1 with one voxel of phase 1, periodically."""
    phase = np.zeros((5, 4, 4), np.uint8)
    assert np.isinf(compute_distances(phase)).all()
    phase[1] = 1
    assert compute_distances(phase)[:, 0, 0].tolist() == [1, 1, 1, 2, 2]
    phase[1, 1:] = 0
    assert compute_distances(phase)[2, 3, 0] == pytest.approx(2**0.5)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_a_network_of_the_user_is_added_to_a_finished_run(copied):
    """The example of docs/network.md, a class in one file. Nothing else is trained or evaluated for it."""
    page = (REPOSITORY / "docs/network.md").read_text()
    (program,), (entry,) = (re.findall(f"```{language}\n(.*?)```", page, re.S) for language in ("python", "yaml"))
    (copied.folder / "dilated.py").write_text(program)
    networks = [*TEST["networks"], *yaml.safe_load(entry)["networks"]]
    (copied.folder / "more.yaml").write_text(yaml.safe_dump(TEST | {"networks": networks}))
    done = copied.snakemake("--cores", 2, "--configfile", "more.yaml")
    rules = re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.M)
    assert [rules.count(name) for name in ("train", "evaluate")] == [1, 1]
    table = pd.read_csv(copied.results / "tables/mase.csv").set_index(["case", "predictor", "passes"])
    assert table.loc[("c10", "dilated", 3), "mean"] < 100
    report = (copied.results / "report.html").read_text()
    assert all(f"{kind}/dilated/seed0/c10.png" in report for kind in ("slices", "iterates"))

    with open(copied.folder / "dilated.py", "a") as file:
        file.write("# A change of the file trains the network again, and no other.\n")
    plan = copied.snakemake("--dry-run", "--cores", 2, "--configfile", "more.yaml").stdout
    assert re.findall(r"^rule train:.*?output: (\S+),", plan, re.M | re.S) == [
        "results/test/models/dilated/seed0/model.json"
    ]
