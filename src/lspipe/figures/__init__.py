"""Draw figures from the output of the commands of lspipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase

from lspipe.figures import effective, errors, fields, paths
from lspipe.figures.style import save, write_message
from lspipe.load_path import explain_unreached
from lspipe.products import read_errors, read_examples
from lspipe.report_figures import FIGURES
from lspipe.store import open_dataset

if TYPE_CHECKING:
    import xarray as xr

SUFFIXES = {
    "metrics": ".csv",
    "effective": ".csv",
    "curves": ".csv",
    "errors": ".parquet",
}  # suffixes of files; the other inputs are stores
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
    "curves": paths.curves,
    "plastic": paths.plastic,
}


def draw(name: str, out: list[Path], inputs: Mapping[str, str]) -> None:
    """Draw one of FIGURES, or the reason where no microstructure has reached the steps of a load path that it shows.

    Args:
        name: Name of the figure.
        out: Files to write, in the format of each one's suffix.
        inputs: File of each predictor by its label: metrics.csv, the errors or the examples.

    Raises:
        ValueError: There is no such figure or format, or a file is not what the figure is drawn from.
    """
    check_figure(name, out)
    if FIGURES[name].shows == "one network" and len(inputs) != 1:
        raise ValueError(f"figure {name!r}: must be of one predictor, not {len(inputs)}")
    read = READERS[FIGURES[name].source]
    data = {label: read(Path(file)) for label, file in inputs.items()}
    # At a step that no training microstructure has reached, the networks are empty, and the solver is not.
    reached = {label: content for label, content in data.items() if "unreached" not in content.attrs}
    reasons = [content.attrs["unreached"] for label, content in data.items() if label not in reached]
    save(FUNCTIONS[name](reached) if reached else write_message(reasons[0]), out)


def check_figure(name: str, out: Sequence[Path]) -> None:
    """Raise ValueError unless there is such a figure and each file has the suffix of a format."""
    if name not in FIGURES:
        raise ValueError(f"figure {name!r}: must be one of {', '.join(FIGURES)}")
    for file in out:
        if file.suffix[1:] not in FORMATS:
            raise ValueError(f"{file}: must end in one of {', '.join(f'.{name}' for name in sorted(FORMATS))}")


def select_inputs(name: str, inputs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those inputs [label, file] of several figures that one figure reads, by their suffix.

    A figure that shows the solver alone reads the first.
    """

    def fits(file: str) -> bool:
        suffix = Path(file).suffix
        return SUFFIXES.get(FIGURES[name].source, "") == (suffix if suffix in SUFFIXES.values() else "")

    fitting = [pair for pair in inputs if fits(pair[1])]
    return fitting[:1] if FIGURES[name].shows == "solver" else fitting


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


def read_curves(file: Path) -> pd.DataFrame:
    """Read the table of `lspipe curves`.

    Raises:
        ValueError: The file holds something else.
    """
    dtypes: Any = {"sample": "Int64", "phase": "Int64", "step": "int64", "converged": "bool"}
    try:
        table = pd.read_csv(file, dtype=dtypes)
    except ValueError as error:
        raise ValueError(f"{file}: must be a table of `lspipe curves` ({error!r:.120})") from None
    if not {*dtypes, "E_xx", "S_xx", "von_mises"} <= {*table.columns}:
        raise ValueError(f"{file}: must be a table of `lspipe curves`; has the columns {[*table.columns][:5]}")
    if not table.loc[table["sample"].notna(), "converged"].any():
        table.attrs["unreached"] = explain_unreached(file, "any step")
    return table


def read_paths(file: Path) -> xr.Dataset:
    """Open a whole store of load paths, lazily, with the phases of its microstructures.

    Raises:
        ValueError: The store is not whole, or holds something else.
    """
    from lspipe.curves import open_paths  # The import of the solver takes seconds, and one figure needs it.

    folder = file.parent if file.name == "zarr.json" else file
    cells, _ = open_paths(folder)
    fields = open_dataset(folder)
    fields = fields.assign(phase=open_dataset(cells.path)["phase"]).assign_attrs(spacing=cells.spacing)
    if not fields["converged"].isel(step=fields["kept"]).any():
        fields.attrs["unreached"] = explain_unreached(folder, "a kept step")
    return fields


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


READERS: dict[str, Any] = {
    "metrics": read_metrics,
    "errors": read_errors,
    "examples": read_examples,
    "effective": read_effective,
    "curves": read_curves,
    "paths": read_paths,
}
