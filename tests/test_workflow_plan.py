"""What the workflow plans: nothing of a wrong configuration; of a changed key what config/README.md says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import BIN, REPOSITORY
from test_config import TEST, changed, leaves

from lspipe.models.shipped import SHIPPED
from lspipe.read_config import parse_config

COMPLETE = parse_config(TEST).model_dump(mode="json")
# The networks of this configuration learn loads of strain alone. Small cells change with microstructures.small.
FIXED = {f"loads.{{load}}.{name}" for name in ("stress", "temperature", "steps", "keep")} | {"networks[].small"}
LEAVES = {key: (path, value) for key, path, value in leaves(COMPLETE) if key not in FIXED}
OTHER = {
    "run": "other",
    "microstructures.generator.kind": "gaussian",
    "microstructures.images": "images.npy",
    "microstructures.labels": [0, 255],
    "microstructures.spacing": [1.0, 1.0, 2.0],
    "microstructures.small": {"n": 4, "train": 4, "valid": 4},
    "solver.scheme": "full",
    "networks[].name": "other",
    "networks[].architecture": "rln",
    "networks[].predict": "all",
    "networks[].published": "published.pth",
    "networks[].epochs": 3,
    "networks[].learning_rate": 1e-3,
    "networks[].start": "fln-c10",
    "networks[].train_on": "c50",
    "training.optimizer": "soap",
    "training.precision": "bf16",
}
FOLLOWS = {
    "solve": {"gather"},
    "train": {"case_figures"},
    "evaluate": {"table", "case_figures", "network_figures"},
    "homogenize": {"effective"},
}

# Stands for `lspipe` in a run that only leaves empty files behind, and for the `snakemake` that makes the report.
STUB = """#!/bin/sh
make() { [ -e "$1" ] || { mkdir -p "${1%/*}" && : > "$1"; }; }
printf '%s\\0' "$@" > "$$.words"
for word; do
    case $word in results/*) make "$word" ;; esac
    case $1:$word in
        train:*/model.json | --standalone:*/model.json | import-published:*/model.json)
            touch "${word%/*}/model.safetensors" "${word%/*}/metrics.csv" ;;
        *.receipts/*.json) k=${word##*/} && make "${word%.receipts/*}.zarr/strain/c/${k%.json}/0/0/0/0" ;;
    esac
done
"""

# It imports once what takes seconds to import. Each line that it reads names a folder, the path of commands, and a list
# of arguments for each run of `snakemake`. It runs one on each core, and prints their exit codes.
SERVER = """
import json, os, sys
import snakemake.cli, lspipe.read_config, lspipe.microstructure
def wait():
    process, status = os.wait()
    codes[running.pop(process)] = os.waitstatus_to_exitcode(status)
for line in sys.stdin:
    folder, path, runs = json.loads(line)
    running, codes = {}, {}
    for i, arguments in enumerate(runs):
        if len(running) == len(os.sched_getaffinity(0)):
            wait()
        if not (process := os.fork()):
            os.chdir(folder)
            os.environ["PATH"] = path
            for stream, file in enumerate((os.devnull, f"{i}.1", f"{i}.2")):
                os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
            snakemake.cli.main(arguments)
        running[process] = i
    while running:
        wait()
    print(*(codes[i] for i in sorted(codes)), flush=True)
