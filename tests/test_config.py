"""The configuration: what is refused and how, the files that are shipped and what is generated from the types."""

import copy
import json
import math
import re

import pytest
import yaml
from conftest import REPOSITORY, call, run

from lspipe.read_config import parse_config, read_load, read_yaml, reference, schema
from lspipe.sections import ImagesConfig, SmallConfig

FILES = {path.stem: path for path in (REPOSITORY / "config").glob("*.yaml")}
TEST = yaml.safe_load(FILES["test"].read_text())
A_NAME = "must be a string of letters, digits and (not first) ._-"
TOP_LEVEL = (
    "must be a mapping of run, seed, microstructures, cases, loads, solver, homogenization, truth, networks, training, "
    "jobs"
)
NETWORKS = "must be a list of items, each a mapping of name, architecture, predict, published, start, train_on"
STIFFNESS = {"young": 1.0, "poisson": 0.3}
PULL = {"strain": [1e-3, 0, 0, 0, 0, 0]}


def changed(path, value, config=TEST):
    """The configuration with another value at a.b.0.c."""
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    config = node = copy.deepcopy(config)
    for step in parents:
        node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
    node[last] = value
    return config


def leaves(node, key="", path=""):
    """(key as in the reference, path, value) of each value; of several entries the first."""
    if isinstance(node, list) and node:
        yield from leaves(node[0], f"{key}[]", f"{path}.0")
    elif isinstance(node, dict) and key in ("cases", "loads"):
        first = next(iter(node))
        yield from leaves(node[first], f"{key}.{{{key[:-1]}}}", f"{path}.{first}")
    elif isinstance(node, dict):
        for name, inside in node.items():
            yield from leaves(inside, f"{key}.{name}".lstrip("."), f"{path}.{name}".lstrip("."))
    else:
        yield key.removesuffix("[]"), path, node


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "sed",
            1,
            "sed = 1: is not a key; allowed here: run, seed, microstructures, cases, loads, solver, homogenization, "
            "truth",
        ),
        ("load", {"strain": [1]}, "load = {'strain': [1]}: is now called loads, a mapping of loads by their names"),
        ("solver.eps", 1, "solver.eps = 1: is not a key; allowed here: scheme, tol"),
        (
            "cases.c10.0.nu",
            0.3,
            "cases.c10.0.nu is not a key of isotropic; allowed here: young, poisson, expansion, euler, quaternion",
        ),
        (
            "networks.1.x",
            {},
            "networks.1.x = {}: is not a key; allowed here: name, architecture, predict, published, start",
        ),
        ("networks.0.components", "all", "networks.0.components = 'all': is now called predict"),
        ("networks.0.checkpoint", "x.pth", "networks.0.checkpoint = 'x.pth': is now called published"),
        ("microstructures.train", -1, "microstructures.train = -1: must be an integer ≥ 1"),
        (
            "loads.pull.strain",
            [0] * 6,
            "cases.c10 under loads.pull: strain = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], stress = None",
        ),
        ("cases.c10", [{"kind": "void"}] * 2, "cases.c10 under loads.tension: materials: are all voids"),
        ("microstructures.n", 0, "microstructures.n = 0: must be an integer ≥ 1, ≤ 4096 or a list of 3"),
        ("microstructures.n", [8, 0, 8], "microstructures.n.1 = 0: must be an integer ≥ 1, ≤ 4096"),
        ("microstructures.n", [8, 8], "microstructures.n = [8, 8]: must be an integer ≥ 1, ≤ 4096 or a list of 3"),
        ("microstructures.n", [8, 8, 1], "networks.0.architecture = 'fln': needs at least 8 voxels along each axis"),
        ("networks.0.small", True, "networks.0.small = true: must be left out, for there are no microstructures.small"),
        (
            "microstructures.small",
            {"n": 8, "train": 4},
            "microstructures.small.n = [8, 8, 8]: must have fewer voxels along each axis than microstructures.n",
        ),
        (
            "networks.0",
            TEST["networks"][0] | {"published": "p.pth", "epochs": 3},
            "networks.0.epochs = 3: must be left out",
        ),
        ("microstructures.small", {"n": 8}, "microstructures.small.train is missing: must be an integer ≥ 1"),
        ("microstructures.n", "many", "microstructures.n = 'many': must be an integer ≥ 1"),
        ("microstructures.spacing", [1, 1, 0], "microstructures.spacing.2 = 0: must be a number > 0"),
        (
            "microstructures.spacing",
            [1, 1, 1e9],
            "microstructures: spacing = [1.0, 1.0, 1000000000.0]: must not differ",
        ),
        (
            "microstructures.generator",
            {"kind": "foam"},
            "microstructures.generator.kind = 'foam': must be one of gaussian",
        ),
        ("microstructures.generator", "foam", "microstructures.generator = 'foam': must be a mapping"),
        ("training.epochs", 2.5, "training.epochs = 2.5: must be an integer ≥ 1"),
        ("training.epochs", None, "training.epochs = None: must be an integer ≥ 1"),
        ("training.seeds", [0, -1], "training.seeds.1 = -1: must be an integer ≥ 0"),
        (
            "networks.0.train_on",
            "c10",
            "networks.0.train_on = 'c10': must be a list of at least 1 item, each a string; for one item, write [c10]",
        ),
        ("training.seeds", 3, "training.seeds = 3: must be a list of at least 1 item, each an integer ≥ 0"),
        ("training.seeds", [0, 0], "training.seeds = [0, 0]: must not repeat an entry"),
        ("cases.c10.0.young", -1, "cases.c10.0.young = -1.0: must be a number ≥ 0"),
        ("cases.c10.0.young", "soft", "cases.c10.0.young = 'soft': must be a number ≥ 0"),
        ("cases.c10.1.poisson", 0.5, "cases.c10.1.poisson = 0.5: must lie between -1 and 0.5, both excluded"),
        ("cases.c10.1", {"young": 1.0}, "cases.c10.1.poisson is missing; isotropic needs young, poisson"),
        ("cases.c10.1", [1.0, 0.3], "cases.c10.1 = [1.0, 0.3]: must be a mapping"),
        (
            "cases.c10.1",
            {"conductivity": -1},
            "cases.c10.1.conductivity = -1.0: must be a number ≥ 0, or (3, 3)",
        ),
        (
            "cases.c10.1",
            {"conductivity": 1, "nu": 0},
            "cases.c10.1.nu is not a key of conductor; allowed here: conductivity",
        ),
        (
            "cases.c10.1",
            {"conductivity": 1},
            "cases.c10 under loads.tension: materials = [Isotropic(",
        ),
        (
            "cases.c10",
            [{"conductivity": 1.0}] * 2,
            "cases.c10 under loads.tension: strain = [0.001, 0.0, 0.0, 0.0, 0.0, 0.0]: must have 3 components (x,",
        ),
        (
            "loads.pull.strain",
            [1, 0, 0],
            "cases.c10 under loads.pull: strain = [1.0, 0.0, 0.0]: must have 6 components (xx, yy",
        ),
        ("cases.c10", [STIFFNESS], "cases.c10: must have 2 materials, not 1: one for each phase"),
        ("cases.c10", [], "cases.c10 = []: must be a list of at least 1 item, each a mapping"),
        ("cases.c10.0", {"kind": "steel"}, "cases.c10.0.kind = 'steel': must be one of isotropic, anisotropic"),
        (
            "cases.c10.0",
            {"kind": "cubic", "c11": 1, "c12": -2, "c44": 1},
            "cases.c10.0.c11 = 1, c12 = -2, c44 = 1: must have c11 > |c12|",
        ),
        (
            "cases.c10.0",
            STIFFNESS | {"quaternion": [1, 1, 0, 0]},
            "cases.c10.0.quaternion = [1.0, 1.0, 0.0, 0.0]: must be a quaternion w, x, y, z of length 1",
        ),
        ("cases.c10", [STIFFNESS] * 3, "cases.c10: must have 2 materials, not 3: one for each phase"),
        ("microstructures.images", 5, "microstructures.images = 5: must be a mapping of path, dataset, axes, crop"),
        ("microstructures.labels", [0, 0], "microstructures.labels = [0, 0]: must not repeat an entry"),
        ("microstructures.labels", [0.5], "microstructures.labels.0 = 0.5: must be an integer"),
        (
            "microstructures.labels",
            1,
            "microstructures.labels = 1: must be a list of at most 255 items, each an integer",
        ),
        (
            "microstructures.labels",
            [0, 1],
            "microstructures.labels = [0, 1]: must be left out, for there are no images",
        ),
        (
            "microstructures",
            {"images": "a.npy", "labels": [0, 1, 2]},
            "cases.c10: must have 3 materials, not 2: one for each of microstructures.labels",
        ),
        ("cases.a/b", [STIFFNESS] * 2, f"cases.a/b = 'a/b': {A_NAME}"),
        ("loads.pull", {}, "loads.pull: must prescribe strain, stress, or one of the two for each component"),
        ("loads.pull.strain", 5, "loads.pull.strain = 5: must be a list of at most 6 items, each a number or null"),
        (
            "loads.pull.strain",
            [None] * 6,
            "cases.c10 under loads.pull: component xx of strain = None and of stress = None: must",
        ),
        (
            "loads.hot",
            {"stress": [0, 0, 0, 0, 0, 1]},
            "networks.0.train_on = ['c10']: strain = [None, None, None, None, None, None]: all components must be",
        ),
        (
            "loads.hot",
            {"strain": [1e-3] * 6, "temperature": 1},
            "networks.0.train_on = ['c10']: temperature = 1: must be 0",
        ),
        (
            "loads.pull.strain",
            [0, 0, 0, 0, 0, 1],
            "networks.0.train_on = ['c10']: strain = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]: xx must not be 0",
        ),
        (
            "loads",
            {"a": PULL, "b": {"strain": [2, 0, 0, 0, 0, 0]}},
            "networks.0.train_on = ['c10']: architecture = 'fln': must",
        ),
        ("solver.scheme", "fem", "solver.scheme = 'fem': must be bbar, full or reduced"),
        ("solver", [1], "solver = [1]: must be a mapping of scheme, tol"),
        ("networks", {}, f"networks = {{}}: {NETWORKS}"),
        (
            "networks.0.architecture",
            "unet",
            "networks.0.architecture = 'unet': must be fln, rln-t, rln, rln-cg, fno, ifno, therino or module:Class",
        ),
        ("networks.0.predict", "yy", "networks.0.predict = 'yy': must be first or all"),
        ("training.precision", "fp8", "training.precision = 'fp8': must be float32, bf16 or tf32"),
        ("networks.0.train_on", ["c9"], "networks.0.train_on.0 = 'c9': must be one of c10, c50"),
        (
            "networks.0.train_on",
            ["c10", "c50"],
            "networks.0.train_on = ['c10', 'c50']: architecture = 'fln': learns one",
        ),
        ("networks.1.name", "fln", "networks.1.name = 'fln': must not repeat the name of another network"),
        ("networks.1.name", "cg", "networks.1.name = 'cg': is the name of the solver; choose another name"),
        ("run", "../run", f"run = '../run': {A_NAME}"),
        ("run", "a" * 300, f"run = {'a' * 300!r:.40}"),
        ("run", 5, f"run = 5: {A_NAME}, at most 100; put quotes around it"),
        ("run", yaml.safe_load("no"), f"run = False: {A_NAME}, at most 100; put quotes around it"),
        ("run", yaml.safe_load("2024-11-05"), f"run = 2024-11-05: {A_NAME}, at most 100; put quotes around it"),
        ("cases", {yaml.safe_load("2024-11-05"): [STIFFNESS] * 2}, f"cases.2024-11-05 = 2024-11-05: {A_NAME}"),
        # What would fail after hours, or take all memory
        ("training.seeds", [2**64], "training.seeds.0 = 18446744073709551616: must be an integer ≥ 0, < 9223"),
        ("training.batch", 10**20, "training.batch = 100000000000000000000: must be an integer ≥ 1, ≤ 10000000"),
        ("microstructures.train", 10**12, "microstructures.train = 1000000000000: must be an integer ≥ 1, ≤ 10000000"),
        ("cases.c10.1.young", 1e308, "cases.c10.1.young = 1e+308: must lie between 1e-100 and 1e+100 in size"),
        ("cases.c10.1.young", 1e30, "cases.c10 under loads.tension: stiffness = "),
        ("loads.pull.strain", [1e-40, 0, 0, 0, 0, 0], "cases.c10 under loads.pull: strain = [1e-40, 0.0, 0.0"),
        (
            "loads.pull.strain",
            [1e-30, 1, 0, 0, 0, 0],
            "networks.0.train_on = ['c10']: strain = [1e-30, 1.0, 0.0, 0.0, 0.0, 0.0]: xx must not be 0",
        ),
        # Python's True is 1; nothing here is a truth value
        ("seed", True, "seed = True: must be an integer ≥ 0"),
        ("training.seeds", [True], "training.seeds = [True]: must be a list of at least 1 item, each an integer ≥ 0"),
        ("cases.c10.0.young", True, "cases.c10.0.young = True: must be a number ≥ 0"),
        ("solver.tol", math.nan, "solver.tol = nan: must be a finite number"),
        ("cases.c10.0.young", math.inf, "cases.c10.0.young = inf: must be a number ≥ 0"),
        ("loads.pull.strain", [1e-3, math.nan, 0, 0, 0, 0], "loads.pull.strain.1 = nan: must be a finite number"),
    ],
)
def test_a_wrong_value_gets_one_line_that_says_what_is_allowed(path, value, said):
    with pytest.raises(ValueError, match=r"^config: ") as error:
        parse_config(changed(path, value))
    assert f"config: {said}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cases.c10.1.poisson", 0.2),
        ("loads.pull", {"strain": [1e-3, 0, 0, 0, 0, 1e-4]}),
        ("loads.pull", {"strain": [1e-3, *[None] * 5], "stress": [None, *[0] * 5]}),
        ("loads.pull", {"strain": [1e-3, 0, 0, 0, 0, 0], "temperature": 10}),
        ("microstructures.generator", {"kind": "polycrystal", "grains": 5, "fractions": [0.5, 0.5]}),
        ("solver.scheme", "full"),
    ],
)
def test_a_published_network_needs_the_papers_problem(path, value):
    published = changed("networks.0.published", "x.pth")
    assert parse_config(published).networks[0].published == "x.pth"
    with pytest.raises(ValueError, match=r"^config: networks.0.published = 'x.pth': published networks are for two"):
        parse_config(changed(path, value, published))
    images = changed("microstructures.images", "cells.npy", published)
    with pytest.raises(ValueError, match=r"^config: networks.0.published = 'x.pth': published networks are for two"):
        parse_config(changed("cases.c10", [STIFFNESS] * 3, images))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": "late"}, "is listed after this network; list it before"),
        ({"start": "first", "architecture": "rln-cg"}, "its architecture is fln; must be rln-cg"),
        ({"start": "first", "predict": "all"}, r"its components are \['xx'\]; must be \['xx', 'yy', .*\]$"),
        ({"start": "fln-c10", "published": "x.pth"}, "must be left out, for published networks are not trained"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(change, said):
    first, late = ({"name": name, "architecture": "fln", "train_on": ["c10"]} for name in ("first", "late"))
    between = {"name": "rln", "architecture": "rln", "train_on": ["c10"]} | change
    with pytest.raises(ValueError, match=rf"^config: networks\.1\.start = '{change['start']}': {said}$"):
        parse_config(TEST | {"networks": [first, between, late]})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("networks.0.predict", "all", "predict = 'all': published networks are for xx"),
        ("networks.0.architecture", "rln-cg", "architecture = 'rln-cg': published networks are fln, rln-t, rln"),
        (
            "networks.0.learning_rate",
            0.1,
            "learning_rate = 0.1: must be left out, for published networks are not trained",
        ),
        ("networks.0.small", True, "small = true: must be left out, for published networks are not trained"),
        ("microstructures.n", 7, r"architecture = 'fln': needs .* axis, not microstructures.n = \[7, 7, 7\]"),
    ],
)
def test_what_a_published_network_cannot_do_is_refused(path, value, said):
    config = changed("networks.0.published", "x.pth")
    if path == "networks.0.small":
        config = changed("microstructures.small", {"n": 4, "train": 1, "valid": 1}, config)
    with pytest.raises(ValueError, match=f"^config: networks.0.{said}$"):
        parse_config(changed(path, value, config))


