"""The Lippmann–Schwinger equation solved by conjugate gradients with the Green operator as preconditioner.

For microstructures with stiffness C(x) under the macroscopic strain E, find the periodic displacement
u with K u = f, where K assembles ∫ BᵀCB, f = div(C:E), and K⁰ (the same element with the homogeneous
C⁰) preconditions: K⁰⁻¹K is the Lippmann–Schwinger operator I + Γ⁰:(C − C⁰) seen from u. Components of
E whose stress Σ is prescribed instead join the unknowns:

    [ K    −F ] [u]   [ f            ]      F e = div(C:e),
    [ −Fᵀ  V⟨C⟩] [e] = [ V(Σ − ⟨C⟩:E) ]      V: volume of the cell,

preconditioned by diag(K⁰, V C⁰). The energy norm of the residual, r·K⁰⁻¹r, stops the iteration and
bounds the error: (u − u*)·K(u − u*) ≤ r·K⁰⁻¹r / α.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import (
    check_device,
    check_load,
    check_materials,
    check_phase,
    check_scheme,
    check_spacing,
    check_start,
    check_tol,
)
from lspipe.cell.blas import one_blas_thread
from lspipe.cell.conjugate_gradients import State, System, conjugate_gradients
from lspipe.cell.material import Material, stiffnesses
from lspipe.cell.numbers import Array, integer, unit
from lspipe.cell.operator import Operator, operator
from lspipe.cell.problem import Problem

# A start function takes a system, its phases (N, nx, ny, nz), the strain to begin at (N, strains), and the r·K⁰⁻¹r (N,)
# to come down to. It yields a displacement (N, 3, nx, ny, nz), the strain with it, and the numbers (N,) of Green
# applications that both took, which count as iterations: once for ``solve``, once for each count for ``iterates``. All
# are in the units in which ``solve`` states the system.
Start = Callable[[System, NDArray[np.uint16], Array, Array], Iterator[tuple[Array, Array, NDArray[np.int64]]]]
End = Callable[[Array, Array, Array], dict[str, Any]]  # writes displacement, strain and stress; returns the numbers
ROUNDING = 1e-13  # a residual below this part of the size of the stress C(x):E is rounding


class NotConverged(RuntimeWarning):
    """Some samples did not reach the tolerance."""


@dataclass(frozen=True)
class Solution:
    """Fields of N microstructures. What a method cannot give is None.

    ``strain``: (N, C, nx, ny, nz), the voxel means of the C ``components``, tensor shear.
    ``stress``: (N, 6, nx, ny, nz), voxel means in Voigt order, in the unit of the moduli.
    ``displacement``: (N, 3, nx, ny, nz), its periodic part at the nodes, node (i, j, k) being the
    lowest corner of voxel (i, j, k). Of conductors these are the gradient of the temperature (N, 3, …),
    k times it (N, 3, …), and the periodic part of the temperature (N, 1, …). In a void the strain is not
    unique: it is NaN there, and ``bound`` is infinite. Per microstructure (N,): ``iterations``; ``green``,
    the number of applications of K⁰⁻¹, the last of which serves the residual; ``residual``, its energy norm
    relative to that of the load; ``bound`` ≥ energy norm of the error / energy norm of the field;
    ``converged``. ``history``: (N, longest), the residual after each iteration, that of the start first, then NaN;
    without what a function did that ``solve`` started from.
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
    """Strain, stress and displacement of periodic microstructures under a macroscopic load.

    ``phase``: (N, nx, ny, nz) or one cell (nx, ny, nz), integers that index ``materials``.
    ``strain``: the six components of the macroscopic strain in Voigt order xx, yy, zz, yz, xz, xy, tensor
    shear; of conductors the three of the macroscopic gradient. A None is a free component, whose macroscopic
    stress is given in ``stress``. ``spacing``: edge lengths of a voxel. ``scheme``: 'bbar' (Abaqus C3D8),
    'full' (2×2×2 Gauss points) or 'reduced' (one point; Willot 2015). ``tol``: energy norm of the residual
    relative to that of the load. ``start``: displacement, as of Solution, to begin with, or a function that
    finds one (see Start). ``device``: 'cpu', where samples run on numba.get_num_threads() threads, or a CUDA
    device ('cuda', 'cuda:1', …), where they run
    in batches. ``warn``: whether to warn of samples that did not reach ``tol``. Raises ValueError for arguments
    that make no sense.
    """
    max_iterations = integer("max_iterations", max_iterations, 0)
    op, batches, run = _prepare(
        phase, materials, strain, stress, spacing, scheme, tol, (max_iterations,), start, device
    )
    fields, parts = _empty(op, batches)
    # One thread a batch: the small products inside are not worth sharing out.
    with one_blas_thread, ThreadPoolExecutor(min(op.threads, len(batches))) as pool:
        numbers = pool.map(lambda batch, part: next(run(batch))(*part), batches, parts)
        solution = _solution(op, fields, list(numbers))
    assert solution.converged is not None
    assert solution.residual is not None
    if warn and not solution.converged.all():
        late = np.flatnonzero(~solution.converged)
        named = ", ".join(map(str, late[:20])) + (f", … ({len(late)} in all)" if len(late) > 20 else "")
        warnings.warn(
            f"samples [{named}] did not reach tol = {tol} in {max_iterations} iterations "
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
    phase: ArrayLike,
    problem: Problem,
    *,
    counts: Sequence[int],
    start: Start | None = None,
    device: str = "cpu",
) -> Iterator[tuple[int, float, Solution]]:
    """Yields what ``solve`` gives with tol = 0 for each of some numbers of iterations, in one run.

    Args:
        counts: The numbers of iterations, in ascending order.
        start: A function whose fields take the place of those of the iterations, one for each count.

    The other arguments are those of ``solve``.

    Returns:
        The count, the seconds that ``solve`` would take for this number of iterations, and its solution. Seconds are
        those of the iterations so far and of the fields of this count, without the fields of earlier counts.
    """
    stops = None if start else counts
    load = (problem.materials, problem.strain, problem.stress)
    op, batches, run = _prepare(phase, *load, problem.spacing, problem.scheme, 0.0, stops, start, device)
    runs, seconds, clock = [run(batch) for batch in batches], 0.0, time.perf_counter

    def written(count: int, ends: Sequence[End], began: float) -> tuple[int, float, Solution]:
        fields, parts = _empty(op, batches)
        solution = _solution(op, fields, list(pool.map(lambda end, part: end(*part), ends, parts)))
        return count, seconds + clock() - began, solution

    with ThreadPoolExecutor(min(op.threads, len(batches))) as pool:
        for count in counts:
            with one_blas_thread:
                began = clock()
                ends = list(pool.map(next, runs))
                seconds += clock() - began
                result = written(count, ends, clock())
            yield result
            del result  # the iteration goes on without the fields of this count