"""


@cache
def server():
    """A process that ends with that of the tests."""
    return subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def snakemakes(folder, *runs):
    """Return exit code, standard output and standard error of Snakemake with the stub, for each list of arguments."""
    arguments = [["--snakefile", str(REPOSITORY / "Snakefile"), *map(str, each)] for each in runs]
    path = os.pathsep.join(map(str, (folder / "bin", BIN, os.environ["PATH"])))
    server().stdin.write(json.dumps([str(folder), path, arguments]) + "\n")
    server().stdin.flush()
    codes = server().stdout.readline().split()
    streams = [[(folder / f"{i}.{stream}").read_text() for stream in (1, 2)] for i in range(len(runs))]
    return [(int(code), *texts) for code, texts in zip(codes, streams, strict=True)]


def snakemake(folder, *arguments):
    """Return standard output and standard error of a run that succeeds."""
    ((code, *streams),) = snakemakes(folder, [*arguments, "--configfile", REPOSITORY / "config/test.yaml"])
    assert code == 0, streams
    return streams


def install_stub(folder):
    (folder / "bin").mkdir()
    for command in ("lspipe", "snakemake", "torchrun"):
        (folder / "bin" / command).write_text(STUB)
        (folder / "bin" / command).chmod(0o755)


def jobs(plan):
    """(rule, output files) of each job that `snakemake -n` lists; the rules of the solver's jobs by one name."""
    return re.findall(
        r"^(?:local)?rule (\w+?)(?:_(?:small_)?(?:train|valid|test)_\d+)?:\n(?:    .*\n)*?    output: (.*)\n",
        plan,
        re.M,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of config/test.yaml, real for Snakemake; its files are empty."""
    folder = tmp_path_factory.mktemp("finished")
    install_stub(folder)
    (folder / "published.pth").touch()
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
        if key == "microstructures.generator.kind":
            configs[key]["microstructures"]["generator"]["fractions"] = [0.5, 0.5]
        if key == "microstructures.small":
            configs[key]["networks"][2]["small"] = True
        if key == "microstructures.labels":  # images alone have labels
            configs[key]["microstructures"]["images"] = OTHER["microstructures.images"]
    files = [finished / f"{i}.yaml" for i in range(len(configs))]
    for file, config in zip(files, configs.values(), strict=True):
        file.write_text(yaml.safe_dump(config))
    done = snakemakes(finished, *(["-n", "--configfile", file] for file in files))
    assert [code for code, *_ in done] == [0] * len(done)
    return {key: jobs(plan) for key, (_, plan, _) in zip(configs, done, strict=True)}


def documented():
    """{key or section: rules} of the table in config/README.md."""
    readme = (REPOSITORY / "config/README.md").read_text()
    head, _, *rows = re.search(r"^\| a change of .*?\n\n", readme, re.M | re.S)[0].strip().splitlines()
    _, *rules = (cell.strip() for cell in head.strip("|").split("|"))
    table = {}
    for row in rows:
        keys, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        made = {rule for rule, cell in zip(rules, cells, strict=True) if cell}
        table |= dict.fromkeys(re.findall(r"`(.*?)`", keys), made)
    return table


DOCUMENTED = documented()


def test_the_configuration_that_a_run_writes_plans_nothing(plans):
    assert plans["none"] == []


def test_the_figure_of_a_load_path_waits_for_its_shards(finished):
    target = "results/plasticity/figures/plastic/metal/tension.png"
    ((code, plan, _),) = snakemakes(finished, (target, "-n", "--configfile", REPOSITORY / "config/plasticity.yaml"))
    assert code == 0
    rules = [rule for rule, _ in jobs(plan)]
    assert rules == ["microstructures", "allocate", "follow", "gather", "tabulate_curves", "path_figures"]


@pytest.mark.parametrize("key", LEAVES)
def test_a_changed_key_makes_again_what_the_table_says(plans, key):
    (row,) = (row for row in DOCUMENTED if re.match(rf"{re.escape(row)}(\W|$)", key))
    made = DOCUMENTED[row]
    if key == "networks[].published":  # then this takes the place of training
        made = made - {"train"} | {"import_published"}
    expected = made.union({"configuration", "summary", "report"}, *(FOLLOWS.get(rule, ()) for rule in made))
    assert {rule for rule, _ in plans[key]} == expected


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("microstructures.train", "/(valid|test)\\.|/cg/"),
        ("microstructures.test", "/(train|valid)"),
        ("microstructures.small", "/(train|valid|test)\\."),
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
    (solve, files), (gather, _) = jobs(snakemake(copied, "-n")[0])
    assert (solve, gather) == ("solve", "gather")
    assert re.findall(r"receipts/\d+", files) == ["receipts/0", "receipts/1"]


def test_a_lost_report_is_made_and_nothing_else(copied):
    (copied / "results/test/report.html").unlink()
    assert [rule for rule, _ in jobs(snakemake(copied, "-n")[0])] == ["report"]


def test_a_run_of_one_target_makes_no_report(copied):
    """Nor does it say that it has made one."""
    (copied / "results/test/report.html").unlink()
    streams = snakemake(copied, "--cores", 1, "--force", "results/test/config.yaml")
    assert not re.search("^Report: ", "".join(streams), re.M)
    assert not (copied / "results/test/report.html").exists()


def test_a_store_made_anew_is_solved_anew_even_after_an_interruption(copied):
    """The empty store is byte for byte the one that the receipts were for."""
    store = "results/test/fields/c10/test.zarr"
    shutil.rmtree(copied / store)
    snakemake(copied, f"{store}/zarr.json", "--cores", 1)
    assert [files for rule, files in jobs(snakemake(copied, "-n")[0]) if rule == "solve" and "c10/test" in files]


def test_training_knows_the_time_of_its_job_and_does_not_depend_on_it(finished):
    limit = ("-n", "--set-resources", "train:runtime=240", "train:gpu=0", "evaluate:mem_mb=9000")
    assert jobs(snakemake(finished, *limit)[0]) == []
    plan, _ = snakemake(finished, *limit, "-p", "--forcerun", "train")
    assert plan.count(" --minutes 240 ") == len(TEST["networks"])


def test_several_gpus_are_as_many_processes(copied):
    target = "results/test/models/fln/seed0/model.json"
    snakemake(copied, target, "--cores", 1, "--set-resources", "train:gpu=2", "--forcerun", "train")
    words = [file.read_text().split("\0") for file in copied.glob("*.words")]
    (trained,) = (each for each in words if each[0] == "--standalone")
    assert trained[:6] == ["--standalone", "--nproc-per-node", "2", "-m", "lspipe", "train"]


def test_a_network_of_the_user_is_trained_again_when_its_file_changes(copied):
    (copied / "older.py").touch()
    os.utime(copied / "older.py", (1e9, 1e9))
    (copied / "newer.py").touch()
    runs = []
    for name in ("older", "newer", "missing"):
        config = changed("networks.0.architecture", f"{name}:Network")
        (copied / f"{name}.yaml").write_text(yaml.safe_dump(config))
        target = f"results/test/models/{config['networks'][0]['name']}/seed0/model.json"
        runs.append(["-n", "--rerun-triggers", "mtime", "--configfile", f"{name}.yaml", "--", target])
    older, newer, missing = snakemakes(copied, *runs)
    assert [jobs(plan) for _, plan, _ in (older, newer)] == [[], jobs(newer[1])]
    assert [rule for rule, _ in jobs(newer[1])] == ["train"]
    assert missing[0] == 1
    assert "architecture = 'missing:Network': there is no module missing in " in missing[1] + missing[2]


def test_a_network_is_trained_after_the_one_that_it_starts_from(tmp_path):
    """It may also start from a model of the user, which must be there, or from one of the package."""
    shutil.copytree(SHIPPED / "fln-c50", tmp_path / "my model")
    starts = {"a": "", "b": "a", "c": "my model", "fln-c10": "fln-c10", "d": "nowhere"}
    networks = [{"name": n, "architecture": "fln", "start": s, "train_on": ["c10"]} for n, s in starts.items()]
    for name, listed in (("good", networks[:4]), ("bad", networks)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(changed("networks", listed)))
    arguments = ("--", "results/test/models/b/seed0/model.json", "results/test/models/c/seed0/model.json")
    arguments += ("results/test/models/fln-c10/seed0/model.json",)
    good, bad = snakemakes(tmp_path, *(["-n", "-p", "--configfile", f"{n}.yaml", *arguments] for n in ("good", "bad")))
    given = {
        re.search("-- .*models/(.*?)/seed0", line)[1]: line for line in good[1].splitlines() if "lspipe train" in line
    }
    started = {name: re.findall(" --start ('.*?'|\\S+)", line) for name, line in given.items()}
    assert started == {
        "a": [],
        "b": ["results/test/models/a/seed0/model.json"],
        "c": ["'my model/model.json'"],
        "fln-c10": ["fln-c10"],
    }
    said = r"config: networks\.4\.start = nowhere: must be a folder with a model.json, or one of 'fln-c10', "
    assert re.search(said, bad[1] + bad[2])


def test_published_networks_alone_need_the_test_set_alone(tmp_path):
    config = changed("networks.1.published", "b c.pth", changed("networks.0.published", "a.pth"))
    config = changed("networks.1.predict", "first", config)
    del config["networks"][2:]
    (file := tmp_path / "published.yaml").write_text(yaml.safe_dump(config))
    for name in ("a.pth", "b c.pth"):
        (tmp_path / name).touch()
    ((_, plan, _),) = snakemakes(tmp_path, ["-n", "-p", "--configfile", file, "--config", "seed=3", "run=other"])
    assert f"--configfile {file} --config seed=3 run=other --nolock" in plan  # of the report
    planned = jobs(plan)
    rules = [rule for rule, _ in planned]
    assert rules.count("import_published") == 2
    assert "train" not in rules
    assert not [files for _, files in planned if "learning_curves" in files]
    assert not [files for _, files in planned if re.search("/(train|valid)", files)]


def test_a_run_without_networks_solves_and_homogenizes_the_test_set(tmp_path):
    ((code, plan, _),) = snakemakes(tmp_path, ["-n", "--config", "networks=[]"])
    assert code == 0
    rules = [rule for rule, _ in jobs(plan)]
    assert {"homogenize", "evaluate", "effective", "case_figures", "summary"} <= {*rules}
    assert not {"train", "network_figures"} & {*rules}


def test_a_wrong_configuration_is_refused_before_any_rule(tmp_path):
    test = ("--configfile", REPOSITORY / "config/test.yaml")
    ((code, *streams),) = snakemakes(tmp_path, ["-n", *test, "--config", "training={epochs: 0}"])
    said = "".join(streams)
    assert code == 1
    assert re.findall("^config: .*$", said, re.M) == [
        "config: training.epochs = '0': must be an integer ≥ 1, ≤ 10000000"
    ]
    assert "rule " not in said
    assert {file.name for file in tmp_path.iterdir()} == {"0.1", "0.2"}  # what it printed


def test_a_key_that_is_there_twice_is_refused_before_any_rule(tmp_path):
    """Snakemake itself would keep the last."""
    (file := tmp_path / "twice.yaml").write_text((REPOSITORY / "config/test.yaml").read_text() + "seed: 5\nseed: 6\n")
    ((code, *streams),) = snakemakes(tmp_path, ["-n", "--configfile", file])
    output = "".join(streams)
    assert code == 1
    assert re.search(r"^\S*twice.yaml: line \d+: the key 'seed' occurs twice; keep one$", output, re.M)
    assert "rule " not in output


def test_the_configuration_is_that_of_the_folder_or_else_that_of_the_workflow(tmp_path):
    ((code, plan, _),) = snakemakes(tmp_path, ["-n"])
    assert code == 0
    assert all("results/default/" in files for _, files in jobs(plan))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(TEST | {"run": "mine"}))
    ((code, plan, _),) = snakemakes(tmp_path, ["-n"])
    assert code == 0
    assert jobs(plan)
    assert all("results/mine/" in files for _, files in jobs(plan))


# Names of files that a shell, Snakemake or the command line would take for something else.
NAMES = [
    *("$(touch pwned)", "`touch pwned`", '"; touch pwned; "', "'; touch pwned; '", "x > pwned", "CT scan (1)"),
    *("größe µ", "it's", "a&b", "*", "-x", "--help", "a{b c}", "{}", "a,b", "a\nb", "~", "#x", "!x", "\\x", " x "),
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with files of odd names: (rules that were run with each, arguments of each `lspipe`)."""
    folder = tmp_path_factory.mktemp('it\'s an odd $(touch pwned) "folder"')
    install_stub(folder)
    names = [f"{name}.pth" for name in NAMES]
    networks = [
        {"name": f"n{i}", "architecture": "fln", "published": name, "train_on": ["c10"]} for i, name in enumerate(names)
    ]
    (folder / "an odd $(touch pwned) 'name'.yaml").write_text(
        yaml.safe_dump(changed("networks", networks, changed("microstructures.images", names[0])))
    )
    for name in names:
        (folder / name).touch()
    targets = [f"results/test/models/n{i}/imported/model.json" for i in range(len(names))]
    arguments = ["--cores", 2, "--configfile", "an odd $(touch pwned) 'name'.yaml", "--"]
    ((code, _, said),) = snakemakes(folder, [*arguments, "results/test/microstructures/test.done", *targets])
    assert code == 0, said
    assert not list(folder.glob("**/*pwned"))
    return [file.read_text().split("\0")[:-1] for file in folder.glob("*.words")]


@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES)
def test_a_file_of_any_name_reaches_its_command(odd, i):
    (words,) = (words for words in odd if words[0] == "import-published" and words[-1].split("/")[3] == f"n{i}")
    assert words[words.index("--") :] == ["--", f"{NAMES[i]}.pth", f"results/test/models/n{i}/imported/model.json"]


