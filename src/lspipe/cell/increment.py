"""The equilibrium of one cell with inelastic materials: internal forces, tangent, states at the integration points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.inelastic import Inelastic
from lspipe.cell.kernels import STRIP
from lspipe.cell.medium import TRIANGLE
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
    """

    def __init__(self, op: NumbaOperator, phase: NDArray[np.integer], materials: Sequence[Any]) -> None:
        c, self.op = op.constants, op
        self.volume, self.voxels = c.volume * phase.size, op.voxels(phase[None])
        inelastic = [m if isinstance(m, Inelastic) else None for m in materials]
        occurring = {m.law: None for m in (inelastic[p] for p in np.unique(phase)) if m}  # in order
        self.laws = [*occurring] or [m.law for m in inelastic if m][:1]
        # The last phase is that of nodes that start no voxel.
        self.number = np.array([self.laws.index(m.law) if m and m.law in self.laws else -1 for m in inelastic] + [-1])
        self.C = np.pad(c.C, ((0, 1), (0, 0), (0, 0)))
        self.parameters = np.zeros((len(self.C), max(len(m.parameters) if m else 0 for m in inelastic)))
        for row, m in zip(self.parameters, inelastic, strict=False):
            row[: len(m.parameters) if m else 0] = m.parameters if m else ()
        has_state = self.number[self.voxels] >= 0
        self.slots = np.where(has_state, np.cumsum(has_state) - 1, 0)
        points = len(c.element.B)
        self.states = np.zeros((points, max(has_state.sum(), 1), max(m.states if m else 0 for m in inelastic)))
        self.new = self.states.copy()
        self.stresses = np.zeros((6, len(self.voxels)))
        self.compliance = np.zeros((6, 6))
        self.occurring = np.unique(phase)
        self.is_void = ~c.C.any(axis=(1, 2))[phase]
        self.least = np.stack(
            [C if m is None else m.least_stiffness / c.modulus for m, C in zip(inelastic, c.C, strict=True)]
        )
        nodes = math.prod(op.shape[1:]) // op.shape[1] * c.grid[0]
        strips = -(-nodes // STRIP)
        phases = np.pad(self.voxels[: strips * STRIP], (0, max(strips * STRIP - len(self.voxels), 0)), mode="edge")
        triangles = self.C[(slice(None), *np.triu_indices(6))].astype(c.working_precision)
        self.tangent = np.empty((strips, points, TRIANGLE, STRIP), c.working_precision)
        self.tangent[:] = triangles[phases].reshape(strips, 1, STRIP, TRIANGLE).swapaxes(2, 3)
        self.points = np.empty((strips, 6 * points, STRIP))
        self.maps = {
            dtype: (
                sparse(np.concatenate(c.modal_strains), dtype),
                sparse(c.volume / points * np.concatenate(c.modal_strains).T, dtype),
                op.carriers,
            )
            for dtype in (np.dtype(np.float64), np.dtype(c.working_precision))
        }
        rows = 6 * points
        self.buffers = {
            dtype: (
                np.empty(STRIP, dtype),
                *(np.empty(n * STRIP, dtype) for n in (24, 24, rows)),
                np.ones(STRIP, dtype),
                np.empty((len(self.C), 0), dtype),
            )
            for dtype in self.maps
        }

    def evaluate(self, x: Vector, out: Vector) -> Vector:
        """Write the internal forces at x to ``out``: nodal forces and the integral of the stress.

        Sets the tangent, the new states and the stresses.
        """
        double, grid, moments = np.dtype(np.float64), self.op.constants.grid, np.empty(24)
        (strains, forces, carriers), buffers = self.maps[double], self.buffers[double]
        load_points(self.voxels, grid, strains, x.nodal, self.op.offset(x), self.points, buffers)
        phases = self.number, self.C, self.parameters, self.op.constants.modulus, self.slots
        for number, law in enumerate(self.laws):
            compile_law(law)(number, self.voxels, *phases, self.states, self.new, self.points, self.tangent)
        unload_points(self.voxels, grid, forces, carriers, self.points, self.stresses, out.nodal, moments, buffers)
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
        return abs(self.op.inner(self.op.apply_green(r, self.compliance, out), r))

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
        means = self.states.mean(axis=0)[self.slots] * (self.number[self.voxels] >= 0)[:, None]
        return self.on_grid(means.T)
