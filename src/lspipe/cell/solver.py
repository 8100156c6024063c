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

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import (
    check_device,
    check_iteration,
    check_load,
    check_materials,
    check_phase,
    check_spacing,
    check_start,
)
from lspipe.cell.blas import one_blas_thread
from lspipe.cell.conjugate_gradients import System, conjugate_gradients
from lspipe.cell.material import Material
from lspipe.cell.operator import Operator, operator

Array = NDArray[np.float64]
# Of a system, its phases (N, nx, ny, nz), the strain to begin at (N, strains), and the r·K⁰⁻¹r (N,) to come down to: a
# displacement (N, 3, nx, ny, nz), the strain with it, and the numbers (N,) of Green applications that both took, which
# count as iterations.
Start = Callable[[System, NDArray[np.uint16], Array, Array], tuple[Array, Array, NDArray[np.int64]]]
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
    materials: Sequence[Material],
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
    materials = check_materials(materials)
    phase = check_phase(phase, len(materials))
    physics = materials[0].physics
    E, S, free = check_load(physics, strain, stress)
    h = check_spacing(spacing)
    check_iteration(scheme, tol, max_iterations)
    check_device(device)
    u0 = start if start is None or callable(start) else check_start(start, (len(phase), physics.d, *phase.shape[1:]))

    op = operator(materials, phase.shape[1:], h, scheme, device)
    sizes = (physics.d, len(E), len(E))  # of displacement, strain, stress
    fields = [np.empty((len(phase), c, *phase.shape[1:])) for c in sizes]
    batches = [slice(i, i + op.batch) for i in range(0, len(phase), op.batch)]

    def solve_batch(part: slice) -> dict[str, Any]:
        begin = u0 if u0 is None or callable(u0) else u0[part]
        return _solve_batch(op, phase[part], E, S, free, tol, max_iterations, begin, *(f[part] for f in fields))

    # One thread a batch: the small products inside are not worth sharing out.
    with one_blas_thread, ThreadPoolExecutor(min(op.threads, len(batches))) as pool:
        parts = list(pool.map(solve_batch, batches))
    history = _aligned([row for part in parts for row in part.pop("history")])
    numbers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if warn and not (converged := numbers["converged"]).all():
        late = np.flatnonzero(~converged)
        named = ", ".join(map(str, late[:20])) + (f", … ({len(late)} in all)" if len(late) > 20 else "")
        warnings.warn(
            f"samples [{named}] did not reach tol = {tol} in {max_iterations} iterations "
            f"(residual up to {numbers['residual'][late].max():.1e})",
            NotConverged,
            stacklevel=2,
        )
    displacement, strains, stresses = fields
    return Solution(strains, physics.components, stresses, displacement, history=history, **numbers)


def _solve_batch(
    op: Operator,
    phase: NDArray[np.uint16],
    E: Array,
    S: Array,
    free: NDArray[np.bool_],
    tol: float,
    max_iterations: int,
    start: Array | Start | None,
    displacement: Array,
    strain: Array,
    stress: Array,
) -> dict[str, Any]:
    """Writes the fields of microstructures ``phase`` (N, nx, ny, nz), iterated side by side from the displacement
    ``start``; returns the numbers of Solution (N,) and the histories."""
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
    if free.any() or start is not None:
        if free.any():
            # The free strains begin at the least energy that the displacement leaves them.
            system.unbalanced(op.vector(None if callable(start) else start, mean), r)
            softness = _restricted_inverse(V * np.tensordot(fractions, constants.C, 1), free)
            mean = mean + np.einsum("nij,nj->ni", softness, op.numpy(r.mean))
        if callable(start):
            start, mean, passes = start(system, phase, mean, op.numpy(xp.maximum(tol**2 * load2, floor2)))
        x = op.vector(start, mean)
        rho = system.residual(x, r, z)
        applied += 1
    scale2 = xp.where(load2 > floor2, load2, rho)  # without any load, relative to the start
    scale2 = xp.where(scale2 > 0, scale2, 1)
    target = xp.maximum(tol**2 * scale2, floor2)
    rho, iterations, green, history = conjugate_gradients(system, x, r, z, rho, target, max_iterations)

    op.fields(system.voxels, x, displacement, strain, stress)
    displacement -= displacement.mean(axis=(2, 3, 4), keepdims=True)
    strain *= constants.physics.shear[:, None, None, None]
    if (void := constants.alpha == 0).any():
        strain.swapaxes(0, 1)[:, void[phase]] = np.nan
    energy = op.numpy(op.inner(x, load) - op.inner(x, r))
    rho, load2, floor2, scale2, target = (op.numpy(a) for a in (rho, load2, floor2, scale2, target))
    alpha = np.where(fractions > 0, constants.alpha, np.inf).min(axis=1)
    solved = (rho <= floor2) & ((load2 <= floor2) | (fractions.max(axis=1) == 1))  # there was nothing to solve
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.where(solved, 0.0, np.sqrt(np.maximum(rho, floor2) / (alpha * np.maximum(energy, 0.0))))
    squares = np.stack([op.numpy(h) for h in history], axis=1) / scale2[:, None]
    return {
        "iterations": op.numpy(iterations).astype(np.int64) + passes,
        "green": op.numpy(green).astype(np.int64) + passes + applied,
        "residual": np.where(np.maximum(rho, load2) <= floor2, 0.0, np.sqrt(rho / scale2)),
        "bound": np.where(alpha == 0, np.inf, bound),
        "converged": rho <= target,
        "history": [np.sqrt(row[~np.isnan(row)]) for row in squares],
    }


def _aligned(rows: Sequence[Array]) -> Array:
    """(N, longest), the rows filled with NaN."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


def _restricted_inverse(matrix: Array, free: NDArray[np.bool_]) -> Array:
    """Inverse of (…, n, n) on the components ``free``, 0 elsewhere."""
    return np.linalg.pinv(np.where(np.outer(free, free), matrix, 0.0), hermitian=True)  # a void has none
