"""Conjugate gradients with the Green operator as preconditioner, in two precisions.

The iteration runs in single precision on a correction of x. When it has reduced the residual by REDUCTION, or to
the tolerance, the correction joins x and the residual is computed anew in double precision; the direction is
kept, so that little of the conjugacy is lost. It ends on a residual in double precision only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lspipe.cell.operator import Array, Operator, Vector

REDUCTION = 1e-4  # single precision is good for a little more
DIVERGED = 1e6  # times the residual of the start: a load that the cell cannot carry


@dataclass(frozen=True)
class System:
    """K x = f of N cells side by side. ``compliance``: (strains, strains), K⁰⁻¹ for the mean parts."""

    op: Operator
    voxels: Any
    load: Vector
    compliance: Array

    def stiffness(self, x: Vector, out: Vector) -> Vector:
        return self.op.stiffness(self.voxels, x, out)

    def green(self, r: Vector, out: Vector) -> Any:
        """out ← K⁰⁻¹ r; returns r·K⁰⁻¹r (N,)."""
        return abs(self.op.inner(self.op.green(r, self.compliance, out), r))

    def unbalanced(self, x: Vector, r: Vector) -> Vector:
        """r ← f − K x."""
        return self.op.axpby(1, self.load, -1, self.stiffness(x, r))

    def residual(self, x: Vector, r: Vector, z: Vector) -> Any:
        """r ← f − K x, z ← K⁰⁻¹ r; returns r·z (N,)."""
        return self.green(self.unbalanced(x, r), z)


class State(NamedTuple):
    """Where the iteration stands: ``x``, r·K⁰⁻¹r, the numbers of iterations and of Green applications (N,), and
    r·K⁰⁻¹r after each iteration, the start first, with NaN for the cells that waited for others. The residual itself is
    in the vector ``r`` that the iteration was given."""

    x: Vector
    rho: Any
    iterations: Any
    green: Any
    history: list[Any]


def conjugate_gradients(
    system: System, x: Vector, r: Vector, z: Vector, rho: Any, target: Any, counts: Sequence[int]
) -> Iterator[Callable[[], State]]:
    """Solves for x from a start with residual r, z and rho = r·z (all of them updated), each cell until
    rho ≤ target, until it has diverged, or until the last of ``counts`` iterations, which ascend.

    Yields for each count a function that returns the State of the iteration stopped there. Call it before the iteration
    goes on: it overwrites r and z, and no other part of the iteration.
    """
    op, xp = system.op, system.op.xp
    rs, zs, p, Kp, dx = (op.empty(len(rho), op.constants.working_precision) for _ in range(5))
    iterations, green, beta, scale = (xp.zeros_like(rho) for _ in range(4))
    stops, history, limit = list(counts), [rho], DIVERGED**2 * rho
    spare = op.empty(len(rho), np.float64) if len(stops) > 1 else x

    def above(goal: Any) -> Any:
        return (rho > goal) & (rho <= limit) & (iterations < stops[0])

    def stopped() -> State:
        """As if the correction ended here."""
        y = op.axpby(scale, dx, 1, op.axpby(1, x, 0, spare))
        end = system.residual(y, r, z)
        return State(y, end, iterations, green + 1.0 * unsolved, [*history, xp.where(active, end, math.nan)])

    while stops:
        while (unsolved := above(target)).any():
            goal = xp.where(unsolved, xp.maximum(REDUCTION**2 * rho, target), math.inf)
            # In units in which r·z = 1: far from the ends of single precision, whatever the user's units.
            before, scale = scale, xp.where(unsolved, rho, 1) ** 0.5
            op.axpby(0, p, before / scale, p)
            op.scale(1 / scale, r, rs)
            op.scale(1 / scale, z, zs)
            op.scale(0, zs, dx)
            while (active := above(goal)).any():
                op.axpby(1.0 * active, zs, xp.where(active, beta, 1), p)
                system.stiffness(p, Kp)
                curvature = op.inner(p, Kp)
                curvature = xp.where(curvature > 0, curvature, math.nan)  # 0: a load that the cell cannot carry
                step = xp.where(active, rho / scale**2 / curvature, 0)
                op.axpby(step, p, 1, dx)
                op.axpby(-step, Kp, 1, rs)
                iterations = iterations + 1.0 * active
                if not (last := active & (iterations < stops[0])).any():
                    # Cells that wait for a new correction have yet to come to this count.
                    if len(stops) == 1 or above(target).any():
                        break
                    yield stopped
                    del stops[0]
                previous, rho = rho, xp.where(active, scale**2 * system.green(rs, zs), rho)
                beta = xp.where(active, rho / previous, beta)
                green = green + 1.0 * active
                history.append(xp.where(active, rho, math.nan))
            op.axpby(scale, dx, 1, x)
            previous, rho = rho, system.residual(x, r, z)
            green = green + 1.0 * unsolved
            if not last.any():
                beta = xp.where(active, rho / previous, beta)
                history.append(xp.where(active, rho, math.nan))
        yield partial(State, x, rho, iterations, green, [*history])
        del stops[0]
