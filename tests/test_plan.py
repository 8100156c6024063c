"""What a run makes of a configuration: predictors, files, options and memory, counted by hand."""

import csv
import math

import numpy as np
import pytest
from conftest import REPOSITORY
from test_config import TEST

from lspipe import figures
from lspipe.images import read_images
from lspipe.plan import Plan, words
from lspipe.read_config import parse_config
from lspipe.report_figures import FIGURES, FIRST_PAGE


def plan(**changes):
    return Plan(parse_config(TEST | changes))


WIDE = {
    "microstructures": {"images": "i.npy", "labels": [3, 1], "train": 9, "valid": 3, "test": 3},
    "cases": TEST["cases"] | {"c5": [{"young": 120, "poisson": 0.3}, {"young": 600, "poisson": 0.3}]},
    "networks": [
        {"name": "a", "architecture": "fln", "published": "a.pth", "train_on": ["c10"]},
        {"name": "b", "architecture": "rln-t", "train_on": ["c50"]},
        {"name": "c", "architecture": "rln-cg", "train_on": ["c50", "c10"]},
    ],
    "training": {"seeds": [3, 5]},
}


def test_a_predictor_is_the_solver_or_a_network_with_its_seed():
    predictors = plan(**WIDE).predictors
    assert {p.folder: (p.name, p.label) for p in predictors.values()} == {
        "cg": ("cg", "cg"),
        "a/imported": ("a", "a"),
        "b/seed3": ("b", "b seed 3"),
        "b/seed5": ("b", "b seed 5"),
        "c/seed3": ("c", "c seed 3"),
        "c/seed5": ("c", "c seed 5"),
    }
    assert [p.label for p in plan().networks] == ["fln", "rln-t-50", "rln-cg"]


def test_a_case_has_the_predictors_that_learned_it():
    wide = plan(**WIDE)
    evaluated = {case: [p.folder for p in wide.evaluated(case)] for case in WIDE["cases"]}
    assert evaluated == {
        "c10": ["cg", "a/imported", "c/seed3", "c/seed5"],
        "c50": ["cg", "b/seed3", "b/seed5", "c/seed3", "c/seed5"],
        "c5": ["cg"],
    }
    assert [p.folder for p in wide.shown("learning_curves", "c10")] == ["c/seed3", "c/seed5"]
    assert [p.folder for p in wide.shown("gallery", "c10")] == ["cg"]
    assert [p.folder for p in wide.shown("slices", "c10", "c/seed5", run="test")] == ["c/seed5"]
    assert len(wide.table) == 4 + 5 + 1
    assert wide.table["results/test/evaluation/b/seed5/c50.parquet"] == ("c50", "b")


def test_the_figures_of_the_report_are_those_of_cases_with_networks():
    """Nine figures of two cases, three of each of seven networks, and the learning curves of two."""
    figures = plan(**WIDE).figures
    assert len(figures) == len(set(figures)) == 9 * 2 + 3 * 7 + 2
    assert not [file for file in figures if "/c5." in file]
    published = plan(**WIDE | {"networks": WIDE["networks"][:1]}).figures
    assert len(published) == 9 + 3
    assert not [file for file in published if "learning_curves" in file or "c50" in file]


def test_figures_that_all_cases_have_share_a_process():
    """A figure that a case lacks, here the learning curves of c10, has a rule of its own."""
    pages = plan(**WIDE).pages
    assert {page: len(names) for page, names in pages.items()} == {
        "case_figures": 9,
        "effective": 1,
        "network_figures": 3,
    }
    apart = plan(**WIDE | {"networks": WIDE["networks"][:2]})
    assert apart.pages == pages | {
        "case_figures": [name for name in pages["case_figures"] if name != "learning_curves"],
        "learning_curves": ["learning_curves"],
    }
    assert apart.wildcards("learning_curves") == [{"case": "c50"}]


def test_without_networks_the_figures_are_those_of_the_first_page_and_the_moduli():
    alone = plan(networks=[])
    assert alone.pages == {"case_figures": ["mase", "convergence", "gallery"], "effective": ["effective"]}
    assert {*FIRST_PAGE} == {*alone.pages["case_figures"]}


def test_a_case_without_training_needs_its_test_set_alone():
    files = plan(**WIDE).data
    of_c5 = [file for file in files if "/c5/" in file]
    assert of_c5 == [
        "results/test/fields/c5/test.receipts/0.json",
        "results/test/fields/c5/test.zarr/strain/c/0/0/0/0/0",
    ]
    assert sum("/c50/train" in file for file in files) == 2 * 3  # nine images, four in a shard


