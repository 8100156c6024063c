"""A model on disk: the weights in ``model.safetensors``, and how to use them in ``model.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lspipe.cell.arguments import check_device
from lspipe.files import leftovers, locked, parse, read_json, write_bytes, write_text
from lspipe.models.architectures import build
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.description import Description
from lspipe.models.domain import Domain
from lspipe.models.localization import LocalizationModel
from lspipe.models.network import Network
from lspipe.models.rln_cg import RLNCG, RLNCGModel
from lspipe.models.shipped import find_model
from lspipe.versions import MODEL_VERSION, __version__

Model = LocalizationModel | RLNCGModel | ConjugateGradients


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the folder of a model, keep other writers out, and remove files that a killed writer left unfinished."""
    with locked(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in leftovers(folder):
            if file.parent == folder:
                file.unlink()
        yield


def save_model(
    folder: Path,
    architecture: str,
    network: Network | RLNCG,
    domains: Sequence[Domain],
    record: dict[str, Any],
    metrics: str = "",
) -> None:
    """Write the files of a model, each whole or not at all.

    Args:
        folder: The folder of the model.
        architecture: The name of the network's architecture.
        network: The network with its weights.
        domains: The problems that the network was trained for.
        record: Keys to add to ``model.json``, such as the settings of the training.
        metrics: The text of ``metrics.csv``. Without it, that of an earlier model is removed.

    Raises:
        ValueError: Weights are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    check_weights(folder, state)
    weights = save(state)
    description = {
        "lspipe": __version__,
        "model_version": MODEL_VERSION,
        "architecture": architecture,
        "components": domains[0].physics.components[: network.channels],
        "domains": [domain.to_json() for domain in domains],
        **record,
    }
    if metrics:
        description["metrics"] = hashlib.sha256(metrics.encode()).hexdigest()
        write_text(folder / "metrics.csv", metrics)
    else:
        (folder / "metrics.csv").unlink(missing_ok=True)
    write_bytes(folder / "model.safetensors", weights)
    description["sha256"] = checksum(description, weights)
    write_text(folder / "model.json", json.dumps(description, indent=1) + "\n")


def read_model(folder: Path) -> tuple[Description, bytes]:
    """Read the description and the bytes of the weights of the model in a folder.

    Raises:
        ValueError: A file is damaged, or the two do not belong together. The latter cannot be checked in descriptions
            of early versions, which have neither ``model_version`` nor ``sha256``.
    """
    file = folder / "model.json"
    values, weights = read_json(file, dict[str, Any]), (folder / "model.safetensors").read_bytes()
    if values.keys() & {"model_version", "sha256"} and values.pop("sha256", None) != checksum(values, weights):
        raise ValueError(
            f"{file}: does not belong to model.safetensors, or one of the two was changed or is damaged; "
            "train or import the model again"
        )
    return parse(file, Description, values), weights


def check_metrics(file: Path) -> None:
    """Raise ValueError unless metrics.csv belongs to the model in its folder, if there is one."""
    if (file.parent / "model.json").is_file():
        expected = read_model(file.parent)[0].metrics
        if expected not in (None, hashlib.sha256(file.read_bytes()).hexdigest()):
            raise ValueError(f"{file}: does not belong to model.json, or is damaged; train the model again")


def checksum(description: dict[str, Any], weights: bytes) -> str:
    """Return the SHA-256 of the weights and the description, which lacks this checksum."""
    return hashlib.sha256(weights + json.dumps(description, sort_keys=True).encode()).hexdigest()


def check_weights(where: Path, weights: dict[str, Tensor]) -> None:
    """Raise ValueError for weights that are not finite."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{where}: the weights {name} must be finite numbers")


def load_model(name_or_path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Load a model.

    Args:
        name_or_path: The folder of a trained model, the name of a model of the package ('rln-cg', 'rln-c10', …), or
            'cg' for the solver stopped early.
        device: 'cpu' or a CUDA device.

    Raises:
        ValueError: There is no such model, its files are damaged or do not belong together, or the class of a user's
            network cannot be imported.
    """
    check_device(device)
    if str(name_or_path) == "cg" and not Path("cg/model.json").is_file():  # a folder of the user comes before a name
        return ConjugateGradients(device=device)
    folder = find_model(name_or_path, ["cg"])
    description, data = read_model(folder)
    try:
        domain, *others = map(Domain.from_json, description.domains)
        channels = len(description.components)
        network = build(description.architecture, len(domain.materials), channels, domain.physics)
        weights = load(data)
        network.load_state_dict(weights)
    except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"{folder}: the model cannot be loaded: {line:.500}") from None
    check_weights(folder / "model.safetensors", weights)
    network.to(torch.device(device)).eval()
    if isinstance(network, RLNCG):
        return RLNCGModel(network, scheme=domain.scheme, device=device, training_seconds=description.seconds)
    stated = (description.mase_90, description.valid_grids, description.seconds)
    return LocalizationModel(network, [domain, *others], *stated)