def _prepare(
    phase: ArrayLike,
    materials: Iterable[Material],
    strain: Sequence[float | None],
    stress: Sequence[float | None] | None,
    spacing: Sequence[float],
    scheme: str,
    tol: float,
    counts: Sequence[int] | None,
    start: ArrayLike | Start | None,
    device: str,
) -> tuple[Operator, list[slice], Callable[[slice], Iterator[End]]]:
    """Checks the arguments. Returns the operator, the batches of samples, and ``_run`` for one of them."""
    materials = check_materials(materials)
    checked = check_phase(phase, len(materials))
    physics = materials[0].physics
    E, S, free = check_load(physics, strain, stress)
    check_scheme(scheme)
    h, tol = np.array(check_spacing(spacing)), check_tol(tol)
    check_device(device)
    find: Start | None = start if callable(start) else None
    shape = (len(checked), physics.d, *checked.shape[1:])
    u0 = None if start is None or callable(start) else check_start(start, shape)

    # The problem is linear. It is solved in units in which lengths, moduli and load are about 1.
    dx, dy, dz = h / (length := unit(h))
    op = operator(materials, checked.shape[1:], (dx, dy, dz), scheme, device, unit(stiffnesses(materials)))
    S = S / (modulus := op.constants.modulus)
    load = unit(E, S) if u0 is None or E.any() or S.any() else unit(u0 / length)
    E, S = E / load, S / load
    units = (length * load, load, modulus * load)  # of displacement, strain, stress

    def run(batch: slice) -> Iterator[End]:
        begin = find if u0 is None else u0[batch] / length / load
        return _run(op, checked[batch], E, S, free, tol, counts, begin, units)

    batches = range(0, len(checked), op.batch)
    return op, [slice(i, min(i + op.batch, len(checked))) for i in batches], run


def _empty(op: Operator, batches: Sequence[slice]) -> tuple[list[Array], list[list[Array]]]:
    """Displacement, strain and stress to write to: of all samples, and of each batch."""
    sizes = (op.constants.d, len(op.constants.C0), len(op.constants.C0))
    fields = [np.empty((batches[-1].stop, size, *op.constants.grid)) for size in sizes]
    return fields, [[field[batch] for field in fields] for batch in batches]


def _solution(op: Operator, fields: Sequence[Array], parts: Sequence[dict[str, Any]]) -> Solution:
    displacement, strain, stress = fields
    history = _aligned([row for part in parts for row in part.pop("history")])
    numbers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Solution(strain, op.constants.physics.components, stress, displacement, history=history, **numbers)


