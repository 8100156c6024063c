"""Conjugate gradients with the Green operator as preconditioner, in two precisions.

The iteration runs in single precision on a correction of x. When the correction has reduced the residual by REDUCTION,
or to the tolerance, it is added to x, and the residual is computed again in double precision. The search direction is
kept, so that the new correction loses little of the conjugacy. The last residual is always one in double precision.
Only K⁰⁻¹ has the precision of the iteration everywhere, because the norm of a residual needs few digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lspipe.cell.operator import Array, Operator, Vector

REDUCTION = 1e-4  # Reduction of the residual by one correction. Single precision resolves a little more.
DIVERGED = 1e6  # The cell cannot carry the load when the residual exceeds that of the start by this factor.


class State(NamedTuple):
    """The state of an iteration on N cells side by side; per-cell values have shape (N,).

    Attributes:
        x: Displacement and macroscopic strain.
        r: Residual f − K x.
        z: K⁰⁻¹ r, in the precision of the iteration.
        rho: r·z, the squared energy norm of the residual.
        iterations: Number of iterations.
        green: Number of applications of K⁰⁻¹.
        history: rho at the start and after each iteration; NaN for a cell that waited while others iterated.
    """

    x: Vector
    r: Vector
    z: Vector
    rho: Any
    iterations: Any
    green: Any
    history: list[Any]


@dataclass(frozen=True)
class System:
    """The equations K x = f of N cells side by side.

    Attributes:
        op: Engine that applies K and K⁰⁻¹.
        voxels: Phases of the cells in the form of the engine.
        load: f.
        compliance: K⁰⁻¹ for the mean part of a vector, (strains, strains); 0 where the strain is prescribed.
    """

    op: Operator
    voxels: Any
    load: Vector
    compliance: Array

    def apply_stiffness(self, x: Vector, out: Vector) -> Vector:
        """Write K x to ``out``."""
        return self.op.apply_stiffness(self.voxels, x, out)

    def apply_green(self, r: Vector, out: Vector) -> Any:
        """Write K⁰⁻¹ r to ``out`` and return r·K⁰⁻¹r, (N,)."""
        return abs(self.op.apply_green(r, self.compliance, out))

    def residual(self, x: Vector, out: Vector) -> Vector:
        """Write f − K x to ``out``."""
        return self.op.axpby(1, self.load, -1, self.apply_stiffness(x, out))

    def start(self, x: Vector, r: Vector, z: Vector, iterations: Any, green: Any) -> State:
        """Return the state at ``x`` after earlier iterations and applications of K⁰⁻¹; overwrites ``r`` and ``z``."""
        rho = self.apply_green(self.residual(x, r), z)
        none = self.op.xp.zeros_like(rho)
        return State(x, r, z, rho, none + iterations, none + green + 1, [rho])


def descend(
    system: System, rho: Any, beta: Any, r: Vector, z: Vector, p: Vector, Kp: Vector, x: Vector, active: Any
) -> None:
    """Do one step along p ← z + β p, which minimizes the energy of x, in the cells ``active``; updates r and x."""
    op, xp = system.op, system.op.xp
    op.axpby(1.0 * active, z, xp.where(active, beta, 1), p)
    system.apply_stiffness(p, Kp)
    curvature = op.inner(p, Kp)
    curvature = xp.where(curvature > 0, curvature, math.nan)  # The cell cannot carry the load if it is 0.
    step = xp.where(active, rho / curvature, 0)
    op.axpby(step, p, 1, x)
    op.axpby(-step, Kp, 1, r)


def conjugate_gradients(
    system: System, start: State, target: Any, counts: Sequence[int]
) -> Iterator[Callable[[], State]]:
    """Iterate until a cell has rho ≤ ``target``, has diverged, or has done the last of ``counts`` iterations.

    Args:
        system: Equations of N cells.
        start: State to begin from. The iteration overwrites its vectors.
        target: Values of rho to reach, (N,).
        counts: Numbers of iterations to stop at, in ascending order.

    Yields:
        For each of ``counts`` a function that returns the state there. The function overwrites r and z of ``start`` and
        must be called before the iteration is resumed.
    """
    op, xp = system.op, system.op.xp
    x, r, z, rho, iterations, green, history = start
    rs, zs, p, Kp, dx = (op.empty(len(x.mean), op.constants.working_precision) for _ in range(5))
    beta, scale = xp.zeros_like(rho), xp.zeros_like(rho)
    stops, limit = list(counts), DIVERGED**2 * rho
    spare = op.empty(len(x.mean), np.float64) if len(stops) > 1 else x

    def exceeds(goal: Any) -> Any:
        return (rho > goal) & (rho <= limit) & (iterations < stops[0])

    def stop_now() -> State:
        """Return the state in which the correction so far is added to x."""
        y = op.axpby(scale, dx, 1, op.axpby(1, x, 0, spare))
        end = system.start(y, r, z, iterations, green - 1 + 1.0 * unsolved)
        return end._replace(history=[*history, xp.where(active, end.rho, math.nan)])

    while stops:
        while (unsolved := exceeds(target)).any():
            goal = xp.where(unsolved, xp.maximum(REDUCTION**2 * rho, target), math.inf)
            # Units in which r·z = 1 keep single precision far from overflow and underflow.
            before, scale = scale, xp.where(unsolved, rho, 1) ** 0.5
            op.axpby(0, p, before / scale, p)
            op.scale(1 / scale, r, rs)
            op.scale(1 / scale, z, zs)
            op.scale(0, zs, dx)
            while (active := exceeds(goal)).any():
                descend(system, rho / scale**2, beta, rs, zs, p, Kp, dx, active)
                iterations = iterations + 1.0 * active
                if not (last := active & (iterations < stops[0])).any():
                    # Cells that wait for a new correction have not reached this count yet.
                    if len(stops) == 1 or exceeds(target).any():
                        break
                    yield stop_now
                    del stops[0]
                previous, rho = rho, xp.where(active, scale**2 * system.apply_green(rs, zs), rho)
                beta = xp.where(active, rho / previous, beta)
                green = green + 1.0 * active
                history.append(xp.where(active, rho, math.nan))
            op.axpby(scale, dx, 1, x)
            previous, rho = rho, system.apply_green(system.residual(x, r), z)
            green = green + 1.0 * unsolved
            if not last.any():
                beta = xp.where(active, rho / previous, beta)
                history.append(xp.where(active, rho, math.nan))
        yield partial(State, x, r, z, rho, iterations, green, [*history])
        del stops[0]
