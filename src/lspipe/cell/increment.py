"""The equilibrium of one cell with inelastic materials: internal forces, tangent, states at the integration points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.batch import ROUNDING
from lspipe.cell.inelastic import Inelastic
from lspipe.cell.kernels import STRIP, WIDTH
from lspipe.cell.medium import TRIANGLE, coercivity
from lspipe.cell.numbers import Array
from lspipe.cell.operator import Vector
from lspipe.cell.operator_numba import NumbaOperator, sparse
from lspipe.cell.points import apply_tangent, compile_loop, load_points, unload_points

compile_law = lru_cache(compile_loop)


class Cell:
    """A cell and its committed states. It has the interface of ``System``, with the tangent as the stiffness.

    Attributes:
        op: Engine for the elastic materials.
        volume: Volume of the cell.
        voxels: Phases in the form of the engine.
        states: States at the points at the start of the step, (points, voxels with a law, states).
        new: States at the end of the step.
        stresses: Voxel means of the stress that ``evaluate`` found, (6, nodes of the planes 0 … nx − 1).
        compliance: K⁰⁻¹ for the mean part of a vector; see ``System``.
        alpha: Largest number such that no tangent of the cell falls below α C⁰.
        is_void: Voxels without stiffness, (nx, ny, nz).
    """

    def __init__(self, op: NumbaOperator, phase: NDArray[np.integer], materials: Sequence[Any]) -> None:
        c, self.op = op.constants, op
        self.volume, self.voxels = c.volume * phase.size, op.voxels(phase[None])
        self.is_void = (c.C == 0).all(axis=(1, 2))[phase]
        least = [
            m.least_stiffness / c.modulus if isinstance(m, Inelastic) else C
            for m, C in zip(materials, c.C, strict=True)
        ]
        alpha = coercivity(np.stack(least), c.C0)[np.unique(phase)].min()
        self.alpha = alpha if alpha > ROUNDING else 0.0

        # The last phase is that of nodes that start no voxel.
        inelastic = {p: m for p, m in enumerate(materials) if isinstance(m, Inelastic)}
        self.laws = [*dict.fromkeys(m.law for m in inelastic.values())]
        self.sizes = {m.law: (m.states, len(m.parameters)) for m in inelastic.values()}
        self.number = np.full(len(materials) + 1, -1)
        self.parameters = np.zeros((len(materials) + 1, max(len(m.parameters) for m in inelastic.values())))
        for p, m in inelastic.items():
            self.number[p] = self.laws.index(m.law)
            self.parameters[p, : len(m.parameters)] = m.parameters
        self.C = np.pad(c.C, ((0, 1), (0, 0), (0, 0)))

        has_state, points = self.number[self.voxels] >= 0, len(c.element.B)
        self.slots = np.cumsum(has_state) - 1
        self.states = np.zeros((points, has_state.sum(), max(m.states for m in inelastic.values())))
        self.new = self.states.copy()
        self.stresses = np.zeros((6, len(self.voxels)))
        self.compliance = np.zeros((6, 6))
        starts = range(0, c.grid[0] * (c.grid[1] + 1) * (c.grid[2] + 1), WIDTH)
        self.points = np.empty((len(starts), 6 * points, STRIP))
        self.tangent = np.zeros((len(starts), points, TRIANGLE, STRIP), c.working_precision)
        i, j = np.triu_indices(6)
        for start, block in zip(starts, self.tangent, strict=True):
            elastic = self.C[self.voxels[start : start + WIDTH], i[:, None], j[:, None]]
            block[..., : elastic.shape[1]] = elastic
        self.maps = {
            dtype: (
                sparse(np.concatenate(c.modal_strains), dtype),
                sparse(c.volume / points * np.concatenate(c.modal_strains).T, dtype),
            )
            for dtype in (np.dtype(np.float64), np.dtype(c.working_precision))
        }
        self.buffers = {
            dtype: (
                np.zeros(STRIP, dtype),
                *(np.zeros(rows * STRIP, dtype) for rows in (24, 24, 6 * points)),
                np.ones(STRIP, dtype),
                np.empty((len(self.C), 0), dtype),  # no weights
            )
            for dtype in self.maps
        }

    def evaluate(self, x: Vector, out: Vector) -> Vector:
        """Write the internal forces at x to ``out``: nodal forces and the integral of the stress.

        Sets the tangent, the new states and the stresses.
        """
        double, grid, moments = np.dtype(np.float64), self.op.constants.grid, np.empty(24)
        (strains, forces), buffers = self.maps[double], self.buffers[double]
        load_points(self.voxels, grid, strains, x.nodal, self.op.offset(x), self.points, buffers)
        phases = self.number, self.C, self.parameters, self.op.constants.modulus, self.slots
        for number, law in enumerate(self.laws):
            compile_law(law)(
                number, self.sizes[law], self.voxels, *phases, self.states, self.new, self.points, self.tangent
            )
        unload_points(self.voxels, grid, forces, self.points, self.stresses, out.nodal, moments, buffers)
        out.mean[0] = moments @ self.op.constants.modal_uniform
        return out

    def commit(self) -> None:
        """Make the new states those at the start of the next step."""
        self.states, self.new = self.new, self.states

    def apply_stiffness(self, x: Vector, out: Vector) -> Vector:
        """Write the tangent times x to ``out``."""
        dtype, moments = x.nodal.dtype, np.empty(24)
        at = (*self.maps[dtype], x.nodal, self.op.offset(x))
        grid, buffers = self.op.constants.grid, self.buffers[dtype]
        apply_tangent(self.voxels, grid, self.tangent, *at, out.nodal, moments, buffers)
        out.mean[0] = moments @ self.op.constants.modal_uniform
        return out

    def apply_green(self, r: Vector, out: Vector) -> Any:
        """Write K⁰⁻¹ r to ``out`` and return r·K⁰⁻¹r, (1,)."""
        return abs(self.op.apply_green(r, self.compliance, out))

    @property
    def stress_norm(self) -> float:
        """Squared energy norm ∫ σ:C⁰⁻¹:σ of the voxel means of the stress."""
        compliance = np.linalg.inv(self.op.constants.C0)
        return self.op.constants.volume * float((compliance * (self.stresses @ self.stresses.T)).sum())

    @property
    def mean_stress(self) -> Array:
        """Macroscopic stress (6,)."""
        return self.on_grid(self.stresses).mean(axis=(1, 2, 3))

    def on_grid(self, values: Array) -> Array:
        """Return values (…, nodes of the planes 0 … nx − 1) at the voxels, (…, nx, ny, nz)."""
        nx, ny, nz = self.op.constants.grid
        planes = nx * (ny + 1) * (nz + 1)
        return values[..., :planes].reshape(*values.shape[:-1], nx, ny + 1, nz + 1)[..., :-1, :-1]

    @property
    def state_means(self) -> Array:
        """Voxel means of the committed states, (states, nx, ny, nz); 0 where a material has none."""
        has_state = self.number[self.voxels] >= 0
        means = np.zeros((self.states.shape[2], len(self.voxels)))
        means[:, has_state] = self.states.mean(axis=0).T
        return self.on_grid(means)
