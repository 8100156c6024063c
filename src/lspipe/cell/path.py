"""Load paths of cells with inelastic materials, solved step by step."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import check_keep, check_load, check_phase, check_tol, join_materials
from lspipe.cell.engine import build_operator
from lspipe.cell.increment import Cell
from lspipe.cell.inelastic import Inelastic
from lspipe.cell.laws.plasticity import Plastic
from lspipe.cell.numbers import Array, shorten
from lspipe.cell.operator import Vector
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.solver import NotConverged
from lspipe.cell.threads import side_by_side
from lspipe.cell.walk import Walk

Load = tuple[Array, Array, NDArray[np.bool_]]  # strain, stress and mask of the free strains, as check_load returns them


@dataclass(frozen=True)
class PathEnd:
    """The end of a path of N samples, from which another call of ``solve_path`` goes on.

    Attributes:
        origins: Digests of the microstructure and of the problem without its steps, (N,). Only a path with the
            same digests may go on.
        vectors: Displacement at the end and its last two changes, (N, 3, …), in the form of the engine.
        states: State variables at the integration points, N arrays (points, voxels with a law, S).
        stress: Macroscopic stress in the unit of the engine, (N, 6).
        loads: Changes of the prescribed strain and stress that belong to the last two changes, (N, 2, 12).
        largest: Squared norm of the largest stress so far, (N,).
        has_failed: Whether a step has failed, after which a sample does not go on, (N,).
    """

    origins: NDArray[np.str_]
    vectors: Array
    states: Sequence[Array]
    stress: Array
    loads: Array
    largest: Array
    has_failed: NDArray[np.bool_]


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
        has_other_law: Voxels of inelastic materials that are not ``Plastic``, (N, nx, ny, nz).
        end: The state at the end, for ``start`` of another call.
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
    has_other_law: NDArray[np.bool_]
    end: PathEnd

    @property
    def plastic_strain(self) -> Array:
        """Voxel means of the plastic strain with tensor shear, (N, K, 6, nx, ny, nz).

        It is 0 in elastic materials and NaN in inelastic ones that are not ``Plastic``.
        """
        return self._plastic_state[:, :, :6] * ELASTICITY.tensor_factors[:, None, None, None]

    @property
    def accumulated_plastic_strain(self) -> Array:
        """Voxel means of the accumulated plastic strain, (N, K, nx, ny, nz), as for ``plastic_strain``."""
        return self._plastic_state[:, :, 6]

    @property
    def _plastic_state(self) -> Array:
        """The state variables of ``Plastic`` materials, (N, K, 7, nx, ny, nz)."""
        N, K, _, *grid = self.state.shape
        state = np.zeros((N, K, Plastic.states, *grid))
        known = self.state[:, :, : Plastic.states]
        state[:, :, : known.shape[2]] = known
        return np.where(self.has_other_law[:, None, None], np.nan, state)


def solve_path(
    phase: ArrayLike,
    materials: Any,
    steps: Iterable[Any],
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-4,
    keep: Sequence[int] = (-1,),
    start: PathEnd | None = None,
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
        keep: Numbers of the steps whose fields are returned, each once and in ascending order; negative ones count
            from the last step.
        start: The ``end`` of an earlier path of the same microstructures, from which the steps go on; by default the
            unloaded state. A path in several parts has exactly the fields of the whole one.
        device: 'cpu', where numba.get_num_threads() samples are solved side by side.
        warn: Whether to warn of samples that did not reach the last step.

    Returns:
        The response. A sample whose iteration fails, also after its step was cut, ends with the step before. Other
        samples go on.

    Raises:
        ValueError: An argument does not meet the conditions above.
    """
    phase, materials = join_materials(phase, materials, allow_inelastic=True)
    problem = PathProblem(materials, steps, scheme, spacing)  # type: ignore[arg-type]  # It makes tuples.
    return solve_path_problem(phase, problem, tol=tol, keep=keep, start=start, device=device, warn=warn)


