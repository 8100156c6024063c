"""The first page of the report: configuration, errors, three figures, networks, machine and versions."""

from __future__ import annotations

import datetime
import platform
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lspipe.cell.kinds import read_material
from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.conclusion import conclude
from lspipe.config import Config
from lspipe.literature import compare_published
from lspipe.machine import cores, processor
from lspipe.models.files import read_model
from lspipe.sections import LoadConfig, StepConfig
from lspipe.tables import explain_columns, format_table

# Snakemake's page is narrow. It is also centred, which would put the top of a longer page out of reach.
STYLE = """<style>.items-center.overflow-auto{align-items:safe center;justify-content:safe center}
.prose.max-w-lg{max-width:52rem}table.dataframe{white-space:nowrap}
table.dataframe td,table.dataframe th{text-align:right}figcaption,details pre{font-size:smaller}</style>"""
COLUMNS = ["case", "predictor", "passes", "MASE (%)", "max", "energy (%)", "pays after", "Green", "GFLOP", "samples/s"]
# The figures are those of benchmarks/cropping.py.
CUT = (
    "The cells are cut from larger images. The solution of a periodic cell does not know what was around it. In "
    "windows of 24³ voxels from solved cells of 48³ (30 % stiff, features of 8 voxels), the strain near a "
    "face (2 voxels) is off by 26 % of its mean at contrast 10 and 41 % at contrast 50, from 8 voxels on by 9 % and "
    "16 %; in mirrored windows by 21 % and 34 %, and by 10 % and 17 %."
)
PUBLISHED_NOTE = (
    "Mean ± standard deviation over the test microstructures. The papers have other microstructures of the same "
    "distribution, and a finite element solution as ground truth. Check quoted values in the papers before you cite "
    "them."
)
PACKAGES = ("lspipe", "torch", "numpy", "scipy", "numba", "zarr", "dask", "pandas", "matplotlib", "snakemake")


def summary(config: Config, errors: pd.DataFrame, models: Mapping[str, Path], figures: Mapping[str, Path]) -> str:
    """Return the page as HTML without a head.

    Args:
        config: The configuration of the run.
        errors: The table that ``lspipe.tables.table`` returns.
        models: The model.json of each network, by its label.
        figures: PNG files by their captions.
    """
    cells, training, physics = config.microstructures, config.training, config.physics
    shape = "×".join(map(str, cells.n))
    if cells.images:
        options = [f"{name} {value}" for name, value in cells.images.options.items()]
        source = f"images of {', '.join([*cells.images.path, *options])}"
    else:
        source = f"generated cells ({describe_values(cells.generator)}) of {shape} voxels, seed {config.seed}"
    split = f"{cells.train} to train on, {cells.valid} to choose the epoch, {cells.test} to test"
    if (small := cells.small) and any(network.small for network in config.networks):
        split += (
            f"; of {'×'.join(map(str, small.n))} voxels: {small.train} to train on, {small.valid} to choose the epoch"
        )
    run = {
        "microstructures": f"{source}: {split}",
        **{f"load {name}": describe_load(load, physics) for name, load in config.loads.items()},
        **({"cut": CUT} if cells.images and (cells.images.blocks or cells.images.crop or cells.images.mirror) else {}),
        "truth": f"element {config.solver.scheme}, relative residual {config.solver.tol:g}",
        **{f"truth of {case}": f"published strain, {', '.join(files)}" for case, files in config.truth.items()},
        **{f"case {name}": "; ".join(map(describe_material, materials)) for name, materials in config.cases.items()},
        "training": f"{training.epochs} epochs, batches of {training.batch}, learning rate {training.learning_rate:g}, "
        f"seeds {', '.join(map(str, training.seeds))}, {training.optimizer}, "
        f"{training.precision}{' where the device has it' * (training.precision == 'bf16')}",
    }
    whole = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    parts = [STYLE, f"<h2>Run {escape(config.run)}</h2>"]
    parts += [f"<p><strong>{escape(line)}</strong></p>" for line in conclude(errors).splitlines()]
    parts += [describe_pairs(run)]
    parts += [f"<details><summary>Complete configuration</summary><pre>{escape(whole)}</pre></details>"]
    parts += ["<h2>Errors</h2>", format_table(errors)[COLUMNS].to_html(index=False, border=0)]
    parts += [f"<p>{escape(explain_columns(errors, COLUMNS))}</p>"]
    if (published := compare_published(config, errors)).size:
        parts += ["<h2>Published errors of the same case</h2>", published.to_html(index=False, border=0)]
        parts += [f"<p>{escape(PUBLISHED_NOTE)}</p>"]
    parts += ["<h2>Figures</h2>"]
    for caption, file in figures.items():
        image = f'alt="{escape(caption)}" src="data:image/png;base64,{b64encode(file.read_bytes()).decode()}"'
        parts.append(f'<figure><img style="max-width:100%" {image}><figcaption>{escape(caption)}</figcaption></figure>')
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    parts += ["<h2>Networks</h2>", describe_networks(models).to_html(index=False, border=0)]
    parts += ["<h2>Machine and versions</h2>", describe_pairs(describe_machine() | {"versions": versions})]
    return "\n".join(parts) + "\n"


