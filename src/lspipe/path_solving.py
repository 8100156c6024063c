"""The load paths of a shard, followed sample by sample.

After an interruption, the same command continues from the steps that it has saved. The folder ``3.partial`` beside the
receipts of a store has a file for each sample of shard 3 that was saved: all steps so far, and the state at their end.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lspipe.cell.path import PathEnd, solve_path_problem
from lspipe.files import write_bytes
from lspipe.store import Store
from lspipe.store.layout import PATHS
from lspipe.versions import __version__
from lspipe.workers import Report

SAVE_AFTER = 30.0  # seconds of work after which the next end of a step is saved
END = "end."  # begins the names of the state at the end of the saved steps
Sample = dict[str, Any]  # the arrays of one sample in the layout of the store, `steps` done, `seconds`, and its `end`


def solve_paths(
    cells: Store, data: Store, shard: int, digest: str, device: str, report: Report
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Follow the load paths of a shard, from what an interrupted call has saved.

    Args:
        cells: The microstructure store.
        data: The store of load paths.
        shard: Number of the shard.
        digest: SHA-256 of the microstructures of the shard.
        device: The device of the solver, 'cpu'.
        report: Called with 1 after each sample.

    Returns:
        The arrays of the shard, and a part of its receipt: seconds, and the samples that did not reach the last step.
    """
    stamp, count = f"{__version__} {data.description} {digest}", len(data.path_problem.steps)
    unsaved: dict[Path, Sample] = {}
    samples, saved = [], time.monotonic()
    for i in range(*data.samples(shard)):
        file = data.partial(shard) / f"{i}.npz"
        sample, phase = load_sample(file, stamp) or begin_sample(data), cells.arrays["phase"][i]
        while sample["steps"] < count and sample["converged"][: sample["steps"]].all():
            advance(sample, phase, data, device)
            unsaved[file] = sample
            if time.monotonic() - saved > SAVE_AFTER:
                for name, values in unsaved.items():
                    save_sample(name, stamp, values)
                unsaved, saved = {}, time.monotonic()
        sample.pop("end", None)
        samples.append(sample)
        report(1)
    arrays = {name: np.stack([sample[name] for sample in samples]) for name in PATHS}
    first = data.samples(shard)[0]
    failures = [
        {"sample": first + i, "step": int(t), "residual": finite(sample["residual"][t])}
        for i, sample in enumerate(samples)
        if (t := sample["converged"].sum()) < count
    ]
    record = {
        "failures": failures,
        "not_converged": [failure["sample"] for failure in failures],
        "seconds": round(sum(sample["seconds"] for sample in samples), 3),
    }
    return arrays, record


def begin_sample(data: Store) -> Sample:
    """Return a sample before its first step."""
    arrays = {
        name: np.full(array.shape[1:], np.nan if array.dtype.kind == "f" else 0, array.dtype)
        for name, array in data.arrays.items()
    }
    return arrays | {"steps": 0, "seconds": 0.0, "end": None}


def advance(sample: Sample, phase: np.ndarray, data: Store, device: str) -> None:
    """Follow the path of a sample for one step more."""
    began, t, kept = time.perf_counter(), sample["steps"], data.attributes["kept"]
    step = replace(data.path_problem, steps=data.path_problem.steps[t : t + 1])
    options: Any = {"tol": data.attributes["tol"], "device": device, "warn": False}
    path = solve_path_problem(phase, step, keep=[0] * (t in kept), start=sample["end"], **options)
    for name, (_, dims) in PATHS.items():
        if dims[0] == "step":
            sample[name][t] = getattr(path, name)[0, 0]
        elif t in kept:
            sample[name][kept.index(t)] = getattr(path, name)[0, 0]
    sample |= {"steps": t + 1, "end": path.end, "seconds": sample["seconds"] + time.perf_counter() - began}


def save_sample(file: Path, stamp: str, sample: Sample) -> None:
    """Write a sample, whole or not at all."""
    arrays = {name: values for name, values in sample.items() if name != "end"}
    if end := sample.get("end"):
        arrays |= {f"{END}{name}": values for name, values in vars(end).items()}
    buffer = io.BytesIO()
    np.savez(buffer, stamp=stamp, **arrays)
    write_bytes(file, buffer.getbuffer())


def load_sample(file: Path, stamp: str) -> Sample | None:
    """Read what ``save_sample`` wrote; None where there is nothing, another stamp or a damaged file."""
    try:
        with np.load(file) as saved:
            values: Mapping[str, np.ndarray] = dict(saved)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if str(values.get("stamp")) != stamp:
        return None
    sample: Sample = {name: values[name] for name in PATHS}
    end: dict[str, Any] = {name.removeprefix(END): array for name, array in values.items() if name.startswith(END)}
    sample |= {"steps": int(values["steps"]), "seconds": float(values["seconds"])}
    return sample | {"end": PathEnd(**end) if end else None}


def finite(value: float) -> float | None:
    """Return a number for JSON, which has no infinity, the bound of a cell with voids, and no NaN."""
    return float(value) if np.isfinite(value) else None
