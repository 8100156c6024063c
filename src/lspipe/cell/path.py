"""Load paths of cells with inelastic materials, solved step by step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import check_load, check_phase, check_tol, join_materials
from lspipe.cell.blas import one_blas_thread, side_by_side
from lspipe.cell.engine import build_operator
from lspipe.cell.increment import Cell
from lspipe.cell.inelastic import Inelastic, elastic_part
from lspipe.cell.numbers import Array, shorten
from lspipe.cell.operator import Vector
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import NotConverged
from lspipe.cell.walk import Walk

Load = tuple[Array, Array, NDArray[np.bool_]]  # strain, stress and mask of the free strains, as check_load returns them


@dataclass(frozen=True)
class Path:
    """Response of N microstructures to T load steps. Numbers of steps that were not reached are NaN or 0.

    Attributes:
        kept: Indices of the K steps with fields, (K,).
        strain: Voxel means of the strain, (N, K, 6, nx, ny, nz), with tensor shear; NaN in a void.
        stress: Voxel means of the stress, (N, K, 6, nx, ny, nz), in the unit of the moduli.
        state: Voxel means of the state variables, (N, K, S, nx, ny, nz), as the laws define them.
        mean_strain: Macroscopic strain at the end of each step, (N, T, 6), with tensor shear.
        mean_stress: Macroscopic stress at the end of each step, (N, T, 6).
        newton: Number of Newton iterations, (N, T).
        iterations: Number of iterations of conjugate gradients, (N, T).
        cuts: Number of attempts that failed, after which the step was cut, (N, T).
        residual: Energy norm of the residual relative to that of the stress, (N, T). See docs/theory.md.
        bound: Guaranteed upper bound on the error of the strain, in the energy norm of the reference medium and
            relative to the macroscopic strain, for the state at the start of the step, (N, T). It is infinite for a
            cell with voids, where the hardening of a material may die out, and where the macroscopic strain is 0.
        converged: Whether the residual reached the tolerance, (N, T).
    """

    kept: NDArray[np.int64]
    strain: Array
    stress: Array
    state: Array
    mean_strain: Array
    mean_stress: Array
    newton: NDArray[np.int64]
    iterations: NDArray[np.int64]
    cuts: NDArray[np.int64]
    residual: Array
    bound: Array
    converged: NDArray[np.bool_]

    @property
    def plastic_strain(self) -> Array:
        """Voxel means of the plastic strain with tensor shear, (N, K, 6, nx, ny, nz), for ``Plastic`` materials."""
        return self.state[:, :, :6] * ELASTICITY.tensor_factors[:, None, None, None]

    @property
    def accumulated_plastic_strain(self) -> Array:
        """Voxel means of the accumulated plastic strain, (N, K, nx, ny, nz), for ``Plastic`` materials."""
        return self.state[:, :, 6]


def solve_path(
    phase: ArrayLike,
    materials: Any,
    steps: Iterable[Any],
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-4,
    keep: Sequence[int] = (-1,),
    device: str = "cpu",
    warn: bool = True,
) -> Path:
    """Compute the response of periodic microstructures with inelastic materials to a sequence of macroscopic loads.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, ``Plastic``, another ``Inelastic`` one or an elastic one; or one such
            list for each microstructure.
        steps: The loads at the end of each step: a strain (6,), or a pair of a strain and a stress, with None where the
            other one is prescribed, as for ``solve``. Within a step, the load grows in proportion.
        spacing: Edge lengths of a voxel.
        scheme: Element: 'bbar', 'full' or 'reduced'.
        tol: Energy norm of the residual, relative to that of the stress, at which the iteration of a step stops.
        keep: Indices of the steps whose fields are returned; negative ones count from the last step.
        device: 'cpu', where numba.get_num_threads() samples are solved side by side.
        warn: Whether to warn of samples that did not reach the last step.

    Returns:
        The response. A sample whose iteration fails, also after its step was cut, ends with the step before. Other
        samples go on.

    Raises:
        ValueError: An argument is outside of what is stated here.
    """
    loads, kept = _read_steps(steps, keep)
    phase, elastic, joined = _join(phase, materials)
    problem = Problem(elastic, (0.0,) * 6, scheme=scheme, spacing=spacing)  # type: ignore[arg-type]  # It makes tuples.
    phase, tol = check_phase(phase, problem.count), check_tol(tol)
    if problem.physics is not ELASTICITY:
        raise ValueError("materials: are conductors; must be elastic or inelastic")
    if not any(isinstance(m, Inelastic) for m in joined):
        raise ValueError("materials: none is inelastic; use solve, or give a Plastic material")
    if device != "cpu":
        raise ValueError(f"device = {shorten(device)}: must be cpu")
    op = build_operator(problem, phase.shape[1:], device)
    assert isinstance(op, NumbaOperator)
    with one_blas_thread, side_by_side(min(op.threads, len(phase))) as each:
        paths = list(each(lambda cell: _follow(Cell(op, cell, joined), loads, kept, tol), phase))
    path = Path(kept, **{name: np.stack([p[name] for p in paths]) for name in paths[0]})
    if warn:
        _warn_of_failures(path)
    return path


def _follow(cell: Cell, loads: list[Load], kept: NDArray[np.int64], tol: float) -> dict[str, Any]:
    """Return the attributes of Path for one cell."""
    constants, T = cell.op.constants, len(loads)
    fields = {
        name: np.full((len(kept), count, *constants.grid), np.nan)
        for name, count in (("strain", 6), ("stress", 6), ("state", cell.states.shape[2]))
    }
    numbers: dict[str, Any] = {name: np.full((T, 6), np.nan) for name in ("mean_strain", "mean_stress")}
    numbers |= {name: np.full(T, np.nan) for name in ("residual", "bound")}
    numbers |= {name: np.zeros(T, np.int64) for name in ("newton", "iterations", "cuts")}
    numbers["converged"] = np.zeros(T, bool)
    walk = Walk(cell, tol)
    for t, (E, S, free) in enumerate(loads):
        outcomes = walk.advance(E, S / constants.modulus, free)
        numbers["newton"][t] = sum(len(outcome.history) - 1 for outcome in outcomes)
        numbers["iterations"][t] = sum(outcome.inner for outcome in outcomes)
        numbers["cuts"][t] = sum(not outcome.converged for outcome in outcomes)
        numbers["residual"][t] = outcomes[-1].history[-1]
        if not outcomes[-1].converged:
            break
        numbers["converged"][t] = True
        E = walk.x.mean[0]
        with np.errstate(divide="ignore"):
            numbers["bound"][t] = max(outcomes[-1].norm, 1e-300) / (
                cell.alpha * np.sqrt(cell.volume * E @ constants.C0 @ E)
            )
        numbers["mean_strain"][t] = E * ELASTICITY.tensor_factors
        numbers["mean_stress"][t] = walk.stress * constants.modulus
        for k in np.flatnonzero(kept == t):
            _write_fields(cell, walk.x, fields["strain"][k], fields["stress"][k])
            fields["state"][k] = cell.state_means
    return fields | numbers


def _write_fields(cell: Cell, x: Vector, strain: Array, stress: Array) -> None:
    """Write the voxel means of strain and stress, (6, nx, ny, nz), in the user's units."""
    displacement = np.empty((1, 3, *cell.op.constants.grid))
    cell.op.write_fields(cell.voxels, x, displacement, strain[None], stress[None])
    strain *= ELASTICITY.tensor_factors[:, None, None, None]
    strain[:, cell.is_void] = np.nan
    stress[:] = cell.on_grid(cell.stresses) * cell.op.constants.modulus