def test_a_network_on_small_cells_learns_them_alone():
    """It is tested on the cells of the run, and its weights start another network."""
    small = {"n": [10, 8, 9], "train": 6, "valid": 3}
    networks = [
        {"name": "a", "architecture": "fln", "train_on": ["c10"], "small": True, "learning_rate": 0.01},
        {"name": "b", "architecture": "rln", "train_on": ["c50"], "start": "a"},
    ]
    both = plan(microstructures={"n": 12, "train": 12, "valid": 4, "test": 6, "small": small}, networks=networks)
    first, second = both.config.networks
    assert both.start("b/seed0") == both.model("a/seed0")
    assert both.training_stores(first) == (
        [
            "results/test/microstructures/small_train.zarr/zarr.json",
            "results/test/fields/c10/small_train.zarr/zarr.json",
        ],
        [
            "results/test/microstructures/small_valid.zarr/zarr.json",
            "results/test/fields/c10/small_valid.zarr/zarr.json",
        ],
    )
    assert [both.config.training_of(n)["learning_rate"] for n in (first, second)] == [0.01, 2e-3]
    options = {"count": 6, "n": [[10, 8, 9]], "seed": 0, "split": "train", "samples_per_shard": 4}
    assert both.microstructures("small_train") == options
    assert both.microstructures("train") == options | {"count": 12, "n": [[12, 12, 12]]}
    solved = {file.partition("fields/")[2].partition(".")[0] for file in both.data}
    assert solved == {"c10/test", "c10/small_train", "c10/small_valid", "c50/test", "c50/train", "c50/valid"}
    voxels, batch = 10 * 8 * 9, both.config.training.batch
    solver = {"small_train": voxels, "train": 12**3}
    assert {split: both.solver_memory(1, split) for split in solver} == {
        split: pytest.approx(800 + 24e-6 * n * (3 * 4 + 140)) for split, n in solver.items()
    }
    assert both.training_memory(first) == pytest.approx(4000 + 13e-3 * batch * voxels + 4e-6 * 6 * voxels * 6)


def test_images_are_shared_out_among_the_splits():
    """The first three are for the test, the next three choose the epoch."""
    options = plan(**WIDE).microstructures("train")
    assert options == {"count": 9, "first_image": 6, "labels": [[3, 1]], "split": "train", "samples_per_shard": 4}
    generated = plan().microstructures("test")
    assert generated == {"count": 6, "n": [[8, 8, 8]], "seed": 0, "split": "test", "samples_per_shard": 4}


def test_a_published_network_is_said_to_be_of_its_case():
    wide = plan(**WIDE)
    options = wide.published(wide.predictors["a/imported"].network)
    assert options == {"contrast": 10, "young": 120, "poisson": 0.3, "architecture": "fln"}


def test_words_keep_what_they_are_made_of():
    """A CSV reader gives the entries back, commas and quotes included."""
    entries = ['RLN, "new"', "a b.png"]
    assert words(first_image=2, figure=[entries, ["x", "y"]])[:2] == ["--first-image", "2"]
    name, word, *rest = words(figure=[entries, ["x", "y"]])
    assert (name, next(csv.reader([word])), rest) == ("--figure", entries, ["--figure", "x,y"])


def test_cores_are_shared_by_the_trainings():
    assert plan().training_threads(16) == 5  # three networks
    assert plan(**WIDE).training_threads(2) == 1
    assert plan(**WIDE | {"networks": WIDE["networks"][:1]}).training_threads(6) == 6
    assert plan().training_threads(None) == 8


def test_jobs_ask_for_memory_by_the_size_of_the_images(tmp_path, monkeypatch):
    """The image has 128³ voxels. Only its header is read."""
    monkeypatch.chdir(tmp_path)
    np.lib.format.open_memmap("ct.npy", "w+", np.uint8, (3, 128, 128, 128)).flush()
    np.savez_compressed("ct.npz", a=np.zeros((2, 8, 9, 10), np.int64))
    assert math.prod(read_images(tmp_path / "ct.npy").shape) == 128**3
    assert math.prod(read_images(tmp_path / "ct.npz").shape) == 720
    of_images = plan(microstructures={"images": "ct.npy", "train": 1, "valid": 1, "test": 1})
    for predictor, rate in (("cg", 1.1e-3), ("rln-cg/seed0", 1.1e-3), ("fln/seed0", 2.4e-3)):
        assert of_images.evaluation_memory(predictor, 1) == pytest.approx(700 + rate * 128**3)
    assert of_images.evaluation_memory("cg", 2) == pytest.approx(700 + 1.1e-3 * 2 * 128**3)
    assert of_images.evaluation_memory("fln/seed0", 2) == of_images.evaluation_memory("fln/seed0", 1)
    assert plan(**WIDE).voxels() == 64**3  # no such file


def test_memory_of_the_solver_and_of_training():
    """A core and 300 MB a shard, 500 beside; 4 GB for PyTorch. The cells of 8³ voxels are tiny."""
    tiny = plan()
    assert [math.ceil(tiny.solver_memory(threads)) for threads in (1, 2)] == [802, 1104]
    memory = [math.ceil(tiny.training_memory(p.network)) for p in tiny.networks]
    assert memory == [4027, 4028, 4028]  # of xx alone; all components; inside the solver


def test_every_figure_has_a_caption_and_a_function():
    assert {*FIGURES} == {*figures.FUNCTIONS}
    assert {f"{name}.rst" for name in FIGURES} < {file.name for file in REPOSITORY.glob("workflow/report/*")}
