"""The numbers that tables and figures show, computed from the errors and examples of `lspipe evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import xarray as xr

ITERATIONS = (0, 1, 5, 10)  # of the solver, in the table
LEAST = 20  # voxels that a mean over a distance needs


def select_final(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after the number of passes that the model makes by default."""
    return errors[errors["passes"] == errors.attrs["passes"]]


def select_passes(errors: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Return the rows by the numbers of passes that the table shows: several for a solver, one for a network."""
    counts = [k for k in ITERATIONS if k in set(errors["passes"])] if "green" in errors else [errors.attrs["passes"]]
    return {k: errors[errors["passes"] == k] for k in counts}


def ci95(values: pd.Series) -> float:
    """Return half the width of the 95% confidence interval of the mean."""
    return 1.96 * values.sem()


def average_by_passes(errors: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return mean and ``ci95`` of an error over the microstructures, and the median ``ms``, by number of passes."""
    groups = errors.groupby("passes")
    return pd.DataFrame(
        {
            "mean": groups[metric].mean(),
            "ci95": groups[metric].agg(ci95),
            "ms": 1e3 * groups["seconds"].median(),
        }
    )


def divide_by_scale(examples: xr.Dataset) -> xr.Dataset:
    """Return examples with ``truth`` and ``iterates`` over their ``scale``, and their absolute ``error``.

    All are NaN in voids, where the truth is.
    """
    truth = examples["truth"] / examples["scale"]
    iterates = (examples["iterates"] / examples["scale"]).where(truth.notnull())
    return examples.assign(truth=truth, iterates=iterates, error=abs(iterates - truth))


def select_common(examples: xr.Dataset) -> xr.Dataset:
    """Return the first microstructures of the test set, which the examples of every predictor hold, as
    ``divide_by_scale`` does."""
    return divide_by_scale(examples.isel(example=examples["sample"].values < examples.attrs["first"]))


def select_slice(examples: xr.Dataset, rank: str) -> xr.Dataset:
    """Return the slice of constant z through the voxel with the largest error of the last iterate.

    Args:
        examples: As `lspipe evaluate` writes them.
        rank: "worst" or "median", the microstructure to cut.

    Returns:
        The variables of one example over (x, y) as ``divide_by_scale`` returns them, with the coordinate z.
    """
    (index,) = np.flatnonzero(examples["sample"] == examples.attrs[rank])
    example = divide_by_scale(examples.isel(example=index))
    error = example["error"][-1].values
    z = int(np.unravel_index(np.nanargmax(error), error.shape)[2])
    return example.isel(z=z).assign_coords(z=z)


def average_by_distance(examples: xr.Dataset) -> pd.Series:
    """Return the mean absolute error in % of the ``scale`` over the voxels at each distance, rounded to whole voxels,
    to the nearest voxel of another phase or grain. Distances of few voxels are left out."""
    common = select_common(examples)
    error = common["error"].sel({"pass": examples.attrs["passes"]})
    voxels = pd.DataFrame({"distance": common["distance"].values.ravel(), "error": 100 * error.values.ravel()})
    voxels = voxels[np.isfinite(voxels).all(axis=1)].round({"distance": 0})
    groups = voxels.groupby("distance")["error"]
    return groups.mean()[groups.size() >= LEAST]
