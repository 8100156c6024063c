"""Tables of errors and example fields → figures. Each takes what it shows by the name of the predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lspipe.figures import errors, fields, study
from lspipe.figures.style import save
from lspipe.store import open_dataset

FIGURES: dict[str, Any] = {
    "learning_curves": errors.learning_curves,
    "mase": errors.mase,
    "convergence": errors.convergence,
    "trends": errors.trends,
    "gallery": fields.gallery,
    "slices": fields.slices,
    "iterates": fields.iterates,
    "density": fields.density,
    "distributions": fields.distributions,
    "interfaces": fields.interfaces,
    "gains": study.gains,
    "tolerances": study.tolerances,
}


def draw(kind: str, out: list[Path], of: Mapping[str, str]) -> None:
    """Draws one of FIGURES into files, in the format of each one's suffix, of the files of some predictors: .csv,
    .parquet or a store. ValueError for a figure that there is not."""
    if kind not in FIGURES:
        raise ValueError(f"figure {kind!r}: must be one of {', '.join(FIGURES)}")
    if kind in ("slices", "iterates", "density", "gains", "tolerances") and len(of) != 1:
        raise ValueError(f"figure {kind!r}: must be of one predictor, not {len(of)}")
    save(FIGURES[kind]({name: read(Path(file)) for name, file in of.items()}), out)


def read(file: Path) -> Any:
    match file.suffix:
        case ".csv":
            from lspipe.models.files import check_metrics  # takes seconds, and few figures need it

            check_metrics(file)
            return pd.read_csv(file)
        case ".parquet":
            return pd.read_parquet(file)
        case _:
            return open_dataset(file.parent if file.name == "zarr.json" else file)
