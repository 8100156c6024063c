"""The numbers that tables and figures show, computed from the errors and examples of `lspipe evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import xarray as xr

ITERATIONS = (0, 1, 5, 10)  # iterations of the solver that the table shows
LEAST = 20  # voxels that a mean over a distance needs


def select_final(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after the number of passes that the model makes by default."""
    return errors[errors["passes"] == errors.attrs["passes"]]


def select_passes(errors: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Return the rows by the numbers of passes that the table shows: several for a solver, one for a network."""
    counts = [k for k in ITERATIONS if k in set(errors["passes"])] if "green" in errors else [errors.attrs["passes"]]
    counts = [*range(len(errors.attrs["stages"]))] if "stages" in errors.attrs else counts
    return {k: errors[errors["passes"] == k] for k in counts}


def ci95(values: pd.Series) -> float:
    """Return half the width of the 95% confidence interval of the mean."""
    return 1.96 * values.sem()


def average_by_passes(errors: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return averages over the microstructures by number of passes.

    These are mean and ``ci95`` of an error, the median ``ms`` and, where the table has it, the mean number of ``green``
    applications.
    """
    groups = errors.groupby("passes")
    rows = pd.DataFrame({"mean": groups[metric].mean(), "ci95": groups[metric].agg(ci95)})
    rows["ms"] = 1e3 * groups["seconds"].median()
    return rows.assign(green=groups["green"].mean()) if "green" in errors else rows


def find_equal(solver: pd.DataFrame, mase: float) -> tuple[float, float]:
    """Return the smallest number of iterations after which the solver has at most a mean MASE, and its milliseconds.

    Args:
        solver: What ``average_by_passes`` returns for the MASE of the solver.
        mase: The MASE in %.

    Returns:
        Both are NaN where no number of iterations in the table reaches it.
    """
    equal = solver[solver["mean"] <= mase]
    return (float(equal.index[0]), float(equal["ms"].iloc[0])) if len(equal) else (np.nan, np.nan)


def count_until_paid(training_seconds: float, ms: float, equal_ms: float) -> float:
    """Return the number of predictions until a training has paid for itself.

    Args:
        training_seconds: The time of the training; NaN if it is not known.
        ms: Milliseconds of a prediction of the network.
        equal_ms: Milliseconds of the solver to the same error; NaN if it is not known.

    Returns:
        The time of the training over the time that a prediction saves; infinite where it saves none.
    """
    saved = (equal_ms - ms) / 1e3
    return np.inf if saved <= 0 else training_seconds / saved


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
        rank: "worst", "median" or "hardest", the microstructure to cut.

    Returns:
        The variables of one example over (x, y) as ``divide_by_scale`` returns them, with the coordinate z.
    """
    (one,) = select_slices({"": examples}, rank).values()
    return one


def select_slices(predictors: Mapping[str, xr.Dataset], rank: str) -> dict[str, xr.Dataset]:
    """Return a slice of each predictor like ``select_slice``, all at the z of the largest error of any predictor."""
    whole = {}
    for name, examples in predictors.items():
        (index,) = np.flatnonzero(examples["sample"] == examples.attrs[rank])
        whole[name] = divide_by_scale(examples.isel(example=index))
    errors = np.stack([example["error"][-1].values for example in whole.values()])
    z = int(np.unravel_index(np.nanargmax(errors), errors.shape)[3])
    return {name: example.isel(z=z).assign_coords(z=z) for name, example in whole.items()}


def average_by_distance(examples: xr.Dataset) -> pd.Series:
    """Return the mean absolute error in % of the ``scale`` over the voxels at each distance, rounded to whole voxels,
    to the nearest voxel of another phase or grain. Distances of few voxels are left out."""
    common = select_common(examples)
    error = common["error"].sel({"pass": examples.attrs["passes"]})
    voxels = pd.DataFrame({"distance": common["distance"].values.ravel(), "error": 100 * error.values.ravel()})
    voxels = voxels[np.isfinite(voxels).all(axis=1)].round({"distance": 0})
    groups = voxels.groupby("distance")["error"]
    return groups.mean()[groups.size() >= LEAST]