def test_images_of_any_name_reach_their_command(odd):
    (words,) = (words for words in odd if words[0] == "import")
    assert words[words.index("--") :] == [
        "--",
        "results/test/microstructures/test.zarr/zarr.json",
        f"{NAMES[0]}.pth",
    ]


def test_every_shell_line_quotes_its_fields_and_names_files_after_the_options():
    lines = []
    for file in [REPOSITORY / "workflow/Snakefile", *REPOSITORY.glob("workflow/rules/*.smk")]:
        blocks = re.findall(r"^ *shell:\n((?: *\".*\"\n)+)", file.read_text(), re.M)
        assert len(blocks) == len(re.findall(r"shell[:(.]", file.read_text())), file
        lines += ["".join(re.findall('^ *"(.*)"$', block, re.M)) for block in blocks]
    assert len(lines) > 10
    for line in lines:
        fields = re.findall("{(.*?)}", line)
        assert fields
        assert not [field for field in fields if not field.endswith(":q")], line
        if line.startswith("lspipe") and not line.startswith("lspipe config"):
            words = line.partition(" 2>&1 ")[0].partition(" -- ")[0].split()
            files = [word for word in words if re.match("{(in|out)put", word)]
            assert all(words[words.index(file) - 1].startswith("--") for file in files), line


