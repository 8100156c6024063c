"""The contents of ``model.json``, and a check of the weights that a network starts from.

This module does not import PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, Field

from lspipe.models.architectures import SEE_MODULI, fitting_starts
from lspipe.models.domain import Domain


class Training(BaseModel):
    """The settings of a training."""

    seed: int
    epochs: float = math.nan
    learning_rate: float = math.nan
    start: str = ""  # the model whose weights it started from


class Description(BaseModel):
    """The keys of ``model.json`` that are read."""

    architecture: str
    components: list[str] = Field(min_length=1)
    domains: list[dict[str, Any]] = Field(min_length=1)
    metrics: str | None = None  # SHA-256 of metrics.csv
    training: Training | None = None
    imported: dict[str, str] | None = None
    valid_mase: float = math.nan
    mase_90: list[float | None] = []  # for each domain; see models/conformal.py
    valid_grids: list[list[int]] = []  # the numbers of voxels for which mase_90 holds
    seconds: float = math.nan
    samples_per_second: float = math.nan
    gpu_gb: float = math.nan
    device: str = "–"


def check_start(where: str, start: Description, learner: Description) -> None:
    """Raise ValueError where the weights of a model do not fit a network that is to start from them.

    Args:
        where: The beginning of the message.
        start: The description of the model.
        learner: The description of the network.
    """
    try:
        source, target = (Domain.from_json(network.domains[0]) for network in (start, learner))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{where}: its domains cannot be read: {error}") from None
    needs: dict[str, tuple[object, list[object]]] = {
        "architecture is": (start.architecture, list(fitting_starts(learner.architecture))),
        "physics is": (source.physics.name, [target.physics.name]),
        "components are": (start.components, [learner.components]),
    }
    if learner.architecture not in SEE_MODULI:  # Those networks take any number of materials.
        needs["number of phases is"] = len(source.materials), [len(target.materials)]
    for key, (given, allowed) in needs.items():
        if given not in allowed:
            raise ValueError(f"{where}: its {key} {given}; must be {' or '.join(map(str, allowed))}")
