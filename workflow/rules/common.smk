import csv
import io
import json
import locale
import math
import os
import time
from datetime import datetime
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import contains_wildcard

from lspipe import DATA_VERSION, EVALUATION_VERSION, MODEL_VERSION
from lspipe.config import BASELINE, parse_config, read_yaml
from lspipe.images import voxels as image_voxels
from lspipe.microstructure import SPLITS

ENCODING = locale.getpreferredencoding(False)


def user_file(key, name):
    """Return a file that the configuration names, as an input of a rule. Raises ValueError for one that Snakemake
    would not get through a run.
    """
    # The bytes of the configuration, which is UTF-8, in whatever locale Snakemake runs.
    path = os.fsdecode(name.encode())
    try:
        path.encode(ENCODING)
    except UnicodeEncodeError:
        raise ValueError(
            f"config: {key} = {name!r}: cannot be written in {ENCODING}, the locale's encoding; set LC_ALL=C.UTF-8"
        ) from None
    if contains_wildcard(path):
        raise ValueError(
            f"config: {key} = {name!r}: must not contain a word in braces, which Snakemake takes for a wildcard; "
            "rename the file"
        )
    if os.path.exists(path):
        modified = max(os.stat(path).st_mtime, os.lstat(path).st_mtime)
        if modified > time.time():
            raise ValueError(
                f"config: {key} = {name!r}: was modified in the future, {datetime.fromtimestamp(modified):%Y-%m-%d %H:%M:%S}, "
                "so all that is made of it would be out of date; `touch` it, or set the clock"
            )
    return local(path)


try:
    for file in workflow.configfiles:  # Snakemake would keep the last of equal keys
        read_yaml(file, Path(file).read_bytes())
    cfg = parse_config(config)
    # The user's own microstructures, if any.
    images = [
        user_file("microstructures.images", name)
        for name in [cfg.microstructures.images]
        if name
    ]
    checkpoints = {
        n.name: user_file(f"networks.{i}.published", n.published)
        for i, n in enumerate(cfg.networks)
        if n.published
    }
except ValueError as error:
    # Snakemake logs it in the encoding of the locale.
    message = str(error).encode(ENCODING, "backslashreplace").decode(ENCODING)
    raise WorkflowError(message) from None

labels = {"labels": [cfg.microstructures.labels]} if cfg.microstructures.labels else {}

# What the captions of the report read. The mapping itself may belong to another workflow, which uses this one.
config = {
    **config,
    "field": cfg.physics.fields[0],
    "flux": cfg.physics.fields[1],
    "component": f"{cfg.physics.symbol}_{cfg.physics.components[0]}",
}

# Commands read and write UTF-8, whatever the locale. The configuration reaches them as ASCII, which all locales have.
os.environ.update(PYTHONUTF8="1")
complete = json.dumps(cfg.model_dump(mode="json"))

# A predictor is a network with its seed, which is its folder in models/, an imported or a trivial one.
networks = {
    f"{n.name}/imported" if n.published else f"{n.name}/seed{seed}": (n, seed)
    for n in cfg.networks
    for seed in cfg.training.seeds
}
learned = {
    case: [p for p, (n, _) in networks.items() if case in n.train_on]
    for case in cfg.cases
}
learned = {case: predictors for case, predictors in learned.items() if predictors}
trained_on = {
    case: [p for p in predictors if not networks[p][0].published]
    for case, predictors in learned.items()
}
trained_on = {case: predictors for case, predictors in trained_on.items() if predictors}
solver = {case: [BASELINE] for case in cfg.cases}
evaluated = {case: [BASELINE, *learned.get(case, [])] for case in cfg.cases}

# Networks trained side by side use the cores better than one after the other.
trainings = len({p for predictors in trained_on.values() for p in predictors}) or 1
training_threads = max(
    1, (workflow.resource_settings.cores or 8 * trainings) // trainings
)

# What jobs ask a cluster for, in MB, depends on the voxels of a microstructure.
voxels = cfg.microstructures.n**3
if images:
    try:
        voxels = image_voxels(Path(images[0]))
    except Exception:  # the job that imports the file says what is wrong with it
        voxels = 64**3


def solver_memory(wildcards, threads, attempt):
    """A worker a thread (docs/data.md); more after a job that failed."""
    worker = 300 + 24e-6 * voxels * (3 * cfg.jobs.samples_per_shard + 140)
    return math.ceil(attempt * (500 + threads * worker))


def evaluation_memory(wildcards, threads, attempt):
    """A batch, or a cell for each thread of the solver (docs/data.md); more after a job that failed."""
    solves = (
        wildcards.predictor == BASELINE
        or networks[wildcards.predictor][0].architecture == "rln-cg"
    )
    batch = max(2**19, voxels * (threads if solves else 1))
    return math.ceil(attempt * (700 + batch * (1.1e-3 if solves else 2.4e-3)))