def _run(
    op: Operator,
    phase: NDArray[np.uint16],
    E: Array,
    S: Array,
    free: NDArray[np.bool_],
    tol: float,
    counts: Sequence[int] | None,
    start: Array | Start | None,
    units: tuple[float, float, float],
) -> Iterator[End]:
    """Iterates on microstructures ``phase`` (N, nx, ny, nz) side by side, from the displacement ``start``.

    Yields after each of ``counts`` iterations, or without ``counts`` for each displacement of a start function, a
    function that writes the fields, times their ``units``, and returns the numbers of Solution (N,) and the histories.
    """
    xp, constants = op.xp, op.constants
    V = constants.volume * phase[0].size
    fractions = np.stack([np.bincount(p.ravel(), minlength=len(constants.C)) for p in phase]) / phase[0].size
    mean = np.tile(E, (len(phase), 1))
    load = op.vector(None, np.tile(V * S, (len(phase), 1)))
    system = System(op, op.voxels(phase), load, _restricted_inverse(V * constants.C0, free))

    x, r, z = op.vector(None, mean), *(op.empty(len(phase), np.float64) for _ in range(2))
    rho = load2 = system.residual(x, r, z)
    applied, passes = 1, np.zeros(len(phase), np.int64)
    stresses = constants.C @ E
    own2 = V * fractions @ np.einsum("pi,ij,pj->p", stresses, np.linalg.inv(constants.C0), stresses)
    floor2 = ROUNDING**2 * xp.maximum(load2, op.array(own2))

    def begin(u: Array | None, mean: Array) -> State:
        x = op.vector(u, mean)
        rho = system.residual(x, r, z)
        return State(x, rho, 0 * rho, 0 * rho, [rho])

    def end(
        stopped: Callable[[], State], applied: int, passes: Any, displacement: Array, strain: Array, stress: Array
    ) -> dict[str, Any]:
        x, rho, iterations, green, history = stopped()
        op.fields(system.voxels, x, displacement, strain, stress)
        displacement -= displacement.mean(axis=(2, 3, 4), keepdims=True)
        displacement *= units[0]
        strain *= units[1] * constants.physics.shear[:, None, None, None]
        stress *= units[2]
        if (void := constants.alpha == 0).any():
            strain.swapaxes(0, 1)[:, void[phase]] = np.nan
        energy = op.numpy(op.inner(x, load) - op.inner(x, r))
        scale2, target = (op.numpy(a) for a in limits(history[0]))
        rho, size2, least2 = (op.numpy(a) for a in (rho, load2, floor2))
        alpha = np.where(fractions > 0, constants.alpha, np.inf).min(axis=1)
        solved = (rho <= least2) & ((size2 <= least2) | (fractions.max(axis=1) == 1))  # there was nothing to solve
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = np.where(solved, 0.0, np.sqrt(np.maximum(rho, least2) / (alpha * np.maximum(energy, 0.0))))
        squares = np.stack([op.numpy(h) for h in history], axis=1) / scale2[:, None]
        return {
            "iterations": op.numpy(iterations).astype(np.int64) + passes,
            "green": op.numpy(green).astype(np.int64) + passes + applied,
            "residual": np.where(np.maximum(rho, size2) <= least2, 0.0, np.sqrt(rho / scale2)),
            "bound": np.where(alpha == 0, np.inf, bound),
            "converged": rho <= target,
            "history": [np.sqrt(row[~np.isnan(row)]) for row in squares],
        }

    def limits(rho: Any) -> tuple[Any, Any]:
        """The square of what a residual is relative to, and of the one to come down to, from a start with ``rho``."""
        scale2 = xp.where(load2 > floor2, load2, rho)  # without any load, relative to the start
        scale2 = xp.where(scale2 > 0, scale2, 1)
        return scale2, xp.maximum(tol**2 * scale2, floor2)

    if free.any():
        # The free strains begin at the least energy that the displacement leaves them.
        system.unbalanced(op.vector(None if callable(start) else start, mean), r)
        softness = _restricted_inverse(V * np.tensordot(fractions, constants.C, 1), free)
        mean = mean + np.einsum("nij,nj->ni", softness, op.numpy(r.mean))
    if callable(start):
        found = start(system, phase, mean, op.numpy(xp.maximum(tol**2 * load2, floor2)))
        if counts is None:
            for u, mean, passes in found:
                yield partial(end, partial(begin, u, mean), 2, passes)
            return
        [(start, mean, passes)] = found
    if free.any() or start is not None:
        x, rho, *_ = begin(start, mean)
        applied += 1
    assert counts is not None
    for stopped in conjugate_gradients(system, x, r, z, rho, limits(rho)[1], counts):
        yield partial(end, stopped, applied, passes)


def _aligned(rows: Sequence[Array]) -> Array:
    """(N, longest), the rows filled with NaN."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


def _restricted_inverse(matrix: Array, free: NDArray[np.bool_]) -> Array:
    """Inverse of (…, n, n) on the components ``free``, 0 elsewhere."""
    return np.linalg.pinv(np.where(np.outer(free, free), matrix, 0.0), hermitian=True)  # a void has none
