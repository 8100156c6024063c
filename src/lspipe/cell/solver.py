"""The Lippmann–Schwinger equation solved by conjugate gradients with the Green operator as preconditioner.

For microstructures with stiffness C(x) under the macroscopic strain E, the periodic displacement u solves K u = f. Here
K assembles ∫ BᵀCB, and f = div(C:E). The preconditioner K⁰ has the same element with the homogeneous stiffness C⁰:
K⁰⁻¹K is the Lippmann–Schwinger operator I + Γ⁰:(C − C⁰) on displacements. Where a stress component Σ is prescribed,
the strain component is an unknown e:

    [ K    −F ] [u]   [ f            ]      F e = div(C:e),
    [ −Fᵀ  V⟨C⟩] [e] = [ V(Σ − ⟨C⟩:E) ]      V: volume of the cell,

preconditioned by diag(K⁰, V C⁰). A stress C:α ΔT that thermal expansion takes away adds its nodal forces to f and its
integral to VΣ. The squared energy norm of the residual, r·K⁰⁻¹r, stops the iteration and bounds the
error: (u − u*)·K(u − u*) ≤ r·K⁰⁻¹r / α.

batch.py solves these equations for the cells that an engine works on at a time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import Materials, check_device, check_phase, check_tol, join_materials
from lspipe.cell.batch import Batch, Finish, Start, solve_batch
from lspipe.cell.engine import build_operator
from lspipe.cell.numbers import Array, check_integer, check_numbers, find_scale
from lspipe.cell.problem import Problem
from lspipe.cell.threads import side_by_side


class NotConverged(RuntimeWarning):
    """Warns that some samples did not reach the tolerance."""


@dataclass(frozen=True)
class Solution:
    """Fields of N microstructures and the certificate of their error.

    Conductors have the gradient of the temperature as ``strain``, with 3 components, the conductivity times it as
    ``stress``, and the temperature as ``displacement``, with 1 component. An attribute that a method does not compute
    is None.

    Attributes:
        strain: Voxel means of the strain, thermal expansion included, (N, C, nx, ny, nz), with tensor shear. NaN in a
            void, where it is not unique.
        components: Names of the C components of the strain.
        stress: Voxel means of the stress in Voigt order, (N, 6, nx, ny, nz), in the unit of the moduli.
        displacement: Periodic part of the displacement at the nodes, (N, 3, nx, ny, nz), in the unit of the spacing.
            Node (i, j, k) is the lowest corner of voxel (i, j, k).
        mean_strain: Macroscopic strain, (N, C), with tensor shear. It also counts the voids.
        iterations: Number of iterations, (N,).
        green: Number of applications of K⁰⁻¹, (N,). The last one computes the residual.
        residual: Energy norm of the residual relative to that of the load, (N,).
        bound: Guaranteed upper bound on the energy norm of the error relative to that of the field, (N,). It is
            infinite for a cell with voids.
        converged: Whether the residual reached the tolerance, (N,).
        mase_90: MASE in % below which 90 % of microstructures stay if they are drawn like those of the training, (N,).
        history: Residual at the start and after each iteration, (N, longest), filled with NaN. Excludes the iterations
            of a ``start`` function.
    """

    strain: NDArray[np.floating]
    components: tuple[str, ...]
    stress: Array | None = None
    displacement: Array | None = None
    mean_strain: Array | None = None
    iterations: NDArray[np.int64] | None = None
    green: NDArray[np.int64] | None = None
    residual: Array | None = None
    bound: Array | None = None
    converged: NDArray[np.bool_] | None = None
    mase_90: Array | None = None
    history: Array | None = None


def solve(
    phase: ArrayLike,
    materials: Materials,
    strain: Sequence[float | None],
    stress: Sequence[float | None] | None = None,
    *,
    temperature: float = 0.0,
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
        materials: One material for each phase, or one such list for each microstructure.
        strain: Macroscopic strain in Voigt order xx, yy, zz, yz, xz, xy, with tensor shear; for conductors the three
            components of the macroscopic gradient. A component is None where its stress is prescribed.
        stress: Macroscopic stress, None where the strain is prescribed.
        temperature: Change of temperature, which drives the expansion of the materials.
        spacing: Edge lengths of a voxel.
        scheme: Element: 'bbar' (Abaqus C3D8), 'full' (2×2×2 Gauss points) or 'reduced' (one point; Willot 2015).
        tol: Energy norm of the residual, relative to that of the load, at which the iteration stops.
        max_iterations: Number of iterations after which it stops in any case.
        start: Displacement to begin with, of the shape and unit of ``Solution.displacement``, or a Start function.
        device: 'cpu', which solves numba.get_num_threads() samples side by side, or a CUDA device such as 'cuda' or
            'cuda:1', which solves the samples of a batch side by side.
        warn: Whether to warn of samples that did not reach ``tol``.

    Returns:
        The fields of the N microstructures in double precision.

    Raises:
        ValueError: An argument does not meet the conditions above.
    """
    phase, materials = join_materials(phase, materials)
    problem = Problem(materials, strain, stress, temperature, scheme, spacing)  # type: ignore[arg-type]  # It makes tuples.
    return solve_problem(phase, problem, tol=tol, max_iterations=max_iterations, start=start, device=device, warn=warn)


