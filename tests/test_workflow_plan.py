"""What the workflow plans: nothing of a wrong configuration; of a changed key what config/README.md says."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import BIN, REPOSITORY, run
from test_config import TEST, changed, leaves

from lspipe.config import parse_config

COMPLETE = parse_config(TEST).model_dump(mode="json")
LEAVES = {key: (path, value) for key, path, value in leaves(COMPLETE)}
OTHER = {
    "run": "other",
    "microstructures.images": "images.npy",
    "microstructures.labels": [0, 255],
    "solver.scheme": "full",
    "networks[].name": "other",
    "networks[].architecture": "rln",
    "networks[].components": "all",
    "networks[].checkpoint": "published.pth",
    "networks[].train_on": "c50",
    "training.precision": "bf16",
}
FOLLOWS = {
    "solve": {"gather"},
    "train": {"learning_curves"},
    "evaluate": {
        *("table", "summary", "mase", "convergence", "trends"),
        *("slices", "iterates", "density", "distributions", "interfaces"),
    },
}

# Stands for `lspipe` in a run that only leaves empty files behind, and for the `snakemake` that makes the report.
STUB = """#!/bin/sh
make() { [ -e "$1" ] || { mkdir -p "${1%/*}" && : > "$1"; }; }
[ "$1" = train ] && touch "${2%/*}/model.safetensors" "${2%/*}/metrics.csv"
for word; do
    case $word in results/*) make "$word" ;; esac
    case $word in
        *.receipts/*.json) k=${word##*/} && make "${word%.receipts/*}.zarr/strain/c/${k%.json}/0/0/0/0" ;;
    esac
done
"""

# `snakemake -n` for each file, with what takes seconds to import imported once.
DRY_RUNS = """
import os, sys
import snakemake.cli, lspipe.config, lspipe.microstructure
snakefile, *files = sys.argv[1:]
for file in files:
    if not os.fork():
        os.dup2(os.open(f"{file}.plan", os.O_WRONLY | os.O_CREAT), 1)
        snakemake.cli.main(["-n", "--snakefile", snakefile, "--configfile", file])
    assert os.wait()[1] == 0, file
"""


def snakemake(folder, *arguments, **options):
    """The command, with the stub first on its path."""
    where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", REPOSITORY / "config/test.yaml")
    path = os.pathsep.join(map(str, (folder / "bin", BIN, os.environ["PATH"])))
    return run(sys.executable, "-m", "snakemake", *arguments, *where, cwd=folder, PATH=path, **options)


def jobs(plan):
    """(rule, output files) of each job that `snakemake -n` lists; the rules of the solver's jobs by one name."""
    return re.findall(
        r"^(?:local)?rule (\w+?)(?:_(?:train|valid|test)_\d+)?:\n(?:    .*\n)*?    output: (.*)\n", plan, re.M
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of config/test.yaml, real for Snakemake; its files are empty."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "bin").mkdir()
    (folder / "published.pth").touch()
    for command in ("lspipe", "snakemake"):
        (folder / "bin" / command).write_text(STUB)
        (folder / "bin" / command).chmod(0o755)
    (folder / "images.npy").touch()
    snakemake(folder, "--cores", 2)
    return folder


@pytest.fixture(scope="module")
def plans(finished):
    """The jobs planned after a change of each key, after none and after additions."""
    more = changed("cases.c5", COMPLETE["cases"]["c50"], changed("training.seeds", [0, 1], COMPLETE))
    configs = {"none": COMPLETE, "more": more}
    for key, (path, value) in LEAVES.items():
        other = OTHER[key] if key in OTHER else value + 1 if isinstance(value, int) else 0.9 * value
        configs[key] = changed(path, other, COMPLETE)
        if key == "microstructures.labels":  # images alone have labels
            configs[key]["microstructures"]["images"] = OTHER["microstructures.images"]
    files = [finished / f"{i}.yaml" for i in range(len(configs))]
    for file, config in zip(files, configs.values(), strict=True):
        file.write_text(yaml.safe_dump(config))
    run(sys.executable, "-c", DRY_RUNS, REPOSITORY / "Snakefile", *files, cwd=finished)
    return {key: jobs(Path(f"{file}.plan").read_text()) for key, file in zip(configs, files, strict=True)}


def documented():
    """{key or section: rules} of the table in config/README.md."""
    readme = (REPOSITORY / "config/README.md").read_text()
    head, _, *rows = re.search(r"^\| a change of .*?\n\n", readme, re.M | re.S)[0].strip().splitlines()
    _, *rules = (cell.strip() for cell in head.strip("|").split("|"))
    table = {}
    for row in rows:
        keys, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        made = {rule for rule, cell in zip(rules, cells, strict=True) if cell}
        if "evaluate" in made and "network" not in cells[-1]:  # the solver too, which leaves the true fields
            made.add("gallery")
        table |= dict.fromkeys(re.findall(r"`(.*?)`", keys), made)
    return table


DOCUMENTED = documented()


def test_the_configuration_that_a_run_writes_plans_nothing(plans):
    assert plans["none"] == []


@pytest.mark.parametrize("key", LEAVES)
def test_a_changed_key_makes_again_what_the_table_says(plans, key):
    (row,) = (row for row in DOCUMENTED if re.match(rf"{re.escape(row)}(\W|$)", key))
    made = DOCUMENTED[row]
    if key == "networks[].checkpoint":  # then this takes the place of training
        made = made - {"train"} | {"import_checkpoint", "learning_curves"}
    expected = made.union({"configuration"}, *(FOLLOWS.get(rule, ()) for rule in made))
    assert {rule for rule, _ in plans[key]} == expected


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("microstructures.train", "/(valid|test)\\.|/cg/"),
        ("microstructures.test", "/(train|valid)"),
        ("cases.{case}[].young", "rln-t-50"),
        ("networks[].architecture", "rln-t-50"),
        ("training.epochs", "/cg/"),
    ],
)
def test_a_changed_key_leaves_the_rest(plans, key, kept):
    """Of another split, case or network, or of the predictors that are not trained."""
    assert plans[key]
    assert not [files for _, files in plans[key] if re.search(kept, files)]


