"""Tables of errors and example fields → figures. Each takes what it shows by the name of the predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase

from lspipe.figures import errors, fields
from lspipe.figures.style import save
from lspipe.products import read_errors, read_examples

FORMATS = FigureCanvasBase.get_supported_filetypes()
# Each figure, and the kind of file that it is drawn from.
FIGURES: dict[str, tuple[str, Any]] = {
    "learning_curves": ("metrics", errors.learning_curves),
    "mase": ("errors", errors.mase),
    "convergence": ("errors", errors.convergence),
    "trends": ("errors", errors.trends),
    "gallery": ("examples", fields.gallery),
    "slices": ("examples", fields.slices),
    "iterates": ("examples", fields.iterates),
    "density": ("examples", fields.density),
    "distributions": ("examples", fields.distributions),
    "interfaces": ("examples", fields.interfaces),
}


def draw(name: str, out: list[Path], of: Mapping[str, str]) -> None:
    """Draws one of FIGURES into files, in the format of each one's suffix, of the files of some predictors. ValueError
    for a figure that there is not, and for files of another kind than it is drawn from."""
    if name not in FIGURES:
        raise ValueError(f"figure {name!r}: must be one of {', '.join(FIGURES)}")
    if name in ("slices", "iterates", "density") and len(of) != 1:
        raise ValueError(f"figure {name!r}: must be of one predictor, not {len(of)}")
    for file in out:
        if file.suffix[1:] not in FORMATS:
            raise ValueError(f"{file}: must end in one of {', '.join(f'.{name}' for name in sorted(FORMATS))}")
    kind, figure = FIGURES[name]
    save(figure({predictor: read(Path(file), kind) for predictor, file in of.items()}), out)


def read(file: Path, kind: str) -> Any:
    """Read a file. ValueError where it is damaged or not of this kind."""
    match kind:
        case "metrics":
            return read_metrics(file)
        case "examples":
            return read_examples(file)
        case _:
            return read_errors(file)


def read_metrics(file: Path) -> pd.DataFrame:
    from lspipe.models.files import check_metrics  # takes seconds, and one figure needs it

    check_metrics(file)
    try:
        return pd.read_csv(file, usecols=["epoch", "train_loss", "valid_loss", "valid_mase"], dtype=float)
    except ValueError as error:
        raise ValueError(f"{file}: must be a metrics.csv of `lspipe train` ({error!r:.120})") from None
