"""The weights of a trained model, from which the training of another one starts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from lspipe.models.architectures import PAPER
from lspipe.models.description import Description, check_start
from lspipe.models.domain import Domain
from lspipe.models.files import check_weights, read_model
from lspipe.models.network import Network
from lspipe.models.rln_cg import RLNCG
from lspipe.models.shipped import find_model


def start_from(start: str | Path, network: Network | RLNCG, architecture: str, domain: Domain) -> str:
    """Copy the weights of a model into a network. Each pass gets a copy of weights that the passes of the model share.

    Args:
        start: The folder of the model, or the name of a model of the package.
        network: The network that gets the weights.
        architecture: The architecture of this network.
        domain: A problem that this network will learn.

    Returns:
        The SHA-256 of the weights, which tells one start from another.

    Raises:
        ValueError: There is no such model, it is damaged, or its weights do not fit the network.
    """
    where, folder = f"start = {str(start)!r}", find_model(start)
    description, data = read_model(folder)
    components = list(domain.physics.components[: network.channels])
    learner = Description(architecture=architecture, components=components, domains=[domain.to_json()])
    check_start(where, description, learner)
    try:
        weights = load(data)
        check_weights(folder / "model.safetensors", weights)
        if architecture in PAPER:
            names = {name: re.sub(r"^nets\.\d+", "nets.0", name) for name in network.state_dict()}
            weights = {name: weights[shared] for name, shared in names.items()} | weights
        network.load_state_dict(weights)
    except (RuntimeError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"{where}: its weights do not fit this network: {line:.500}") from None
    return hashlib.sha256(data).hexdigest()
