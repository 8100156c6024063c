"""Learned localization for the Lippmann–Schwinger equation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lspipe.cell.effective import bounds, effective_conductivity, effective_stiffness
    from lspipe.cell.material import Anisotropic, Conductor, Isotropic
    from lspipe.cell.solver import Solution, solve
    from lspipe.microstructure import generate
    from lspipe.models.files import load_model
    from lspipe.store import open_dataset

__version__ = "0.1.0"
# Raise these when what is on disk is not what this code would make: the workflow then makes it anew.
DATA_VERSION = 3  # stores
MODEL_VERSION = 2  # trained weights and their description
EVALUATION_VERSION = 4  # errors and example fields
__all__ = [
    "Anisotropic",
    "Conductor",
    "Isotropic",
    "Solution",
    "bounds",
    "effective_conductivity",
    "effective_stiffness",
    "generate",
    "load_model",
    "open_dataset",
    "solve",
]

_HOME = {
    "Anisotropic": "cell.material",
    "bounds": "cell.effective",
    "Conductor": "cell.material",
    "effective_conductivity": "cell.effective",
    "effective_stiffness": "cell.effective",
    "Isotropic": "cell.material",
    "Solution": "cell.solver",
    "solve": "cell.solver",
    "generate": "microstructure",
    "load_model": "models.files",
    "open_dataset": "store",
}


def __getattr__(name: str) -> object:
    # Each name imports its own room only: torch alone costs seconds, and few commands need it.
    if name in _HOME:
        return getattr(import_module(f"lspipe.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lspipe' has no attribute {name!r}")