def solve_problem(
    phase: ArrayLike,
    problem: Problem,
    *,
    tol: float = 1e-4,
    max_iterations: int = 500,
    start: ArrayLike | Start | None = None,
    device: str = "cpu",
    warn: bool = True,
) -> Solution:
    """Solve a problem for microstructures; the other arguments are those of ``solve``."""
    max_iterations = check_integer("max_iterations", max_iterations, 0)
    batches = make_batches(phase, problem, tol, start, device)

    def finish(batch: Batch, *fields: Array) -> dict[str, Any]:
        return next(solve_batch(batch, (max_iterations,)))(*fields)

    with side_by_side(min(batches[0].op.threads, len(batches))) as each:
        solution = _collect(each, batches, [partial(finish, batch) for batch in batches])
    assert solution.converged is not None
    assert solution.residual is not None
    if warn:
        warn_not_converged(solution.converged, tol, max_iterations, "residual", solution.residual)
    return solution


def warn_not_converged(
    converged: NDArray[np.bool_], tol: float, max_iterations: int, quantity: str, values: Array
) -> None:
    """Warn of samples that did not converge, with the largest of their ``values``.

    The warning points to the code three calls above, which is that of the user.
    """
    if converged.all():
        return
    late = np.flatnonzero(~converged)
    names = ", ".join(map(str, late[:20])) + (f", … ({len(late)} in all)" if len(late) > 20 else "")
    warnings.warn(
        f"samples [{names}] did not reach tol = {tol} in {max_iterations} iterations "
        f"({quantity} up to {values[late].max():.1e})",
        NotConverged,
        stacklevel=4,
    )


def iterates(
    phase: ArrayLike, problem: Problem, *, counts: Sequence[int], start: Start | None = None, device: str = "cpu"
) -> Iterator[tuple[int, float, Solution]]:
    """Yield the results of ``solve`` with tol = 0 after several numbers of iterations, from one run.

    Args:
        phase: As for ``solve``.
        problem: Materials, load, element and spacing.
        counts: Numbers of iterations, in ascending order.
        start: Function that yields one state for each count; these states replace those of the iteration.
        device: As for ``solve``.

    Yields:
        The count, the seconds that ``solve`` takes for this number of iterations, and its solution. The seconds include
        the iterations so far and the fields of this count, but not the fields of earlier counts.
    """
    batches = make_batches(phase, problem, 0.0, start, device)
    runs = [solve_batch(batch, None if start else counts) for batch in batches]
    seconds, clock = 0.0, time.perf_counter
    with side_by_side(min(batches[0].op.threads, len(batches))) as each:
        for count in counts:
            began = clock()
            finishes = list(each(next, runs))
            seconds += clock() - began
            began = clock()
            solution = _collect(each, batches, finishes)
            result = count, seconds + clock() - began, solution
            yield result
            del solution, result  # The iteration goes on without the fields of this count.


def make_batches(
    phase: ArrayLike, problem: Problem, tol: float = 0.0, start: ArrayLike | Start | None = None, device: str = "cpu"
) -> list[Batch]:
    """Check the arguments of ``solve`` and divide the cells into batches."""
    phase, tol = check_phase(phase, problem.count), check_tol(tol)
    check_device(device)
    op = build_operator(problem.without_load, phase.shape[1:], device)
    length, modulus = op.constants.length, op.constants.modulus
    u = None
    if start is not None and not callable(start):
        u = check_numbers("start", start) / length
        if u.shape != (shape := (len(phase), op.constants.d, *op.constants.grid)):
            raise ValueError(f"start has shape {u.shape}: must have {shape}")

    # The problem is linear: its fields are those in units of size 1, times these units.
    E, S, free = problem.load
    loads = E, S / modulus, problem.eigenstresses / modulus
    load = find_scale(*loads) if u is None or any(x.any() for x in loads) else find_scale(u)
    E, S, eigenstress = (x / load for x in loads)
    units = (length * load, load * problem.physics.tensor_factors[:, None, None, None], modulus * load)

    def batch(samples: slice) -> Batch:
        begin: Any = start if u is None else u[samples] / load
        return Batch(op, phase[samples], E, S, free, eigenstress, tol, begin, units)

    return [batch(slice(i, i + op.batch)) for i in range(0, len(phase), op.batch)]


def _collect(each: Callable[..., Any], batches: Sequence[Batch], finishes: Sequence[Finish]) -> Solution:
    """Finish all batches and put their results together."""
    constants, ends = batches[0].op.constants, np.cumsum([len(batch.phase) for batch in batches])
    sizes = (constants.d, len(constants.C0), len(constants.C0))
    fields = [np.empty((ends[-1], size, *constants.grid)) for size in sizes]
    parts = zip(*(np.split(field, ends[:-1]) for field in fields), strict=True)
    results = list(each(lambda finish, part: finish(*part), finishes, parts))
    rows = [row for result in results for row in result.pop("history")]
    history = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(history, rows, strict=True):
        line[: len(row)] = row
    numbers = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    displacement, strain, stress = fields
    return Solution(strain, constants.physics.components, stress, displacement, history=history, **numbers)
