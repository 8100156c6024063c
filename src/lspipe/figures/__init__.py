"""Figures of what `lspipe train` and `lspipe evaluate` write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase

from lspipe.figures import effective, errors, fields
from lspipe.figures.style import save
from lspipe.plan import FIGURES
from lspipe.products import read_errors, read_examples

FORMATS = FigureCanvasBase.get_supported_filetypes()
FUNCTIONS: dict[str, Any] = {
    "learning_curves": errors.learning_curves,
    "mase": errors.mase,
    "convergence": errors.convergence,
    "trends": errors.trends,
    "effective": effective.effective,
    "effective_errors": effective.effective_errors,
    "gallery": fields.gallery,
    "comparison": fields.comparison,
    "slices": fields.slices,
    "iterates": fields.iterates,
    "density": fields.density,
    "distributions": fields.distributions,
    "interfaces": fields.interfaces,
}


def draw(name: str, out: list[Path], inputs: Mapping[str, str]) -> None:
    """Draw one of FIGURES.

    Args:
        name: Name of the figure.
        out: Files to write, in the format of each one's suffix.
        inputs: File of each predictor by its label: metrics.csv, the errors or the examples.

    Raises:
        ValueError: There is no such figure or format, or a file is not what the figure is drawn from.
    """
    if name not in FIGURES:
        raise ValueError(f"figure {name!r}: must be one of {', '.join(FIGURES)}")
    if FIGURES[name].shows == "one network" and len(inputs) != 1:
        raise ValueError(f"figure {name!r}: must be of one predictor, not {len(inputs)}")
    for file in out:
        if file.suffix[1:] not in FORMATS:
            raise ValueError(f"{file}: must end in one of {', '.join(f'.{name}' for name in sorted(FORMATS))}")
    readers = {"metrics": read_metrics, "errors": read_errors, "examples": read_examples, "effective": read_effective}
    read: Any = readers[FIGURES[name].source]
    save(FUNCTIONS[name]({label: read(Path(file)) for label, file in inputs.items()}), out)


def read_effective(file: Path) -> pd.DataFrame:
    """Read the table of `lspipe homogenize`.

    Raises:
        ValueError: The file holds something else.
    """
    try:
        table = pd.read_csv(file)
    except ValueError as error:
        raise ValueError(f"{file}: must be a table of `lspipe homogenize` ({error!r:.120})") from None
    if not {"sample", "gap", "f0"} <= {*table.columns} or not {"K", "k"} & {*table.columns}:
        raise ValueError(f"{file}: must be a table of `lspipe homogenize`; has the columns {[*table.columns][:5]}")
    return table


def read_metrics(file: Path) -> pd.DataFrame:
    """Read the metrics.csv of a training.

    Raises:
        ValueError: The file is damaged or holds something else.
    """
    from lspipe.models.files import check_metrics  # The import takes seconds, and one figure needs it.

    check_metrics(file)
    try:
        return pd.read_csv(file, usecols=["epoch", "train_loss", "valid_loss", "valid_mase"], dtype=float)
    except ValueError as error:
        raise ValueError(f"{file}: must be a metrics.csv of `lspipe train` ({error!r:.120})") from None
