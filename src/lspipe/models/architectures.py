"""The networks that can be trained: those of the package by name, a user's class as ``module:Class``.

This module imports PyTorch only when a network is built, so that Snakemake can read the names quickly.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from lspipe.cell.physics import ELASTICITY, Physics

if TYPE_CHECKING:
    from lspipe.models.network import Network
    from lspipe.models.rln_cg import RLNCG

# Networks of Kelly & Kalidindi (2021): the number of passes, and whether all passes share their weights.
PAPER = {"fln": (1, True), "rln-t": (5, True), "rln": (5, False)}
LEAST = 8  # These networks need as many voxels along each axis.
# Neural operators, and RLN-CG, see the moduli. They serve several lists of materials, and predict all components.
OPERATORS = ("fno", "ifno", "therino")
SEE_MODULI = ("rln-cg", *OPERATORS)
ARCHITECTURES = (*PAPER, *SEE_MODULI)


def build(architecture: str, phases: int, channels: int = 1, physics: Physics = ELASTICITY) -> Network | RLNCG:
    """Build a network with fresh weights.

    Args:
        architecture: One of ARCHITECTURES, or ``module:Class`` for a class of the user.
        phases: The number of phases in the microstructures.
        channels: The number of components to predict, 1 or all. Those of SEE_MODULI predict all.
        physics: The physics of the materials, which only those of SEE_MODULI need.

    Raises:
        ValueError: There is no such architecture, or the user's class cannot be built.
    """
    if architecture == "rln-cg":
        from lspipe.models.rln_cg import RLNCG

        return RLNCG(physics)
    if architecture in PAPER:
        from lspipe.models.rln import RLN

        return RLN(phases, channels, *PAPER[architecture])
    if architecture in OPERATORS:
        from lspipe.models.fno import FNO
        from lspipe.models.ifno import IFNO
        from lspipe.models.therino import TherINO

        return {"fno": FNO, "ifno": IFNO, "therino": TherINO}[architecture](physics)
    from lspipe.models.user_network import UserNetwork

    return UserNetwork(architecture, source_file(architecture), phases, channels)


def fitting_starts(architecture: str) -> tuple[str, ...]:
    """Return the architectures whose weights a network may start from.

    These are its own and, for a network of the paper, those whose passes share their weights.
    """
    tied = [name for name, (_, is_tied) in PAPER.items() if is_tied]
    return tuple(dict.fromkeys([architecture, *(tied if architecture in PAPER else [])]))


def source_file(architecture: str) -> Path | None:
    """Find the file of a user's network class without importing it.

    Python's path is searched first, then the current directory.

    Returns:
        The file, or None for a network of the package.

    Raises:
        ValueError: The architecture is not known, or its module is not found.
    """
    if architecture in ARCHITECTURES:
        return None
    module, colon, name = architecture.partition(":")
    if not (colon and name and module):
        raise ValueError(
            f"architecture = {architecture!r}: must be one of {', '.join(ARCHITECTURES)}, or module:Class for a class "
            "of your own"
        )
    places: list[str] = [*sys.path, os.getcwd()]
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)
        places = list(spec.submodule_search_locations or ()) if spec else []
    if spec is None or not spec.has_location or spec.origin is None:
        raise ValueError(
            f"architecture = {architecture!r}: there is no module {module} in {os.getcwd()} or on Python's path; start "
            "lspipe in the directory that holds it, or add that directory to PYTHONPATH"
        )
    return Path(spec.origin)