def _read_steps(steps: Iterable[Any], keep: Sequence[int]) -> tuple[list[Load], NDArray[np.int64]]:
    """Return the load of each step, and the indices of the steps to keep."""
    loads = []
    for t, step in enumerate(steps):
        pair = step if hasattr(step, "__len__") and len(step) == 2 else (step, None)
        try:
            loads.append(check_load(ELASTICITY, *pair))
        except ValueError as error:
            raise ValueError(f"step {t}: {error}") from None
    if not loads:
        raise ValueError("steps: there are none; give at least one load")
    kept = np.atleast_1d(np.asarray(keep))
    if kept.size and (kept.dtype.kind not in "iu" or not -len(loads) <= kept.min() <= kept.max() < len(loads)):
        raise ValueError(f"keep = {shorten(keep)}: must be indices of the {len(loads)} steps")
    return loads, kept.astype(np.int64) % len(loads)


def _join(phase: ArrayLike, materials: Any) -> tuple[NDArray[np.integer], Any, list[Any]]:
    """Return the phases, their elastic materials and their materials; see ``join_materials``."""
    lists = [*materials] if isinstance(materials, Iterable) else []
    nested = bool(lists) and all(isinstance(own, list | tuple) for own in lists)
    elastic = [[*map(elastic_part, own)] for own in lists] if nested else [*map(elastic_part, lists)]
    cells, joined = join_materials(phase, elastic)
    materials = [m for own in lists for m in own] if nested else lists
    for m in materials:
        if isinstance(m, Inelastic) and not isinstance(m.law, Dispatcher):
            raise ValueError(
                f"materials: the law of {type(m).__name__} is no compiled function; decorate it with numba.njit, and "
                "wrap it in staticmethod where it is an attribute of the class"
            )
    return cells, joined, materials


def _warn_of_failures(path: Path) -> None:
    """Warn of samples that did not reach the last step."""
    T = path.converged.shape[1]
    ends = path.converged.sum(axis=1)
    failures = [f"sample {i} in step {t} (residual {path.residual[i, t]:.1e})" for i, t in enumerate(ends) if t < T]
    if failures:
        names = ", ".join(failures[:5]) + (f", … ({len(failures)} in all)" if len(failures) > 5 else "")
        warnings.warn(
            f"the iteration failed: {names}; the load may exceed what the cell can carry, or make the steps smaller",
            NotConverged,
            stacklevel=3,
        )