@pytest.mark.parametrize("key", ["microstructures.images", "networks.0.published"])
def test_a_file_that_snakemake_cannot_take_is_named(tmp_path, key):
    tomorrow = time.time() + 86400
    for name in ("a{b}.npy", "later.npy"):
        (tmp_path / name).touch()
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(changed(key, name)))
    os.utime(tmp_path / "later.npy", (tomorrow, tomorrow))
    (tmp_path / "missing.yaml").write_text(yaml.safe_dump(changed(key, "missing.npy")))
    files = ("a{b}.npy.yaml", "later.npy.yaml", "missing.yaml")
    done = snakemakes(tmp_path, *(["-n", "--configfile", file] for file in files))
    assert [code for code, *_ in done] == [1, 1, 1]
    (braces,), (later,) = (re.findall("^config: .*$", out + error, re.M) for _, out, error in done[:2])
    missing = "".join(done[2][1:])  # This message is Snakemake's own.
    assert re.search(r"^MissingInputException in rule .*affected files:\s+missing\.npy$", missing, re.M | re.S)
    assert braces.startswith(f"config: {key} = 'a{{b}}.npy': must not contain a word in braces")
    assert later.startswith(f"config: {key} = 'later.npy': was modified in the future, {date.fromtimestamp(tomorrow)} ")
