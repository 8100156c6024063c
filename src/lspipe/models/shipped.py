"""The models that ship with the package, and the search for a model by its name or folder.

This module does not import PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SHIPPED = Path(__file__).parent / "weights"  # the models of the package, each with its model card


def find_model(name_or_path: str | os.PathLike[str], others: Sequence[str] = ()) -> Path:
    """Return the folder of a model: a folder of the user, or else the model of the package with this name.

    Args:
        name_or_path: The folder or the name.
        others: More names that the message allows.

    Raises:
        ValueError: There is no such model.
    """
    for folder in (Path(name_or_path), SHIPPED / name_or_path):
        if (folder / "model.json").is_file():
            return folder
    names = ", ".join(map(repr, [*sorted(folder.name for folder in SHIPPED.iterdir()), *others]))
    raise ValueError(f"{name_or_path}: must be a folder with a model.json, or one of {names}")