def describe_load(load: LoadConfig | StepConfig, physics: Physics) -> str:
    """Return the prescribed components of a load and its change of temperature, or the steps of a load path."""
    if isinstance(load, LoadConfig) and load.steps:
        return "; then ".join(f"{describe_load(step, physics)} in {step.increments} steps" for step in load.steps)
    parts = []
    for field, values in zip(physics.field_names, (load.strain, load.stress), strict=True):
        named = zip(physics.components, values, strict=False)
        if prescribed := [f"{name} {value:g}" for name, value in named if value is not None]:
            parts.append(f"macroscopic {field} {', '.join(prescribed)}")
    if temperature := getattr(load, "temperature", 0):
        parts.append(f"temperature {temperature:+g} K")
    return "; ".join(parts)


def describe_material(values: Mapping[str, Any]) -> str:
    """Return the kind and the parameters of a material with the unit of its moduli."""
    material = read_material(values)
    unit = "moduli in GPa" if material.physics is ELASTICITY else "conductivity in W/(m K)"
    return f"{describe_values({'kind': material.kind} | dict(values))} ({unit})"


def describe_values(values: Mapping[str, Any]) -> str:
    """Return a kind and its parameters."""
    return ", ".join([values["kind"], *(f"{key} {value}" for key, value in values.items() if key != "kind")])


def describe_networks(models: Mapping[str, Path]) -> pd.DataFrame:
    """Return a row for each network: origin, epochs, learning rate, training time, device and validation error."""
    rows = []
    for name, file in models.items():
        model, _ = read_model(file.parent)
        trained, settings = "–", {"epochs": "–", "learning rate": "–"}
        if training := model.training:
            trained = f"trained, seed {training.seed}" + f", from {training.start}" * bool(training.start)
            settings = {"epochs": f"{training.epochs:g}", "learning rate": f"{training.learning_rate:g}"}
        rows.append(
            {
                "network": name,
                "architecture": model.architecture,
                "origin": "published" if model.imported else trained,
                **settings,
                "minutes": f"{model.seconds / 60:.1f}",
                "samples/s": f"{model.samples_per_second:.3g}",
                "device": model.device,
                "GPU memory (GB)": f"{model.gpu_gb:.3g}",
                "validation MASE (%)": f"{model.valid_mase:.3g}",
            }
        )
    return pd.DataFrame(rows).replace("nan", "–")


def describe_machine() -> dict[str, str]:
    """Return processor, graphics card and system."""
    import torch

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "made on": f"{datetime.date.today()}",
        "processor": f"{processor()}, {cores()} cores",
        "graphics card": ", ".join(cards) or "none",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
    }


def describe_pairs(entries: Mapping[str, str]) -> str:
    """Return a table of two columns as HTML."""
    rows = [f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in entries.items()]
    return f"<table>{''.join(rows)}</table>"