def training_memory(wildcards):
    """So much that the set, less than a quarter of it, is preloaded, and what the layers keep of a batch. The same at
    each attempt: where a set that was streamed is preloaded later, training begins anew.
    """
    network, _ = networks[wildcards.predictor]
    every = network.predict == "all" or network.architecture == "rln-cg"
    samples = cfg.microstructures.train * len(network.train_on)
    layers = 13e-3 * cfg.training.batch * voxels
    return math.ceil(4000 + layers + 4e-6 * samples * voxels * (25 if every else 5))


wildcard_constraints:
    run=re.escape(cfg.run),
    split="|".join(SPLITS),
    case="|".join(map(re.escape, cfg.cases)),
    predictor="|".join(map(re.escape, [BASELINE, *networks])),


# Every field of a shell line ends in `:q`, which quotes each of its words, and files come after `--`.
def options(**values):
    """Words of the options of an `lspipe` command. A rule reruns when they change."""
    words = []
    for name, value in values.items():
        # A list of lists is an option given several times, each time with words separated by commas.
        for entry in (
            map(comma_separated, value) if isinstance(value, list) else [value]
        ):
            words += [f"--{name.replace('_', '-')}", str(entry)]
    return words


def comma_separated(words):
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(words)
    return row.getvalue()


def flagged(name, values):
    return [name, *values] if values else []


def stores(case, split):
    """Microstructures and fields of a split."""
    return [
        f"results/{cfg.run}/microstructures/{split}.zarr/zarr.json",
        f"results/{cfg.run}/fields/{case}/{split}.zarr/zarr.json",
    ]


def receipts(case, split, shards):
    return [
        f"results/{cfg.run}/fields/{case}/{split}.receipts/{k}.json" for k in shards
    ]


def strain(case, split, shards):
    """The strain of some shards. A shard's smaller files come and go with it."""
    return [
        f"results/{cfg.run}/fields/{case}/{split}.zarr/strain/c/{k}/0/0/0/0"
        for k in shards
    ]


def solved(case, *splits):
    """What says that all fields of some splits are there. Only the store of the fields says which they
    are: solving the same ones again leaves what was made of them valid.
    """
    return [
        ancient(f"results/{cfg.run}/fields/{case}/{split}.receipts/all.jsonl")
        for split in splits
    ]


def training_sets(predictor, split):
    """The stores of each case that a network learns, one case after the other."""
    network, _ = networks[predictor]
    return [file for case in network.train_on for file in stores(case, split)]


def in_pairs(files):
    return [files[i : i + 2] for i in range(0, len(files), 2)]


def trained(predictor):
    """Files of a network; none of a trivial predictor."""
    folder = f"results/{cfg.run}/models/{predictor}"
    return (
        [f"{folder}/model.json", f"{folder}/model.safetensors"]
        if predictor in networks
        else []
    )


def origin(predictor):
    """What a checkpoint is said to be: the file names its materials nowhere."""
    network, _ = networks[predictor]
    soft, stiff = cfg.cases[network.train_on[0]]
    return options(
        contrast=stiff.young / soft.young,
        young=soft.young,
        poisson=soft.poisson,
        architecture=network.architecture,
    )


def examples(case, predictors):
    return [
        f"results/{cfg.run}/evaluation/{predictor}/{case}.zarr/zarr.json"
        for predictor in predictors
    ]


def metrics(case, predictors):
    return [
        f"results/{cfg.run}/models/{predictor}/metrics.csv" for predictor in predictors
    ]


def errors(case, predictors):
    return [
        f"results/{cfg.run}/evaluation/{predictor}/{case}.parquet"
        for predictor in predictors
    ]


# Those that work inside the solver: they are studied on problems that they were not trained on, all of elasticity.
inside = [
    p
    for p, (n, _) in networks.items()
    if n.architecture == "rln-cg" and cfg.physics.name == "elasticity"
]


def label(predictor):
    """How a predictor is called in tables and figures."""
    if predictor == BASELINE:
        return predictor
    network, seed = networks[predictor]
    return (
        network.name
        if network.published or len(cfg.training.seeds) == 1
        else f"{network.name} seed {seed}"
    )


def named(predictors, files):
    """[name, file] of each predictor."""
    return [
        [label(predictor), file]
        for predictor, file in zip(predictors, files, strict=True)
    ]


def is_studied():
    """Whether the report shows the study: it is asked for, or has been made."""
    asked = rules.study.rule.name in workflow.dag_settings.targets
    return asked or all(map(os.path.exists, STUDIED))