def test_what_published_networks_need():
    published = changed("networks.0.published", "x.pth")
    with pytest.raises(ValueError, match=r"^config: networks.0.published = 'x.pth': .* cubic voxels"):
        parse_config(changed("microstructures.spacing", [1, 1, 2], published))
    twice = changed("cases.again", TEST["cases"]["c10"], published)
    with pytest.raises(ValueError, match=r"^config: networks.0.train_on = \['c10', 'again'\]: must be one case"):
        parse_config(changed("networks.0.train_on", ["c10", "again"], twice))
    loads = changed("loads", {"x": {"strain": [1e-3] + [0] * 5}, "twice": {"strain": [2e-3] + [0] * 5}}, published)
    with pytest.raises(ValueError, match=r"^config: networks.0.train_on = \['c10'\]: must be one case under one load"):
        parse_config(loads)
    assert parse_config(changed("networks.0.train_on", ["c10/x"], loads))


def test_a_network_of_the_user_takes_flat_cells():
    own = {"name": "own", "architecture": "own:Net", "train_on": ["c10"]}
    flat = changed("microstructures.n", [8, 8, 1], TEST | {"networks": [own]})
    assert parse_config(flat).microstructures.n == [8, 8, 1]


@pytest.mark.parametrize("raw", [None, [1], "run: test"], ids=repr)
def test_a_file_that_is_no_mapping(raw):
    with pytest.raises(ValueError, match=r"^config: ") as error:
        parse_config(raw)
    assert str(error.value) == f"config: top level = {raw!r}: {TOP_LEVEL}"


