"""The errors of predictions against the ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.physics import ELASTICITY, find_von_mises
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.measure import count_measured, is_thermal, prescribed_size
from lspipe.models.domain import get_path

CARRIES = 1e-8  # least work of a cell, relative to that of the uniform strain, that is not rounding
SLAB = 2**13  # voxels whose errors are computed at a time


def compute_errors(
    solution: Solution, phase: NDArray[np.integer], truth: NDArray[np.floating], problem: Problem
) -> dict[str, NDArray[np.floating]]:
    """Compute the errors of predictions over the voxels that are not voids.

    Args:
        solution: Predictions for N microstructures.
        phase: (N, nx, ny, nz).
        truth: Strain (N, strains, nx, ny, nz).
        problem: The problem that was solved.

    Returns:
        Errors in %, each (N,). The norm ‖ε‖ is over the components that ``count_measured`` states, and ⟨ε⟩ is the
        prescribed strain where there is one. Where temperature alone drives the fields, errors are relative to ⟨‖ε‖⟩
        and ⟨‖σ‖⟩ instead. The errors of the strain are:

        - ``mase``: ⟨‖Δε‖⟩/‖⟨ε⟩‖.
        - ``rmse``: √⟨‖Δε‖²⟩/‖⟨ε⟩‖.
        - ``max_error``: max ‖Δε‖/‖⟨ε⟩‖.
        - ``hot_spot``: the relative error of max ‖ε‖.

        The errors of energy and stress need all components of prediction and truth. They are NaN for a cell whose solid
        does not carry the prescribed strain. A step of a load path has none, because the strain alone does not give the
        stress there.

        - ``energy``: √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩).
        - ``mean_stress``: ‖⟨C:Δε⟩‖/‖⟨σ⟩‖, the error of the effective stiffness applied to the load.
        - ``von_mises``, of elastic materials alone: ⟨|Δσ_vM|⟩/⟨σ_vM⟩ for the von Mises stress.
        - ``effective``, where strain alone drives the fields: |E:⟨C:Δε⟩|/E:⟨σ⟩ for the prescribed strain E, the error
          of the effective stiffness along the load.
    """
    weights = 1 / problem.physics.tensor_factors  # a tensor shear counts twice in a norm
    measured = count_measured(problem, len(solution.components))
    is_solid = np.any(problem.stiffnesses, axis=(1, 2))
    # Published strain may lack components. At a step of a load path, the strain alone does not give the stress.
    knows_all = solution.components == problem.physics.components and not np.isnan(truth[:, -1]).all()
    knows_stress = knows_all and not get_path(problem)

    def norm(field: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the norm (N, …) of a tensor field (N, components, …)."""
        return np.sqrt(np.einsum("nc...,c->n...", np.square(field), weights[: field.shape[1]]))

    def total(field: NDArray[np.floating]) -> NDArray[np.floating]:
        return field.sum(axis=(-3, -2, -1))

    parts: list[dict[str, NDArray[np.floating]]] = []
    peaks = []
    for x in np.array_split(np.arange(phase.shape[1]), min(phase.shape[1], -(-phase.size // SLAB))):
        slab = slice(x[0], x[-1] + 1)
        cut = phase[:, slab]
        strain, exact = (problem.fill_voids(cut, f[:, :, slab].astype(np.float64)) for f in (solution.strain, truth))
        off, *sizes = (norm(f[:, :measured]) for f in (strain - exact[:, : strain.shape[1]], strain, exact))
        part = {"voxels": total(is_solid[cut]), "mean": total(exact[:, :measured]), "size": total(sizes[1])}
        part |= {"off": total(off), "off squared": total(off**2)}
        peaks.append([f.max(axis=(1, 2, 3)) for f in (off, *sizes)])
        if knows_stress:
            pair = strain - exact, exact
            linear = [problem.apply_stiffness(cut, f) for f in pair]
            works = [problem.compute_work(s, f) for s, f in zip(linear, pair, strict=True)]
            stress = problem.compute_stress(cut, exact) if problem.temperature else linear[1]
            part |= {"work off": works[0], "work": works[1]}
            part |= {"stress off": total(linear[0]), "stress": total(stress), "stress size": total(norm(stress))}
            if problem.physics is ELASTICITY:
                sizes = [find_von_mises(s.swapaxes(0, 1)) for s in (stress + linear[0], stress)]
                part |= {"von Mises off": total(abs(sizes[0] - sizes[1])), "von Mises": total(sizes[1])}
        parts.append(part)
    sums = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    largest, predicted, exact = np.max(peaks, axis=0)
    scale: Any = (sums["size"] if is_thermal(problem) else norm(sums["mean"])) / sums["voxels"]
    scale = prescribed_size(problem, measured) or scale
    errors = {
        "mase": sums["off"] / sums["voxels"] / scale,
        "rmse": np.sqrt(sums["off squared"] / sums["voxels"]) / scale,
    }
    errors |= {"max_error": largest / scale, "hot_spot": np.abs(predicted / exact - 1)}
    if "work" in sums:
        carries = sums["work"] > CARRIES * find_uniform_work(phase, problem)
        errors["energy"] = np.where(carries, np.sqrt(sums["work off"] / sums["work"]), np.nan)
        stress = sums["stress size"] if is_thermal(problem) else norm(sums["stress"])
        errors["mean_stress"] = np.where(carries, norm(sums["stress off"]) / stress, np.nan)
        if "von Mises" in sums:
            errors["von_mises"] = np.where(carries, sums["von Mises off"] / sums["von Mises"], np.nan)
        E, S, _ = problem.load
        if E.any() and not S.any() and not problem.temperature:
            errors["effective"] = np.where(carries, np.abs(sums["stress off"] @ E / (sums["stress"] @ E)), np.nan)
    return {name: 100 * error for name, error in errors.items()}


def find_uniform_work(phase: NDArray[np.integer], problem: Problem) -> NDArray[np.floating]:
    """Return the sum of E:C:E over the voxels, (N,), for the prescribed strain; 0 without voids or if one is free."""
    E, _, free = problem.load
    if free.any() or problem.stiffnesses.any(axis=(1, 2)).all():
        return np.zeros(len(phase))
    return (problem.stiffnesses @ E @ E)[phase].sum(axis=(1, 2, 3))
