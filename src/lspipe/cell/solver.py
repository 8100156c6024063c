"""The Lippmann–Schwinger equation solved by conjugate gradients with the Green operator as preconditioner.

For microstructures with stiffness C(x) under the macroscopic strain E, find the periodic displacement
u with K u = f, where K assembles ∫ BᵀCB, f = div(C:E), and K⁰ (the same element with the homogeneous
C⁰) preconditions: K⁰⁻¹K is the Lippmann–Schwinger operator I + Γ⁰:(C − C⁰) seen from u. Components of
E whose stress Σ is prescribed instead join the unknowns:

    [ K    −F ] [u]   [ f            ]      F e = div(C:e),
    [ −Fᵀ  V⟨C⟩] [e] = [ V(Σ − ⟨C⟩:E) ]      V: volume of the cell,

preconditioned by diag(K⁰, V C⁰). The energy norm of the residual, r·K⁰⁻¹r, stops the iteration and
bounds the error: (u − u*)·K(u − u*) ≤ r·K⁰⁻¹r / α.

The steps of ``_solve_batch`` are the sections of docs/theory.md: the initial state, the limits of the residual, the
iteration, and the certificate.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import check_device, check_phase, check_tol
from lspipe.cell.blas import one_blas_thread
from lspipe.cell.conjugate_gradients import State, System, conjugate_gradients
from lspipe.cell.engine import build_operator
from lspipe.cell.material import Material
from lspipe.cell.numbers import Array, integer, numbers, unit
from lspipe.cell.operator import Operator
from lspipe.cell.problem import Problem

# A start function takes a system, its phases (N, nx, ny, nz), the macroscopic strain to begin at (N, strains), and the
# r·K⁰⁻¹r (N,) to reach. It yields a displacement (N, 3, nx, ny, nz), the macroscopic strain with it, and the number
# (N,) of applications of K⁰⁻¹ so far, which count as iterations. ``solve`` takes the first of these states, and
# ``iterates`` one for each count. All values have the units of the system.
Start = Callable[[System, NDArray[np.uint16], Array, Array], Iterator[tuple[Array, Array, NDArray[np.int64]]]]
Finish = Callable[[Array, Array, Array], dict[str, Any]]  # writes displacement, strain and stress; returns the numbers
ROUNDING = 1e-13  # a residual below this part of the size of the stress C(x):E is rounding


class NotConverged(RuntimeWarning):
    """Some samples did not reach the tolerance."""


@dataclass(frozen=True)
class Solution:
    """Fields of N microstructures, and what is known of their error.

    Conductors have the gradient of the temperature as ``strain``, with 3 components, the conductivity times it as
    ``stress``, and the temperature as ``displacement``, with 1 component. An attribute that a method does not compute
    is None.

    Attributes:
        strain: Voxel means of the strain, (N, C, nx, ny, nz), with tensor shear. NaN in a void, where it is not unique.
        components: Names of the C components of the strain.
        stress: Voxel means of the stress in Voigt order, (N, 6, nx, ny, nz), in the unit of the moduli.
        displacement: Periodic part of the displacement at the nodes, (N, 3, nx, ny, nz), in the unit of the spacing.
            Node (i, j, k) is the lowest corner of voxel (i, j, k).
        iterations: Number of iterations, (N,).
        green: Number of applications of K⁰⁻¹, (N,). The last one computes the residual.
        residual: Energy norm of the residual relative to that of the load, (N,).
        bound: Guaranteed upper bound on the energy norm of the error relative to that of the field, (N,). It is
            infinite for a cell with voids.
        converged: Whether the residual reached the tolerance, (N,).
        history: Residual at the start and after each iteration, (N, longest), filled with NaN. Excludes the iterations
            of a ``start`` function.
    """

    strain: NDArray[np.floating]
    components: tuple[str, ...]
    stress: Array | None = None
    displacement: Array | None = None
    iterations: NDArray[np.int64] | None = None
    green: NDArray[np.int64] | None = None
    residual: Array | None = None
    bound: Array | None = None
    converged: NDArray[np.bool_] | None = None
    history: Array | None = None


def solve(
    phase: ArrayLike,
    materials: Iterable[Material],
    strain: Sequence[float | None],
    stress: Sequence[float | None] | None = None,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-4,
    max_iterations: int = 500,
    start: ArrayLike | Start | None = None,
    device: str = "cpu",
    warn: bool = True,
) -> Solution:
    """Compute strain, stress and displacement of periodic microstructures under a macroscopic load.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase.
        strain: Macroscopic strain in Voigt order xx, yy, zz, yz, xz, xy, with tensor shear; for conductors the three
            components of the macroscopic gradient. A component is None where its stress is prescribed.
        stress: Macroscopic stress, None where the strain is prescribed.
        spacing: Edge lengths of a voxel.
        scheme: Element: 'bbar' (Abaqus C3D8), 'full' (2×2×2 Gauss points) or 'reduced' (one point; Willot 2015).
        tol: Energy norm of the residual, relative to that of the load, at which the iteration stops.
        max_iterations: Number of iterations after which it stops in any case.
        start: Displacement to begin with, of the shape and unit of ``Solution.displacement``, or a Start function.
        device: 'cpu', where numba.get_num_threads() samples are solved side by side, or a CUDA device such as 'cuda'
            or 'cuda:1', where batches of samples are.
        warn: Whether to warn of samples that did not reach ``tol``.

    Returns:
        The fields of the N microstructures in double precision.

    Raises:
        ValueError: An argument is outside of what is stated here.
    """
    problem = Problem(materials, strain, stress, scheme, spacing)  # type: ignore[arg-type]  # It makes tuples of them.
    max_iterations = integer("max_iterations", max_iterations, 0)
    batches = _batches(phase, problem, tol, start, device)

    def solve_batch(batch: Batch, *fields: Array) -> dict[str, Any]:
        return next(_solve_batch(batch, (max_iterations,)))(*fields)

    # Each batch runs on one thread: its matrix products are too small to share.
    with one_blas_thread, ThreadPoolExecutor(min(batches[0].op.threads, len(batches))) as pool:
        solution = _collect(pool, batches, [partial(solve_batch, batch) for batch in batches])
    assert solution.converged is not None
    assert solution.residual is not None
    if warn and not solution.converged.all():
        late = np.flatnonzero(~solution.converged)
        names = ", ".join(map(str, late[:20])) + (f", … ({len(late)} in all)" if len(late) > 20 else "")
        warnings.warn(
            f"samples [{names}] did not reach tol = {tol} in {max_iterations} iterations "
            f"(residual up to {solution.residual[late].max():.1e})",
            NotConverged,
            stacklevel=2,
        )
    return solution


def solve_problem(phase: ArrayLike, problem: Problem, **options: Any) -> Solution:
    """Solve a problem for microstructures; the options are those of ``solve``."""
    load = (problem.materials, problem.strain, problem.stress)
    return solve(phase, *load, spacing=problem.spacing, scheme=problem.scheme, **options)


def iterates(
    phase: ArrayLike, problem: Problem, *, counts: Sequence[int], start: Start | None = None, device: str = "cpu"
) -> Iterator[tuple[int, float, Solution]]:
    """Yield the results of ``solve`` with tol = 0 after several numbers of iterations, from one run.

    Args:
        phase: As for ``solve``, like ``device``.
        problem: Materials, load, element and spacing.
        counts: Numbers of iterations, in ascending order.
        start: Function that yields one state for each count; these states replace those of the iteration.

    Yields:
        The count, the seconds that ``solve`` takes for this number of iterations, and its solution. The seconds include
        the iterations so far and the fields of this count, but not the fields of earlier counts.
    """
    batches = _batches(phase, problem, 0.0, start, device)
    runs = [_solve_batch(batch, None if start else counts) for batch in batches]
    seconds, clock = 0.0, time.perf_counter
    with ThreadPoolExecutor(min(batches[0].op.threads, len(batches))) as pool:
        for count in counts:
            with one_blas_thread:
                began = clock()
                finishes = list(pool.map(next, runs))
                seconds += clock() - began
                began = clock()
                solution = _collect(pool, batches, finishes)
                result = count, seconds + clock() - began, solution
            yield result
            del solution, result  # The iteration goes on without the fields of this count.


@dataclass(frozen=True)
class Batch:
    """Cells that an engine solves side by side, in units in which lengths, moduli and load are about 1.

    Attributes:
        op: Engine for the materials, the grid and the element.
        phase: (N, nx, ny, nz).
        strain: Prescribed macroscopic strain E with engineering shear, (strains,); 0 where it is free.
        stress: Prescribed macroscopic stress Σ, (strains,); 0 where the strain is prescribed.
        free: Whether each component of the strain is free, (strains,).
        tol: Tolerance of the relative residual.
        start: Displacement (N, d, nx, ny, nz) or function to begin with, or None.
        units: Units of displacement, strain with tensor shear, and stress.
    """

    op: Operator
    phase: NDArray[np.uint16]
    strain: Array
    stress: Array
    free: NDArray[np.bool_]
    tol: float
    start: Array | Start | None
    units: tuple[Any, Any, Any]

    @property
    def volume(self) -> float:
        """Volume of a cell."""
        return self.op.constants.volume * self.phase[0].size

    @cached_property
    def fractions(self) -> Array:
        """Volume fractions of the phases, (N, phases)."""
        counts = [np.bincount(p.ravel(), minlength=len(self.op.constants.C)) for p in self.phase]
        return np.stack(counts) / self.phase[0].size


def _batches(
    phase: ArrayLike, problem: Problem, tol: float, start: ArrayLike | Start | None, device: str
) -> list[Batch]:
    """Check the arguments of ``solve`` and divide the cells into batches."""
    phase, tol = check_phase(phase, len(problem.materials)), check_tol(tol)
    check_device(device)
    op = build_operator(problem.without_load, phase.shape[1:], device)
    length, modulus = op.constants.length, op.constants.modulus
    u = None
    if start is not None and not callable(start):
        u = numbers("start", start) / length
        if u.shape != (shape := (len(phase), op.constants.d, *op.constants.grid)):
            raise ValueError(f"start has shape {u.shape}: must have {shape}")

    # The problem is linear: its fields are those in units of size 1, times these units.
    E, S, free = problem.load
    S = S / modulus
    load = unit(E, S) if u is None or E.any() or S.any() else unit(u)
    units = (length * load, load * problem.physics.shear[:, None, None, None], modulus * load)

    def batch(samples: slice) -> Batch:
        begin: Any = start if u is None else u[samples] / load
        return Batch(op, phase[samples], E / load, S / load, free, tol, begin, units)

    return [batch(slice(i, i + op.batch)) for i in range(0, len(phase), op.batch)]


def _collect(pool: ThreadPoolExecutor, batches: Sequence[Batch], finishes: Sequence[Finish]) -> Solution:
    """Finish all batches and put their results together."""
    constants, ends = batches[0].op.constants, np.cumsum([len(batch.phase) for batch in batches])
    sizes = (constants.d, len(constants.C0), len(constants.C0))
    fields = [np.empty((ends[-1], size, *constants.grid)) for size in sizes]
    parts = zip(*(np.split(field, ends[:-1]) for field in fields), strict=True)
    results = list(pool.map(lambda finish, part: finish(*part), finishes, parts))
    rows = [row for result in results for row in result.pop("history")]
    history = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(history, rows, strict=True):
        line[: len(row)] = row
    numbers = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    displacement, strain, stress = fields
    return Solution(strain, constants.physics.components, stress, displacement, history=history, **numbers)


def _solve_batch(batch: Batch, counts: Sequence[int] | None) -> Iterator[Finish]:
    """Yield a function that finishes the solution, after each of ``counts`` iterations.

    Without ``counts``, yield one for each state of the start function.
    """
    op, shape = batch.op, (len(batch.phase), 1)
    load = op.vector(None, np.tile(batch.volume * batch.stress, shape))
    compliance = _restricted_inverse(batch.volume * op.constants.C0, batch.free)
    system = System(op, op.voxels(batch.phase), load, compliance)

    r, z = (op.empty(len(batch.phase), np.float64) for _ in range(2))
    unloaded = system.start(op.vector(None, np.tile(batch.strain, shape)), r, z, 0, 0)
    limits = _limits(batch, op.numpy(unloaded.rho))
    for begin in _initial_states(batch, system, limits, unloaded):
        if counts is None:
            yield partial(_finish, batch, system, limits, begin)
            continue
        start = begin()
        target = op.array(limits.target(op.numpy(start.rho)))
        for compute_state in conjugate_gradients(system, start, target, counts):
            yield partial(_finish, batch, system, limits, compute_state)


def _initial_states(batch: Batch, system: System, limits: Limits, unloaded: State) -> Iterator[Callable[[], State]]:
    """Yield functions that compute the state to iterate from: ``unloaded``, that of a displacement, or those of a
    start function."""
    op, start = batch.op, batch.start
    if start is None and not batch.free.any():
        yield lambda: unloaded
        return
    mean = np.tile(batch.strain, (len(batch.phase), 1))
    if batch.free.any():
        # The free strains begin at the least energy that the displacement leaves them.
        r = system.residual(op.vector(None if callable(start) else start, mean), unloaded.r)
        stiffness = batch.volume * np.tensordot(batch.fractions, op.constants.C, 1)
        mean += np.einsum("nij,nj->ni", _restricted_inverse(stiffness, batch.free), op.numpy(r.mean))
    states: Any = [(start, mean, 0)]
    if callable(start):
        states = start(system, batch.phase, mean, limits.target(limits.load))
    for u, e, passes in states:
        x = op.vector(u, e)
        yield partial(system.start, x, unloaded.r, unloaded.z, op.array(passes), op.array(passes) + unloaded.green)


@dataclass(frozen=True)
class Limits:
    """Squared energy norms of the residual that decide when a cell is solved, each (N,).

    Attributes:
        load: Norm of the load: of the residual at u = 0 and free strains 0.
        rounding: Norm below which a residual is rounding.
        tol: Tolerance of the norm relative to the load.
    """

    load: Array
    rounding: Array
    tol: float

    def reference(self, start: Array) -> Array:
        """Return what a residual is relative to: the load, or ``start``, the initial residual, where there is none."""
        reference = np.where(self.load > self.rounding, self.load, start)
        return np.where(reference > 0, reference, 1)

    def target(self, start: Array) -> Array:
        """Return the norm that the iteration has to reach from the initial residual ``start``."""
        return np.maximum(self.tol**2 * self.reference(start), self.rounding)


def _limits(batch: Batch, load: Array) -> Limits:
    """Compare the residual with the load and with the rounding of the stress C(x):E."""
    constants = batch.op.constants
    stress = constants.C @ batch.strain
    energy = np.einsum("pi,ij,pj->p", stress, np.linalg.inv(constants.C0), stress)
    return Limits(load, ROUNDING**2 * np.maximum(load, batch.volume * batch.fractions @ energy), batch.tol)


def _finish(
    batch: Batch,
    system: System,
    limits: Limits,
    compute_state: Callable[[], State],
    displacement: Array,
    strain: Array,
    stress: Array,
) -> dict[str, Any]:
    """Write the fields in the user's units. Returns the attributes of Solution that are numbers for each cell."""
    state = compute_state()
    batch.op.fields(system.voxels, state.x, displacement, strain, stress)
    displacement -= displacement.mean(axis=(2, 3, 4), keepdims=True)
    for field, size in zip((displacement, strain, stress), batch.units, strict=True):
        field *= size
    if (void := batch.op.constants.alpha == 0).any():
        strain.swapaxes(0, 1)[:, void[batch.phase]] = np.nan
    return _certificate(batch, system, limits, state)