def test_each_wrong_key_gets_its_line():
    with pytest.raises(ValueError, match=r"^config: ") as error:
        parse_config({"seed": -1, "networks": TEST["networks"]})
    assert str(error.value).splitlines() == [
        "config: seed = -1: must be an integer ≥ 0",
        "config: cases is missing: must be a mapping of one name or more, "
        "each to a list of at least 1 item, each a mapping",
    ]


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("solver.tol", "1e-3", 1e-3),
        ("cases.c10.0.young", "120e9", 120e9),
        ("cases.c10.0.young", "1.2e+11", 1.2e11),
        ("training.epochs", "3", 3),
        ("training.epochs", "'3'", 3),
        ("training.epochs", "3.0", 3),
    ],
)
def test_numbers_as_yaml_reads_them(path, text, value):
    config = parse_config(changed(path, yaml.safe_load(text)))
    assert (path, value) in [(path, value) for _, path, value in leaves(config.model_dump())]


def test_a_configuration_is_the_same_when_it_is_written_out_and_read():
    """With its types: 0 and 0.0 are other words on a command line."""
    config = parse_config(TEST)
    assert repr(parse_config(config.model_dump(mode="json"))) == repr(config)


def test_a_load_of_a_command_is_refused_in_the_words_of_the_configuration():
    with pytest.raises(ValueError, match=r"^steps\.0\.increments = 0: must be an integer ≥ 1, ≤ 10000$"):
        read_load({"steps": [{"strain": [0] * 6, "increments": 0}]})
    with pytest.raises(
        ValueError, match=r"^steps\.0\.strian = .*: is not a key; allowed here: strain, stress, increments$"
    ):
        read_load({"steps": [{"strian": [0] * 6}]})
    with pytest.raises(ValueError, match=r"^temperature = 5.0: must be left out beside steps$"):
        read_load({"steps": [{"strain": [0] * 6}], "temperature": 5}).divide()


