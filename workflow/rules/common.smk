import json
import shlex

from snakemake.exceptions import WorkflowError

from lspipe.config import BASELINES, Paths, parse_config
from lspipe.microstructure import SPLITS
from lspipe.store import VERSION

try:
    cfg = parse_config(config)
except ValueError as error:
    raise WorkflowError(str(error)) from None

paths = Paths(f"results/{cfg.run}")
networks = {f"{n.name}/seed{seed}": n for n in cfg.networks for seed in cfg.training.seeds}
trained_on = {
    case: [predictor for predictor, n in networks.items() if case in n.train_on]
    for case in cfg.cases
    if any(case in n.train_on for n in cfg.networks)
}


wildcard_constraints:
    split="|".join(SPLITS),
    case="|".join(map(re.escape, cfg.cases)),
    job=r"\d+",
    predictor=r"[^/]+(/seed\d+)?",


def options(**values):
    """Options of an `lspipe` command: what a rule is run with is what it reruns on."""
    words = []
    for name, value in values.items():
        if isinstance(value, list) and isinstance(value[0], list):  # an option given several times
            entries = [[",".join(map(str, item))] for item in value]
        else:
            entries = [value if isinstance(value, list) else [value]]
        for entry in entries:
            words += [f"--{name.replace('_', '-')}", *map(str, entry)]
    return shlex.join(words)


def receipts(case, split):
    """What says that the strain of a split is there."""
    return [paths.receipt(case, split, job) for job in cfg.jobs_of(split)]


def label(predictor):
    return predictor.split("/")[0] if len(cfg.training.seeds) == 1 else predictor.replace("/", " ")


def figure(name):
    return f"{paths.root}/figures/{name}.png"