def _certificate(batch: Batch, system: System, limits: Limits, state: State) -> dict[str, Any]:
    """Return the residual of a state, the bound on its error, and the numbers of steps that it took."""
    op = batch.op
    rho, iterations, green = (op.numpy(values) for values in (state.rho, state.iterations, state.green))
    history = np.stack([op.numpy(values) for values in state.history], axis=1)
    reference, target = limits.reference(history[:, 0]), limits.target(history[:, 0])
    energy = op.numpy(op.inner(state.x, system.load) - op.inner(state.x, state.r))  # x·K x
    occurs = batch.fractions > 0
    alpha = np.where(occurs, op.constants.alpha, np.inf).min(axis=1)
    has_load = (limits.load > limits.rounding) & (occurs.sum(axis=1) > 1)  # Otherwise there is nothing to solve for.
    is_exact = (rho <= limits.rounding) & ~has_load
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.sqrt(np.maximum(rho, limits.rounding) / (alpha * np.maximum(energy, 0)))
    return {
        "iterations": iterations.astype(np.int64),
        "green": green.astype(np.int64),
        "residual": np.where(is_exact, 0.0, np.sqrt(rho / reference)),
        "bound": np.where(alpha == 0, np.inf, np.where(is_exact, 0.0, bound)),
        "converged": rho <= target,
        "history": [np.sqrt(row[~np.isnan(row)]) for row in history / reference[:, None]],
    }


def _restricted_inverse(matrix: Array, free: NDArray[np.bool_]) -> Array:
    """Invert (…, n, n) on the components ``free``; the other entries are 0."""
    return np.linalg.pinv(np.where(np.outer(free, free), matrix, 0.0), hermitian=True)  # A void has no inverse.
