import json
import locale
import math
import os
import time
from datetime import datetime
from itertools import product
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import contains_wildcard

from lspipe.images import list_files
from lspipe.config import BASELINE
from lspipe.models.architectures import source_file
from lspipe.models.shipped import SHIPPED, find_model
from lspipe.plan import Plan, words
from lspipe.report_figures import FIGURES, FIRST_PAGE
from lspipe.read_config import parse_config, read_yaml
from lspipe.versions import DATA_VERSION, EVALUATION_VERSION, MODEL_VERSION

ENCODING = locale.getpreferredencoding(False)


def user_file(key, name, path=None):
    """Return a file of the user, which the configuration names, as an input of a rule.

    Raises:
        ValueError: Snakemake cannot handle a file of this name or with this time of modification.
    """
    # The configuration is UTF-8; Snakemake may run in a locale of another encoding.
    path = path or os.fsdecode(name.encode())
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
                "so that Snakemake would treat all its products as outdated; `touch` it, or set the clock"
            )
    return local(path)


try:
    for file in workflow.configfiles:  # Snakemake would keep the last of equal keys
        read_yaml(file, Path(file).read_bytes())
    cfg = parse_config(config)
    plan = Plan(cfg)
    plan.check_starts()
    # Every slice of a folder is an input, so that a changed one is noticed.
    images = [
        user_file("microstructures.images", os.fspath(path), os.fspath(file))
        for path in (
            cfg.microstructures.images.files if cfg.microstructures.images else []
        )
        for file in list_files(path)
    ]
    truth = {
        case: [user_file(f"truth.{case}", name) for name in names]
        for case, names in cfg.truth.items()
    }
    published = {
        n.name: user_file(f"networks.{i}.published", n.published)
        for i, n in enumerate(cfg.networks)
        if n.published
    }
    # The file of a network class of the user: when it changes, Snakemake trains the network again.
    sources = {
        n.name: user_file(
            f"networks.{i}.architecture", n.architecture, os.path.relpath(path)
        )
        for i, n in enumerate(cfg.networks)
        if (path := source_file(n.architecture))
    }
    # The files of models of the user whose weights a training starts from. Models of the package have none.
    starts = {
        n.name: [
            user_file(f"networks.{i}.start", f"{n.start}/{name}")
            for name in ("model.json", "model.safetensors")
        ]
        for i, n in enumerate(cfg.networks)
        if n.start
        and not cfg.start_of(n)
        and find_model(os.fsdecode(n.start.encode())).parent != SHIPPED
    }
except ValueError as error:
    # Snakemake logs it in the encoding of the locale.
    message = str(error).encode(ENCODING, "backslashreplace").decode(ENCODING)
    raise WorkflowError(message) from None

# The captions of the report read these. The mapping itself may belong to another workflow, which uses this one.
config = {
    **config,
    "field": cfg.physics.field_names[0],
    "flux": cfg.physics.field_names[1],
    "component": f"{cfg.physics.symbol}_{cfg.physics.components[0]}",
    "components": {case: plan.component(case) for case in cfg.problems},
    "phases": plan.legend,
}

# Commands read and write UTF-8, whatever the locale. The configuration reaches them as ASCII, which all locales have.
os.environ.update(PYTHONUTF8="1")
complete = json.dumps(cfg.model_dump(mode="json"), sort_keys=True)


wildcard_constraints:
    run=re.escape(cfg.run),
    split="|".join(cfg.counts),
    case="|".join(map(re.escape, {*cfg.problems, *cfg.loaded, *cfg.cases})),
    predictor="|".join(map(re.escape, plan.predictors)),


def network(wildcards):
    return plan.predictors[wildcards.predictor].network


def flagged(name, values):
    return [name, *values] if values else []

# Every field of a shell line ends in `:q`, which quotes each of its words, and files come after `--`. A rule reruns
# when the options of its command change.