def test_shipped_files():
    config = {name: parse_config(yaml.safe_load(path.read_text())) for name, path in FILES.items()}
    assert config.keys() == {
        *("config", "test", "paper", "paper-cpu", "paper-cpu-long", "rln-c50", "rln-cg", "conduction"),
        *("plasticity", "polycrystal", "porous", "shear", "small-first", "study"),
    }
    assert {c.run for c in config.values()} == {"default", *config} - {"config"}


def test_paper_has_the_numbers_of_the_paper():
    """Kelly & Kalidindi (2021), sections 4 and 5."""
    paper = parse_config(yaml.safe_load(FILES["paper"].read_text()))
    assert paper.microstructures.model_dump() == {
        **{"generator": {"kind": "gaussian"}, "images": None, "labels": [], "n": [31] * 3, "spacing": None},
        **{"train": 8192, "valid": 4096, "test": 8192, "small": None},
    }
    contrasts = {name: stiff["young"] / soft["young"] for name, (soft, stiff) in paper.cases.items()}
    assert contrasts == {"c10": 10, "c50": 50}
    assert all(m == {"young": 120, "poisson": 0.3} for m, _ in paper.cases.values())
    assert all(m["poisson"] == 0.3 for _, m in paper.cases.values())
    assert {(n.architecture, *n.train_on) for n in paper.networks} == {
        *((a, case) for a in ("fln", "rln-t", "rln") for case in contrasts),
        ("rln-cg", "c10", "c50"),  # that is not of the paper
    }
    assert (paper.training.epochs, paper.training.batch) == (60, 32)
    assert {p.strain for p in paper.problems.values()} == {(1e-3, 0, 0, 0, 0, 0)}


