"""The first page of the report: what was run, on what, the table, and three figures."""

from __future__ import annotations

import datetime
import os
import platform
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import yaml

from lspipe.config import ConductorConfig, Config, ElasticConfig
from lspipe.machine import processor
from lspipe.models.files import read_model
from lspipe.tables import note, readable

# Snakemake's page is narrow, and centred so that the top of a longer one would be out of reach.
STYLE = """<style>.items-center.overflow-auto{align-items:safe center;justify-content:safe center}
.prose.max-w-lg{max-width:52rem}table.dataframe{white-space:nowrap}
table.dataframe td,table.dataframe th{text-align:right}figcaption,details pre{font-size:smaller}</style>"""
COLUMNS = ["case", "predictor", "passes", "MASE (%)", "max", "energy (%)", "Green", "GFLOP each", "samples/s"]
PACKAGES = ("lspipe", "torch", "numpy", "scipy", "numba", "zarr", "dask", "pandas", "matplotlib", "snakemake")


def summary(config: Config, errors: pd.DataFrame, models: Mapping[str, Path], figures: Mapping[str, Path]) -> str:
    """HTML, without a head, of a run with this configuration, table of errors, model.json of each network, and figures
    by their captions."""
    cells, training, physics = config.microstructures, config.training, config.physics
    source = (
        f"images of {cells.images}" if cells.images else f"generated cells of {cells.n}³ voxels, seed {config.seed}"
    )
    split = f"{cells.train} to train on, {cells.valid} to choose the epoch, {cells.test} to test"
    run = {
        "microstructures": f"{source}: {split}",
        "load": f"macroscopic {physics.fields[0]} ({', '.join(physics.components)}) {config.load.strain}",
        "truth": f"element {config.solver.scheme}, relative residual {config.solver.tol:g}",
        **{f"case {name}": "; ".join(map(stated, materials)) for name, materials in config.cases.items()},
        "training": f"{training.epochs} epochs, batches of {training.batch}, learning rate {training.learning_rate:g}, "
        f"seeds {', '.join(map(str, training.seeds))}, {training.precision}",
    }
    whole = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    parts = [STYLE, f"<h2>Run {escape(config.run)}</h2>", pairs(run)]
    parts += [f"<details><summary>Complete configuration</summary><pre>{escape(whole)}</pre></details>"]
    parts += ["<h2>Errors</h2>", f"<p>{escape(finding(errors))}</p>"]
    parts += [readable(errors)[COLUMNS].to_html(index=False, border=0), f"<p>{escape(note(errors))}</p>"]
    parts += ["<h2>Figures</h2>"]
    for caption, file in figures.items():
        image = f'alt="{escape(caption)}" src="data:image/png;base64,{b64encode(file.read_bytes()).decode()}"'
        parts.append(f'<figure><img style="max-width:100%" {image}><figcaption>{escape(caption)}</figcaption></figure>')
    parts += ["<h2>Networks</h2>", networks(models).to_html(index=False, border=0), "<h2>Machine and versions</h2>"]
    return "\n".join([*parts, pairs(machine() | {"versions": ", ".join(f"{p} {version(p)}" for p in PACKAGES)})]) + "\n"


def finding(errors: pd.DataFrame) -> str:
    """What the table says in a sentence: of each predictor, with at most five passes, in the first case."""
    case, few = errors["case"].iloc[0], errors[errors["passes"] <= 5]
    last = few[few["case"] == case].groupby("predictor", sort=False).last()
    said = [f"{name} {row['mean']:.3g}% (passes: {row['passes']})" for name, row in last.iterrows()]
    return f"Mean MASE at {case}: {', '.join(said)}."


def stated(material: ElasticConfig | ConductorConfig) -> str:
    """Its parameters, with their units."""
    units = material.material.physics.stated["units"]
    return ", ".join(f"{key} {value:g} {units.get(key, '')}".strip() for key, value in material)


def networks(models: Mapping[str, Path]) -> pd.DataFrame:
    """What each network was made with."""
    rows = []
    for name, file in models.items():
        described, _ = read_model(file.parent)
        trained = f"trained, seed {described.training.seed}" if described.training else "–"
        rows.append(
            {
                "network": name,
                "architecture": described.architecture,
                "origin": "published" if described.imported else trained,
                "minutes": f"{described.seconds / 60:.1f}",
                "samples/s": f"{described.samples_per_second:.3g}",
                "device": described.device,
                "GPU memory (GB)": f"{described.gpu_gb:.3g}",
                "validation MASE (%)": f"{described.valid_mase:.3g}",
            }
        )
    return pd.DataFrame(rows).replace("nan", "–")


def machine() -> dict[str, str]:
    """Processor, graphics card and system that this runs on."""
    import torch

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "made on": f"{datetime.date.today()}",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "graphics card": ", ".join(cards) or "none",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
    }


def pairs(entries: Mapping[str, str]) -> str:
    rows: Sequence[str] = [f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in entries.items()]
    return f"<table>{''.join(rows)}</table>"
