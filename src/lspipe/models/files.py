"""A model on disk: ``model.safetensors`` (weights) and ``model.json`` (all that it takes to use them)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from lspipe import __version__
from lspipe.cell.arguments import check_device
from lspipe.files import write_bytes, write_text
from lspipe.models.architectures import build
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.domain import Domain
from lspipe.models.localization import LocalizationModel
from lspipe.models.rln import RLN
from lspipe.models.rln_cg import RLNCG, RLNCGModel

SHIPPED = Path(__file__).parent / "weights"  # with the package, each with its model card
Model = LocalizationModel | RLNCGModel | ConjugateGradients


def save_model(
    folder: Path, architecture: str, network: RLN | RLNCG, domains: Sequence[Domain], record: dict[str, Any]
) -> None:
    """Writes both files, each whole or not at all. ``record``: how the model came about."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "lspipe": __version__,
        "architecture": architecture,
        "components": domains[0].physics.components[: network.channels],
        "domains": [domain.to_json() for domain in domains],
        **record,
    }
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(weights))
    write_text(folder / "model.json", json.dumps(description, indent=1) + "\n")


def load_model(name_or_path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """A trained model from its folder, one that comes with the package ('rln-cg', 'rln-c10', …), or the solver
    stopped early ('cg').

    Raises ValueError for what is neither.
    """
    check_device(device)
    shipped = {folder.name: folder for folder in sorted(SHIPPED.iterdir())}
    folder = Path(name_or_path)
    if not (folder / "model.json").is_file():  # your own folder comes first
        if str(name_or_path) == "cg":
            return ConjugateGradients(device=device)
        folder = shipped.get(str(name_or_path), folder)
    if not (folder / "model.json").is_file():
        names = ", ".join(map(repr, [*shipped, "cg"]))
        raise ValueError(f"{name_or_path}: must be a folder with a model.json, or one of {names}")
    description = json.loads((folder / "model.json").read_text())
    domain, *_ = (Domain.from_json(stated) for stated in description["domains"])
    mean = domain.relative(len(description["components"]))
    network = build(description["architecture"], len(domain.materials), mean, domain.physics)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.to(torch.device(device)).eval()
    if isinstance(network, RLNCG):
        return RLNCGModel(network, scheme=domain.scheme, device=device)
    return LocalizationModel(network, domain)