def test_schema_file_is_generated():
    text = (REPOSITORY / "workflow/schemas/config.schema.json").read_text()
    assert json.loads(text) == schema(), "lspipe config --schema > workflow/schemas/config.schema.json"


def test_reference_is_generated_and_has_every_key():
    readme = (REPOSITORY / "config/README.md").read_text()
    assert f"<!-- lspipe config --reference -->\n\n{reference()}\n<!-- end -->" in readme
    keys = [row.split("`")[1] for row in reference().splitlines()[2:]]
    others = [yaml.safe_load(FILES[name].read_text()) for name in ("conduction", "plasticity")]
    every = {key for raw in (TEST, *others) for key, *_ in leaves(parse_config(raw).model_dump())}
    # The keys of a material and of a generator depend on its kind.
    every = {key for key in every if not key.startswith(("cases", "microstructures.generator."))}
    every |= {f"microstructures.images.{name}" for name in ImagesConfig.model_fields}
    every |= {f"microstructures.small.{name}" for name in SmallConfig.model_fields}
    every |= {"cases", "cases.{case}[]", "loads", "microstructures.generator", "networks", "truth"}
    assert set(keys) == every
    assert len(keys) == len(set(keys))


def test_command(tmp_path):
    assert run("lspipe", "config", "--reference", cwd=tmp_path).stdout == reference()
    assert json.loads(call("config", "--schema", cwd=tmp_path).stdout) == schema()
    complete = call("config", FILES["test"], cwd=tmp_path).stdout
    assert yaml.safe_load(complete) == parse_config(TEST).model_dump(mode="json")
    (tmp_path / "broken.yaml").write_text("run: [")
    broken = call("config", "broken.yaml", cwd=tmp_path, check=False)
    assert broken.returncode == 1
    assert broken.stderr.startswith("lspipe: broken.yaml: ")
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"run: a\nseed: 1\nrun: b\n", "line 3: the key 'run' occurs twice; keep one"),
        (b"cases:\n  a: [{young: 1, poisson: 0.3, young: 2}]\n", "line 2: the key 'young' occurs twice"),
        (b"run: a\xff\n", "byte 6 is not UTF-8 text; save the file as UTF-8"),
        (b'{"run": "a", "run": "b"}', "line 1: the key 'run' occurs twice"),
        (b"run: [", "while parsing a flow node"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
        (b"run: 2024-99-05\n", "month must be in 1..12"),
    ],
    ids=range(7),
)
def test_text_that_cannot_be_read_gets_one_line_with_the_file(data, message):
    with pytest.raises(ValueError, match=re.escape(f"a.yaml: {message}")) as error:
        read_yaml("a.yaml", data)
    assert "\n" not in str(error.value)


def test_merged_keys_may_be_given_again():
    assert read_yaml("a.yaml", "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")["b"] == {"x": 3, "y": 2}


def test_a_message_has_few_lines():
    with pytest.raises(ValueError, match=r"^config: ") as error:
        parse_config(changed("training.seeds", [-1] * 1000))
    assert len(lines := str(error.value).splitlines()) == 21
    assert lines[-1] == "config: 980 more values are wrong"


@pytest.mark.parametrize("key", ["run", "training", "cases", "microstructures"])
def test_a_value_of_exponential_size_is_not_written_out(key):
    """A YAML alias in an alias … stands for 10¹² entries."""
    bomb = "x"
    for _ in range(12):
        bomb = [bomb] * 10
    with pytest.raises(ValueError, match=f"^config: {key}") as error:
        parse_config(TEST | {key: {"generator": {"kind": bomb}} if key == "microstructures" else bomb})
    assert len(str(error.value)) < 1000
