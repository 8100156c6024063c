"""The solution of one batch of cells: initial state, limits of the residual, iteration and certificate.

The terms are those of docs/theory.md:

- the initial state: the displacement and the macroscopic strain at which the iteration starts,
- the limits: the sizes of the load and of rounding, with which the residual is compared,
- the certificate: the bound on the error of the state at which the iteration stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.conjugate_gradients import State, System, conjugate_gradients
from lspipe.cell.numbers import Array
from lspipe.cell.operator import Operator, Vector
from lspipe.cell.problem import volume_fractions

# A start function takes a system, its phases (N, nx, ny, nz), the macroscopic strain to begin at (N, strains), and the
# r·K⁰⁻¹r (N,) to reach. It yields a displacement (N, 3, nx, ny, nz), the macroscopic strain with it, and the number
# (N,) of applications of K⁰⁻¹ so far, which count as iterations. ``solve`` takes the first of these states, and
# ``iterates`` one for each count. All values have the units of the system.
Start = Callable[[System, NDArray[np.integer], Array, Array], Iterator[tuple[Array, Array, NDArray[np.int64]]]]
Finish = Callable[[Array, Array, Array], dict[str, Any]]  # writes displacement, strain, stress; returns numbers
ROUNDING = 1e-13  # A residual that is smaller, relative to the stress of the load, is rounding.


@dataclass(frozen=True)
class Batch:
    """Cells that an engine solves side by side, in units in which lengths, moduli and load are about 1.

    Attributes:
        op: Engine for the materials, the grid and the element.
        phase: (N, nx, ny, nz).
        strain: Prescribed macroscopic strain E with engineering shear, (strains,); 0 where it is free.
        stress: Prescribed macroscopic stress Σ, (strains,); 0 where the strain is prescribed.
        free: Whether each component of the strain is free, (strains,).
        eigenstress: Stress that the free expansion of each phase takes away, (phases, strains).
        tol: Tolerance of the relative residual.
        start: Displacement (N, d, nx, ny, nz) or function to begin with, or None.
        units: Units of displacement, strain with tensor shear, and stress.
    """

    op: Operator
    phase: NDArray[np.integer]
    strain: Array
    stress: Array
    free: NDArray[np.bool_]
    eigenstress: Array
    tol: float
    start: Array | Start | None
    units: tuple[Any, Any, Any]

    @property
    def volume(self) -> float:
        """Volume of a cell."""
        return self.op.constants.volume * self.phase[0].size

    @cached_property
    def fractions(self) -> Array:
        return volume_fractions(self.phase, len(self.op.constants.C))


def solve_batch(batch: Batch, counts: Sequence[int] | None) -> Iterator[Finish]:
    """Solve the equations of a batch.

    Args:
        batch: The cells and their load.
        counts: Numbers of iterations to stop at, in ascending order. None takes the states of the start function as
            they are, without iterations.

    Yields:
        For each count or state, a function that writes the fields to arrays (N, …) and returns the other attributes of
        Solution. It must be called before the next one is requested.
    """
    op, shape = batch.op, (len(batch.phase), 1)
    system = build_system(batch)
    r, z = (op.empty(len(batch.phase), dtype) for dtype in (np.float64, op.constants.working_precision))
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


def build_system(batch: Batch) -> System:
    """Return the equations of a batch."""
    op, shape = batch.op, (len(batch.phase), 1)
    voxels, load = op.voxels(batch.phase), op.vector(None, np.tile(batch.volume * batch.stress, shape))
    if batch.eigenstress.any():
        op.axpby(1, op.integrate_stress(voxels, batch.eigenstress, op.empty(len(batch.phase), np.float64)), 1, load)
    return System(op, voxels, load, restricted_inverse(batch.volume * op.constants.C0, batch.free))


def find_strain(batch: Batch, system: System, u: Array | None, out: Vector) -> Array:
    """Return the macroscopic strain (N, strains) to begin at with a displacement; overwrites ``out``.

    The free strains have the least energy that the displacement leaves them.
    """
    mean = np.tile(batch.strain, (len(batch.phase), 1))
    if batch.free.any():
        r = system.residual(batch.op.vector(u, mean), out)
        stiffness = batch.volume * np.tensordot(batch.fractions, batch.op.constants.C, 1)
        mean += np.einsum("nij,nj->ni", restricted_inverse(stiffness, batch.free), batch.op.numpy(r.mean))
    return mean


def _initial_states(batch: Batch, system: System, limits: Limits, unloaded: State) -> Iterator[Callable[[], State]]:
    """Yield functions that compute the states to iterate from: one, or one for each state of a start function.

    ``unloaded`` is the state of the displacement 0 and free strains 0. Its vectors are overwritten.
    """
    op, start = batch.op, batch.start
    if start is None and not batch.free.any():
        yield lambda: unloaded
        return
    mean = find_strain(batch, system, None if callable(start) else start, unloaded.r)
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
        load: Norm of the residual at u = 0 and free strains 0, which is the norm of the load.
        rounding: Norm below which a residual is rounding.
        tol: Tolerance of the norm relative to the load.
    """

    load: Array
    rounding: Array
    tol: float

    def reference(self, start: Array) -> Array:
        """Return the norm that a residual is divided by: that of the load, or without a load the initial ``start``."""
        reference = np.where(self.load > self.rounding, self.load, start)
        return np.where(reference > 0, reference, 1)

    def target(self, start: Array) -> Array:
        """Return the norm that the iteration has to reach from the initial residual ``start``."""
        return np.maximum(self.tol**2 * self.reference(start), self.rounding)


def _limits(batch: Batch, load: Array) -> Limits:
    """Compute the sizes of the load and of the rounding of the stress C(x):E and of the eigenstress."""
    constants = batch.op.constants
    stresses = np.stack([constants.C @ batch.strain, batch.eigenstress])
    energy = np.einsum("api,ij,apj->p", stresses, np.linalg.inv(constants.C0), stresses)
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
    """Write the fields in the user's units, and return the certificate."""
    state = compute_state()
    batch.op.write_fields(system.voxels, state.x, displacement, strain, stress)
    if batch.eigenstress.any():
        stress -= np.moveaxis(batch.eigenstress[batch.phase], -1, 1)
    displacement -= displacement.mean(axis=(2, 3, 4), keepdims=True)
    for field, size in zip((displacement, strain, stress), batch.units, strict=True):
        field *= size
    if (void := batch.op.constants.alpha == 0).any():
        strain.swapaxes(0, 1)[:, void[batch.phase]] = np.nan
    mean = batch.op.numpy(state.x.mean) * batch.units[1].ravel()
    return {"mean_strain": mean, **_certificate(batch, system, limits, state)}


def _certificate(batch: Batch, system: System, limits: Limits, state: State) -> dict[str, Any]:
    """Return the residual of a state, the bound on its error, and the numbers of iterations; attributes of Solution."""
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


def restricted_inverse(matrix: Array, free: NDArray[np.bool_]) -> Array:
    """Invert (…, n, n) on the components ``free``; the other entries are 0."""
    if not free.any():
        return np.zeros_like(matrix)
    return np.linalg.pinv(np.where(np.outer(free, free), matrix, 0.0), hermitian=True)  # A void has no inverse.