def test_an_added_case_or_seed_makes_only_its_own(plans):
    made = [(rule, files) for rule, files in plans["more"] if rule in ("allocate", "solve", "train", "evaluate")]
    assert {rule for rule, _ in made} == {"allocate", "solve", "train", "evaluate"}
    assert all(re.search("c5/|c5\\.|seed1", files) for _, files in made)


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize("file", ["train.receipts/1.json", "train.zarr/strain/c/1/0/0/0/0"])
def test_a_lost_file_solves_the_shards_of_its_job_and_nothing_else(copied, file):
    (copied / f"results/test/fields/c10/{file}").unlink()
    (solve, files), (gather, _) = jobs(snakemake(copied, "-n").stdout)
    assert (solve, gather) == ("solve", "gather")
    assert re.findall(r"receipts/\d+", files) == ["receipts/0", "receipts/1"]


def test_a_store_made_anew_is_solved_anew_even_after_an_interruption(copied):
    """The empty store is byte for byte the one that the receipts were for."""
    store = "results/test/fields/c10/test.zarr"
    shutil.rmtree(copied / store)
    snakemake(copied, f"{store}/zarr.json", "--cores", 1)
    assert [files for rule, files in jobs(snakemake(copied, "-n").stdout) if rule == "solve" and "c10/test" in files]


def test_training_knows_the_time_of_its_job_and_does_not_depend_on_it(finished):
    limit = ("-n", "--set-resources", "train:runtime=240", "train:gpu=0", "evaluate:mem_mb=9000")
    assert jobs(snakemake(finished, *limit).stdout) == []
    plan = snakemake(finished, *limit, "-p", "--forcerun", "train").stdout
    assert plan.count(" --minutes 240 ") == len(TEST["networks"])


def test_published_networks_alone_need_the_test_set_alone(tmp_path):
    config = changed("networks.1.checkpoint", "b c.pth", changed("networks.0.checkpoint", "a.pth"))
    config = changed("networks.1.components", "first", config)
    del config["networks"][2:]
    (file := tmp_path / "published.yaml").write_text(yaml.safe_dump(config))
    for name in ("a.pth", "b c.pth"):
        (tmp_path / name).touch()
    run(sys.executable, "-c", DRY_RUNS, REPOSITORY / "Snakefile", file, cwd=tmp_path)
    planned = jobs(Path(f"{file}.plan").read_text())
    rules = [rule for rule, _ in planned]
    assert rules.count("import_checkpoint") == 2
    assert not {"train", "learning_curves"} & set(rules)
    assert not [files for _, files in planned if re.search("/(train|valid)", files)]


def test_a_wrong_configuration_is_refused_before_any_rule(tmp_path):
    done = snakemake(tmp_path, "-n", "--config", "microstructures={n: 3}", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert re.findall("^config: .*$", said, re.M) == ["config: microstructures.n = '3': must be an integer ≥ 8, ≤ 4096"]
    assert "rule " not in said
    assert not list(tmp_path.iterdir())


def test_a_key_that_is_there_twice_is_refused_before_any_rule(tmp_path):
    """Snakemake itself would keep the last."""
    (file := tmp_path / "twice.yaml").write_text((REPOSITORY / "config/test.yaml").read_text() + "seed: 5\nseed: 6\n")
    arguments = ("-n", "--snakefile", REPOSITORY / "Snakefile", "--configfile", file)
    done = run(sys.executable, "-m", "snakemake", *arguments, cwd=tmp_path, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert re.search(r"^\S*twice.yaml: line \d+: the key 'seed' is there twice; keep one$", output, re.M)
    assert "rule " not in output
