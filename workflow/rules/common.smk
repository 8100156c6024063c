import math
import os
import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError

from lspipe import DATA_VERSION, EVALUATION_VERSION, MODEL_VERSION
from lspipe.config import BASELINE, parse_config, read_yaml
from lspipe.images import voxels as image_voxels
from lspipe.microstructure import SPLITS

try:
    for file in workflow.configfiles:  # Snakemake would keep the last of equal keys
        read_yaml(file, Path(file).read_bytes())
    cfg = parse_config(config)
except ValueError as error:
    raise WorkflowError(str(error)) from None
# What the captions of the report are told.
config["run"] = cfg.run
config["field"], config["flux"] = cfg.physics.fields
config["component"] = f"{cfg.physics.symbol}_{cfg.physics.components[0]}"

# The user's own microstructures, if any.
images = [cfg.microstructures.images] if cfg.microstructures.images else []
labels = {"labels": [cfg.microstructures.labels]} if cfg.microstructures.labels else {}

# A predictor is a network with its seed, which is its folder in models/, an imported or a trivial one.
networks = {
    f"{n.name}/imported" if n.checkpoint else f"{n.name}/seed{seed}": (n, seed)
    for n in cfg.networks
    for seed in cfg.training.seeds
}
learned = {
    case: [p for p, (n, _) in networks.items() if case in n.train_on]
    for case in cfg.cases
}
learned = {case: predictors for case, predictors in learned.items() if predictors}
trained_on = {
    case: [p for p in predictors if not networks[p][0].checkpoint]
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
    every = network.components == "all" or network.architecture == "rln-cg"
    samples = cfg.microstructures.train * len(network.train_on)
    layers = 13e-3 * cfg.training.batch * voxels
    return math.ceil(4000 + layers + 4e-6 * samples * voxels * (25 if every else 5))


wildcard_constraints:
    run=re.escape(cfg.run),
    split="|".join(SPLITS),
    case="|".join(map(re.escape, cfg.cases)),
    predictor="|".join(map(re.escape, [BASELINE, *networks])),


def options(**values):
    """Options of an `lspipe` command: what a rule is run with is what it reruns on."""
    words = []
    for name, value in values.items():
        if isinstance(value, list) and isinstance(
            value[0], list
        ):  # an option given several times
            entries = [[",".join(map(str, item))] for item in value]
        else:
            entries = [value if isinstance(value, list) else [value]]
        for entry in entries:
            words += [f"--{name.replace('_', '-')}", *map(str, entry)]
    return shlex.join(words)


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
        if network.checkpoint or len(cfg.training.seeds) == 1
        else f"{network.name} seed {seed}"
    )


def named(predictors, files):
    """[name, file] of each predictor."""
    return [
        [label(predictor), file]
        for predictor, file in zip(predictors, files, strict=True)
    ]
