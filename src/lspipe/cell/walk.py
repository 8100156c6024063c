"""A cell on its way along a load path: extrapolated starts, and steps that are cut where the iteration fails."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.batch import restricted_inverse
from lspipe.cell.increment import Cell
from lspipe.cell.newton import Outcome, solve_step
from lspipe.cell.numbers import Array

SMALLEST = 2.0**-6  # smallest part of a step that is tried
STRAIGHT = 1e-3  # relative deviation from the last direction up to which a load goes on in it


class Walk:
    """The last equilibrium of a cell.

    Attributes:
        cell: Cell with the states of the equilibrium.
        x: Displacement and macroscopic strain.
        stress: Macroscopic stress (6,), in the unit of the cell.
        changes: The last two changes of x.
        loads: The changes of the prescribed strains and stresses at the same times, (12,).
    """

    def __init__(self, cell: Cell, tol: float) -> None:
        self.cell, self.tol = cell, tol
        self.x, *self.changes = (cell.op.empty(1, np.float64) for _ in range(3))
        self.stress, self.loads, self.largest = np.zeros(6), [np.zeros(12)] * 2, 0.0

    @property
    def end(self) -> dict[str, Any]:
        """All numbers that a walk needs to go on from here; see ``PathEnd``."""
        vectors = np.stack([vector.nodal for vector in (self.x, *self.changes)])
        numbers = {"stress": self.stress, "loads": np.stack(self.loads), "largest": self.largest}
        return {"vectors": vectors, "states": self.cell.states, **numbers}

    def go_on_from(self, end: dict[str, Any]) -> None:
        """Return to the end of another walk of the same cell."""
        for vector, values in zip((self.x, *self.changes), end["vectors"], strict=True):
            vector.nodal[:] = values  # The mean is a part of it.
        self.cell.states[:] = end["states"]
        self.stress, self.loads, self.largest = end["stress"], [*end["loads"]], float(end["largest"])

    def advance(self, E: Array, S: Array, free: NDArray[np.bool_]) -> list[Outcome]:
        """Proceed to a macroscopic strain with engineering shear, and the stress where the strain is ``free``.

        Returns:
            The outcomes of all attempts. The last one has not converged if the step fails.
        """
        self.cell.compliance = restricted_inverse(self.cell.volume * self.cell.op.constants.C0, free)
        E0, S0, done, part = self.x.mean[0], self.stress, 0.0, 1.0
        outcomes = []
        while done < 1:
            to = done + part
            outcome = self._attempt(E0 + to * (E - E0), S0 + to * (S - S0), free)
            outcomes.append(outcome)
            if outcome.converged:
                done, part = to, min(2 * part, 1 - to)
            elif part <= SMALLEST:
                break
            else:
                part /= 2
        return outcomes

    def _attempt(self, E: Array, S: Array, free: NDArray[np.bool_]) -> Outcome:
        """Solve for a load, and make its solution the last equilibrium if the iteration converges."""
        op = self.cell.op
        load, y = (op.empty(1, np.float64) for _ in range(2))
        load.mean[0, free] = self.cell.volume * S[free]
        change = np.concatenate([(E - self.x.mean[0]) * ~free, (S - self.stress) * free])
        op.axpby(1, self.x, 0, y)
        ratio = find_ratio(change, self.loads[-1])
        op.axpby(ratio, self.changes[-1], 1, y)
        if previous := find_ratio(self.loads[-2], self.loads[-1]):
            bend = ratio * (ratio + 1) / (1 + previous)
            op.axpby(bend, self.changes[-1], 1, y)
            op.axpby(-bend / previous, self.changes[-2], 1, y)
        y.mean[0, ~free] = E[~free]
        with np.errstate(over="ignore", invalid="ignore"):  # A load that the cell cannot carry may overflow.
            outcome = solve_step(self.cell, y, load, self.tol, self.largest)
        if outcome.converged:
            self.cell.commit()
            self.loads = [self.loads[-1], change]
            self.changes = [self.changes[-1], op.axpby(-1, self.x, 1, op.axpby(1, y, 0, self.changes[-2]))]
            self.x, self.stress = y, self.cell.mean_stress
            self.largest = max(self.largest, self.cell.stress_norm)
        return outcome


def find_ratio(change: Array, last: Array) -> float:
    """Return the factor by which a change of the load is a multiple of the change before.

    It is 0 where the two point in different directions, or where one of them is 0. The start is then not extrapolated.
    """
    ratio = float(change @ last) / max(float(last @ last), 1e-300)
    return ratio if ratio > 0 and np.abs(change - ratio * last).max() <= STRAIGHT * np.abs(change).max() else 0.0