def solve_path_problem(
    phase: ArrayLike,
    problem: PathProblem,
    *,
    tol: float = 1e-4,
    keep: Sequence[int] = (-1,),
    start: PathEnd | None = None,
    device: str = "cpu",
    warn: bool = True,
) -> Path:
    """Follow the load path of a problem for microstructures; the other arguments are those of ``solve_path``."""
    phase, tol = check_phase(phase, len(problem.materials)), check_tol(tol)
    kept = np.array(check_keep(keep, len(problem.steps), least=0), np.int64)
    _check_laws(problem)
    if device != "cpu":
        raise ValueError(f"device = {shorten(device)}: must be cpu")
    op = build_operator(problem.elastic, phase.shape[1:], device)
    assert isinstance(op, NumbaOperator)
    loads = [check_load(ELASTICITY, *step) for step in problem.steps]
    if start is not None and not isinstance(start, PathEnd):
        raise ValueError(f"start = {shorten(start)}: must be the `end` of a path")
    if start and len(start.largest) != len(phase):
        raise ValueError(f"start: is the end of {len(start.largest)} samples; must have the {len(phase)} of phase")
    described = repr((phase.shape[1:], problem.materials, problem.scheme, problem.spacing)).encode()
    origins = np.array([hashlib.sha256(described + cell.tobytes()).hexdigest() for cell in phase])
    if start and (start.origins != origins).any():
        raise ValueError("start: is the end of a path of other microstructures, materials, spacing or element")

    def follow(i: int) -> tuple[dict[str, Any], dict[str, Any]]:
        walk = Walk(Cell(op, phase[i], problem.materials), tol)
        if start:
            walk.go_on_from({name: values[i] for name, values in vars(start).items()})
        has_failed = bool(start and start.has_failed[i])
        path = _follow(walk, [] if has_failed else loads, len(loads), kept)
        return path, walk.end | {"has_failed": not path["converged"].all()}

    with side_by_side(min(op.threads, len(phase))) as each:
        paths, ends = zip(*each(follow, range(len(phase))), strict=True)
    states = [end.pop("states") for end in ends]
    end = PathEnd(origins, states=states, **{name: np.stack([end[name] for end in ends]) for name in ends[0]})
    others = np.array([isinstance(m, Inelastic) and not isinstance(m, Plastic) for m in problem.materials])
    path = Path(
        kept, has_other_law=others[phase], end=end, **{name: np.stack([p[name] for p in paths]) for name in paths[0]}
    )
    if warn:
        problem.warn_of_large_strains()
        _warn_of_failures(path, start)
    return path


def _follow(walk: Walk, loads: list[Load], T: int, kept: NDArray[np.int64]) -> dict[str, Any]:
    """Return the attributes of Path for one cell and T steps. A cell does not reach steps that have no load."""
    cell, constants = walk.cell, walk.cell.op.constants
    fields = {
        name: np.full((len(kept), count, *constants.grid), np.nan)
        for name, count in (("strain", 6), ("stress", 6), ("state", cell.states.shape[2]))
    }
    numbers: dict[str, Any] = {name: np.full((T, 6), np.nan) for name in ("mean_strain", "mean_stress")}
    numbers |= {name: np.full(T, np.nan) for name in ("residual", "bound")}
    numbers |= {name: np.zeros(T, np.int64) for name in ("newton", "iterations", "cuts")}
    numbers["converged"] = np.zeros(T, bool)
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


def _check_laws(problem: PathProblem) -> None:
    """Raise ValueError for a law that is not compiled."""
    for m in problem.materials:
        if isinstance(m, Inelastic) and not isinstance(m.law, Dispatcher):
            raise ValueError(
                f"materials: the law of {type(m).__name__} is no compiled function; decorate it with numba.njit, and "
                "wrap it in staticmethod where it is an attribute of the class"
            )


def _warn_of_failures(path: Path, start: PathEnd | None) -> None:
    """Warn of samples that failed in one of these steps."""
    failed = np.flatnonzero(path.end.has_failed & ~(start.has_failed if start else np.array(False)))
    ends = path.converged.sum(axis=1)
    failures = [f"sample {i} in step {ends[i]} (residual {path.residual[i, ends[i]]:.1e})" for i in failed]
    if failures:
        names = ", ".join(failures[:5]) + (f", … ({len(failures)} in all)" if len(failures) > 5 else "")
        warnings.warn(
            f"the iteration failed: {names}; use smaller steps, or a smaller load if the cell cannot carry this one",
            NotConverged,
            stacklevel=4,
        )
