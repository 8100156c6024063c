"""Predictions against the truth: errors of each microstructure after each pass, and the fields of a few."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from lspipe.cell.material import Material, material
from lspipe.cell.solver import Solution
from lspipe.machine import device_name, peak
from lspipe.models.errors import energy, mase, square, stress
from lspipe.models.files import Model
from lspipe.models.localization import at_once
from lspipe.models.operations import operations
from lspipe.progress import progress
from lspipe.store import open_dataset, open_pair
from lspipe.tables import final

SAMPLES = 8  # whose fields every predictor leaves, beside its worst and its median


def evaluate(model: Model, microstructures: Path, fields: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Errors of a model over a test set, and the fields of some microstructures.

    The frame has a row for each microstructure (``sample``) and number of ``passes``: the errors of ``errors_of``, the
    ``seconds`` and floating-point ``operations`` of the prediction, and where the model gives them ``green``
    (applications of K⁰⁻¹ that make the field), ``residual`` and ``bound``; and what the microstructure is:
    ``volume_fraction`` of phase 1 and, if it was generated, ``grain``, the geometric mean of its grain sizes in voxels.
    Its attributes hold the number of ``parameters``, the ``passes`` that the model makes by itself, the ``device``, and
    ``gpu_gb``, what it took of a card's memory. ValueError where model and fields do not belong together.

    The examples are the worst and the median microstructure of this model, and the first ones of the set: ``phase``,
    its ``distance`` to another, ``truth``, and the ``iterates`` of ε_xx with their ``mase``.
    """
    pair = open_pair(microstructures, fields)
    for store in pair:
        store.check_whole()
    cells, data = open_dataset(microstructures), open_dataset(fields)
    stated = pair[1].attributes
    model = model.under(stated["scheme"], pair[0].attributes.get("labels"))
    materials = [material(**m) for m in stated["materials"]]
    strain, physics = stated["macroscopic_strain"], materials[0].physics
    if strain[0] == 0:
        raise ValueError(f"{fields}: macroscopic_strain {physics.components[0]} = 0: errors are relative to it")

    def predict(phase: NDArray[np.integer], passes: int) -> Solution:
        return model.predict(phase, materials, strain, passes=passes)

    predict(cells.phase[:1].values, model.passes)  # what only the first call pays is not timed
    cost = operations(model, cells.phase.shape[1:], materials)
    size = at_once(model.device, cells.phase.shape[1:])
    parts = []
    with progress(f"evaluate on {fields}", cells.sizes["sample"], "sample") as bar:
        for first in range(0, cells.sizes["sample"], size):
            batch = slice(first, first + size)
            phase, truth = cells.phase[batch].values, data.strain[batch].values
            for passes in model.counts:
                began = time.perf_counter()
                solution = predict(phase, passes)
                seconds = (time.perf_counter() - began) / len(phase)
                columns: dict[str, Any] = {"sample": np.arange(first, first + len(phase)), "passes": passes}
                columns |= errors_of(solution, phase, truth, materials)
                columns |= {"seconds": seconds, "operations": cost[passes]}
                if solution.bound is not None:
                    columns |= {"green": passes, "residual": solution.residual, "bound": solution.bound}
                parts.append(pd.DataFrame(columns))
            bar.update(len(phase))
    errors = pd.concat(parts, ignore_index=True)
    sample = errors["sample"].to_numpy()
    errors["volume_fraction"] = cells.volume_fraction[:, 1].values[sample]
    if "design" in cells:
        errors["grain"] = np.prod(cells.design[:, :3].values, axis=1)[sample] ** (1 / 3)
    errors.attrs |= {"parameters": model.parameters, "passes": model.passes}
    errors.attrs |= {"device": device_name(model.device), "gpu_gb": peak(model.device)}

    ranked = final(errors).sort_values("mase")["sample"].to_numpy()
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    chosen |= {f"sample {k}": k for k in range(min(SAMPLES, len(ranked)))}
    samples = [int(k) for k in chosen.values()]
    phase, truth = cells.phase[samples].values, data.strain[samples, :1].values
    iterates = [predict(phase, passes).strain[:, :1] for passes in model.counts]
    by_pass = [mase(torch.from_numpy(i), torch.from_numpy(truth), physics) for i in iterates]
    examples = xr.Dataset(
        {
            "sample": ("example", samples),
            "phase": (("example", "x", "y", "z"), phase),
            "distance": (("example", "x", "y", "z"), np.stack([to_another_phase(p) for p in phase])),
            "truth": (("example", "x", "y", "z"), truth[:, 0]),
            "iterates": (("example", "pass", "x", "y", "z"), np.concatenate(iterates, axis=1).astype(np.float32)),
            "mase": (("example", "pass"), np.stack(by_pass, axis=1)),
        },
        coords={"pass": list(model.counts)},
        attrs={
            "examples": list(chosen),
            "passes": model.passes,
            "macroscopic_strain": strain,
            "symbol": f"{physics.symbol}$_{{{physics.components[0]}}}$",
        },
    )
    return errors, examples


def to_another_phase(phase: NDArray[np.integer]) -> NDArray[np.float32]:
    """Distance of each voxel (nx, ny, nz), in voxels, to the nearest one of another phase in the periodic cell; where
    there is none, infinite."""
    around = np.pad(phase, [(n // 2, n // 2) for n in phase.shape], mode="wrap")
    inside = tuple(slice(n // 2, n // 2 + n) for n in phase.shape)
    distance = np.full(phase.shape, np.inf, np.float32)
    for p in np.unique(phase) if np.ptp(phase) else ():
        distance = np.where(phase == p, distance_transform_edt(around == p)[inside], distance).astype(np.float32)
    return distance


def errors_of(
    solution: Solution, phase: NDArray[np.integer], truth: NDArray[np.floating], materials: Sequence[Material]
) -> dict[str, NDArray[np.floating]]:
    """Errors in %, each (N,), of predictions for cells (N, nx, ny, nz) of strain ``truth`` (N, strains, nx, ny, nz).

    Of ε_xx, relative to ε̄_xx: ``mase``, ``rmse``, ``max_error``; of its largest value in the cell: ``hot_spot``. Where
    there are all components: ``energy``, √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), and ``mean_stress``, ‖⟨Δσ⟩‖/‖⟨σ⟩‖, which is the error of
    C_eff:Ē.
    """
    physics = materials[0].physics
    found, exact = (torch.from_numpy(f.astype(np.float64)) for f in (solution.strain[:, :1], truth[:, :1]))
    relative = ((found - exact) / exact.mean(dim=(1, 2, 3, 4), keepdim=True)).abs().flatten(1)
    peaks = [f.abs().flatten(1).amax(dim=1) for f in (found, exact)]
    errors = {"mase": mase(found, exact, physics), "rmse": 100 * relative.square().mean(dim=1).sqrt()}
    errors |= {"max_error": 100 * relative.amax(dim=1), "hot_spot": 100 * (peaks[0] / peaks[1] - 1).abs()}
    if solution.components == physics.components:
        cells = torch.from_numpy(phase.astype(np.int64))
        field, whole = (torch.from_numpy(f.astype(np.float64)) for f in (solution.strain, truth))
        errors["energy"] = 100 * (energy(cells, materials, field - whole) / energy(cells, materials, whole)).sqrt()
        sigma, exact = (
            square(stress(cells, materials, f).mean(dim=(2, 3, 4), keepdim=True), physics)
            for f in (field - whole, whole)
        )
        errors["mean_stress"] = 100 * (sigma / exact).sqrt().flatten()
    return {name: error.numpy() for name, error in errors.items()}
