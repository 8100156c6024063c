"""Newton's method for one load step of one cell, with conjugate gradients for its linear systems.

The step has an energy that is convex where the tangent is positive definite. The internal forces F are its gradient. A
direction d solves K_t d = r, with the residual r = f − F and the consistent tangent K_t, to a precision that follows
from the progress of the outer iteration (Eisenstat & Walker 1996). The step along d is shortened until d·r, the slope
of the energy, has become small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lspipe.cell.batch import ROUNDING
from lspipe.cell.increment import Cell
from lspipe.cell.operator import Vector

MAX_ITERATIONS = 25  # Largest number of Newton iterations. The step is cut when they do not suffice.
MAX_INNER = 300  # largest number of iterations for one direction
FIRST, LOOSEST, TIGHTEST = 0.01, 0.1, 1e-4  # relative residuals of the linear systems
SLOPE = 0.5  # Largest slope of the energy at the end of a step along a direction, relative to the slope at its start.
LENGTHS = 5  # largest number of lengths that are tried for one step


class Outcome(NamedTuple):
    """The end of Newton's method.

    Attributes:
        converged: Whether the residual reached the tolerance.
        history: Relative residual at the start and after each iteration.
        inner: Number of iterations of conjugate gradients.
        norm: Energy norm of the last residual.
    """

    converged: bool
    history: list[float]
    inner: int
    norm: float


def solve_step(cell: Cell, x: Vector, load: Vector, tol: float, scale: float) -> Outcome:
    """Iterate ``x`` until its internal forces balance ``load``.

    Args:
        cell: Cell at the start of the step. At the end, its new states are those of ``x``.
        x: Displacement and macroscopic strain to start from; overwritten with the result.
        load: External forces, which are V times the prescribed stress, without nodal forces.
        tol: Residual to reach, relative to the norm of the stress.
        scale: Squared norm of the largest stress so far.
    """
    op = cell.op
    r, d = (op.empty(1, np.float64) for _ in range(2))
    z, *vectors = (op.empty(1, op.constants.working_precision) for _ in range(6))

    def residual() -> float:
        op.axpby(1, load, -1, cell.evaluate(x, r))
        return float(cell.apply_green(r, z))

    history: list[float] = []
    inner, forcing, rho = 0, FIRST, residual()
    while True:
        largest = max(scale, cell.stress_norm)
        history.append(float(np.sqrt(rho / largest)) if largest else 0.0)
        target = max(tol, ROUNDING) ** 2 * largest
        converged = rho <= target
        if converged or len(history) > MAX_ITERATIONS or not np.isfinite(rho):
            return Outcome(converged, history, inner, rho**0.5)
        accuracy = max(forcing, TIGHTEST, 0.5 * np.sqrt(target / rho))
        inner += find_direction(cell, r, z, rho, accuracy, vectors, d)
        start, slope = rho, float(op.inner(d, r))
        if not slope > 0:  # the tangent is not positive definite
            return Outcome(False, history, inner, rho**0.5)
        taken, length = 0.0, 1.0
        for _ in range(LENGTHS):
            op.axpby(length - taken, d, 1, x)
            rho, taken = residual(), length
            end = float(op.inner(d, r))
            if abs(end) <= SLOPE * slope:
                break
            length = min(length * slope / max(slope - end, slope / 1000), 2.0)
        forcing = min(LOOSEST, 0.9 * rho / start)


def find_direction(
    cell: Cell, r: Vector, z: Vector, rho: float, accuracy: float, vectors: list[Vector], d: Vector
) -> int:
    """Solve K_t d = r by conjugate gradients to a relative residual, and return the number of iterations.

    Where the tangent is not positive definite along a direction p, d is the solution so far, which reduces the energy.
    The iteration runs in units in which r·K⁰⁻¹r = 1, which keeps single precision far from overflow and underflow.
    """
    op = cell.op
    rs, zs, p, Kp, ds = vectors
    op.scale(rho**-0.5, r, rs)
    op.scale(rho**-0.5, z, zs)
    op.scale(0, zs, ds)
    op.scale(0, zs, p)
    square, beta, count = 1.0, 0.0, 0
    while square > accuracy**2 and count < MAX_INNER:
        op.axpby(1, zs, beta, p)
        curvature = float(op.inner(p, cell.apply_stiffness(p, Kp)))
        if not curvature > 0:
            break
        op.axpby(square / curvature, p, 1, ds)
        op.axpby(-square / curvature, Kp, 1, rs)
        previous, square = square, float(cell.apply_green(rs, zs))
        beta = square / previous
        count += 1
    op.scale(rho**0.5, ds, d)
    return count
