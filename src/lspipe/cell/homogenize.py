"""Effective stiffness or conductivity of cells between guaranteed bounds.

Let x_a = (u_a, e_a) be displacements under the unit strains e_a, r_a = −K x_a their residuals, V the volume, and α the
constant with C ≥ α C⁰. The energies C_app[a, b] = x_a·K x_b / V and R[a, b] = r_a·K⁰⁻¹r_b / V bound the effective
stiffness: C_app − R/α ≤ C_eff ≤ C_app (docs/theory.md). The strains of a cell are iterated together in single precision
until R/α ≤ tol C_app. The returned C_app and R are those of the final displacements in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import Materials, check_device, check_phase, check_tol, join_materials
from lspipe.cell.blas import one_blas_thread
from lspipe.cell.conjugate_gradients import REDUCTION, System, descend
from lspipe.cell.effective import Effective
from lspipe.cell.engine import build_operator
from lspipe.cell.numbers import Array, check_integer
from lspipe.cell.operator import Operator, Vector
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import warn_not_converged

ROUNDING = 1e-12  # of the energy: the bounds are wider by this part of the stiffness


def homogenize(
    phase: ArrayLike,
    materials: Materials,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    scheme: str = "bbar",
    tol: float = 1e-3,
    max_iterations: int = 500,
    device: str = "cpu",
    warn: bool = True,
) -> Effective:
    """Compute the effective stiffness of periodic cells, or the conductivity, between guaranteed bounds.

    Args:
        phase: Integers (N, nx, ny, nz), or (nx, ny, nz) for one cell: the number of the material of each voxel.
        materials: One material for each phase, or one such list for each microstructure.
        spacing: Edge lengths of a voxel.
        scheme: Element; see ``solve``.
        tol: Guaranteed relative gap at which the iteration stops: e·(upper − lower)·e ≤ tol · e·upper·e for every
            strain e.
        max_iterations: Number of iterations after which it stops in any case.
        device: 'cpu' or a CUDA device; see ``solve``.
        warn: Whether to warn of samples that did not reach ``tol``.

    Returns:
        The effective stiffness, its bounds and the engineering constants.

    Raises:
        ValueError: An argument is outside of what is stated here.
    """
    phase, problem = join_problem(phase, materials, spacing, scheme)
    return homogenize_problem(phase, problem, tol=tol, max_iterations=max_iterations, device=device, warn=warn)


def effective_stiffness(phase: ArrayLike, materials: Materials, **options: Any) -> Array:
    """Return the ``stiffness`` of ``homogenize``, whose arguments these are."""
    return homogenize(phase, materials, **options).stiffness


effective_conductivity = effective_stiffness  # the name for conductors


def homogenize_problem(
    phase: ArrayLike,
    problem: Problem,
    *,
    tol: float = 1e-3,
    max_iterations: int = 500,
    device: str = "cpu",
    warn: bool = True,
) -> Effective:
    """Homogenize cells for the materials or grains of a problem, whose load is not used; see ``homogenize``."""
    cells, tol = check_phase(phase, problem.count), check_tol(tol)
    max_iterations = check_integer("max_iterations", max_iterations, 0)
    check_device(device)
    op = build_operator(problem.without_load, cells.shape[1:], device)
    size = max(1, op.batch // len(problem.strain))  # The vectors of all strains are in memory at once.
    batches = [cells[i : i + size] for i in range(0, len(cells), size)]
    with one_blas_thread, ThreadPoolExecutor(min(op.threads, len(batches))) as pool:
        results = list(pool.map(partial(_homogenize_batch, op, tol, max_iterations), batches))
    C, lower, upper, gap, iterations, converged = map(np.concatenate, zip(*results, strict=True))
    if warn:
        warn_not_converged(converged, tol, max_iterations, "gap", gap)
    modulus = op.constants.modulus
    return Effective(modulus * C, modulus * lower, modulus * upper, gap, iterations, converged, problem.physics)


def join_problem(
    phase: ArrayLike, materials: Materials, spacing: Sequence[float], scheme: str
) -> tuple[NDArray[np.integer], Problem]:
    """Return the phases and the problem without load of a user's arguments; see ``join_materials``."""
    phase, materials = join_materials(phase, materials)
    no_load = (0.0,) * len(materials[0].physics.components)
    return phase, Problem(materials, no_load, scheme=scheme, spacing=spacing)  # type: ignore[arg-type]


def _homogenize_batch(op: Operator, tol: float, max_iterations: int, phase: NDArray[np.integer]) -> tuple[Any, ...]:
    """Return stiffness, lower and upper bound, gap, iterations and convergence of the cells of a batch."""
    C_p, alpha_p = op.constants.C, op.constants.alpha
    fractions = volume_fractions(phase, len(C_p))
    hollow = (fractions[:, alpha_p == 0] > 0).any(axis=1).reshape(-1, 1, 1)
    alpha = np.where((fractions > 0) & (alpha_p > 0), alpha_p, np.inf).min(axis=1)[:, None, None]
    voigt = np.tensordot(fractions, C_p, 1)

    def excess(C: Array, R: Array) -> Array:
        """Return tol C − R/α, which is positive semidefinite when the gap is reached."""
        return max(tol - 2 * ROUNDING, ROUNDING) * np.where(hollow, voigt, C) - R / alpha

    C, R, iterations = _iterate(op, phase, excess, max_iterations)
    upper = (1 + ROUNDING) * C
    lower = np.where(hollow, 0.0, (1 - ROUNDING) * C - R / alpha)
    root = np.linalg.inv(np.linalg.cholesky(np.where(hollow, np.eye(len(C_p[0])), upper)))
    gap = np.where(hollow.ravel(), 1.0, np.linalg.eigvalsh(root @ (upper - lower) @ root.mT)[:, -1])
    return C, lower, upper, gap, iterations, _is_positive(excess(C, R))


def _iterate(
    op: Operator, phase: NDArray[np.integer], excess: Callable[[Array, Array], Array], max_iterations: int
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Iterate all unit strains of N cells until ``excess(C, R)`` is positive; return C, R and numbers of iterations."""
    count, strains, volume = len(phase), range(len(op.constants.C0)), op.constants.volume * phase[0].size
    system = System(op, op.voxels(phase), op.empty(count, np.float64), np.zeros_like(op.constants.C0))
    x = [op.vector(None, np.tile(e, (count, 1))) for e in np.eye(len(strains))]
    r, z = ([op.empty(count, np.float64) for _ in strains] for _ in range(2))
    rs, zs, p, dx = ([op.empty(count, op.constants.working_precision) for _ in strains] for _ in range(4))
    Kp = op.empty(count, op.constants.working_precision)

    def products(left: Sequence[Vector], right: Sequence[Vector]) -> Array:
        return _symmetric([[op.numpy(op.inner(a, b)) for b in right] for a in left]) / volume

    before, iterations = np.full((len(strains), count), np.inf), np.zeros(count, np.int64)
    while True:
        rho = np.stack([op.numpy(system.apply_green(system.residual(x[a], r[a]), z[a])) for a in strains])
        C, R = -products(x, r), products(z, r)
        active = ~_is_positive(excess(C, R)) & (iterations < max_iterations)
        if not active.any():
            return C, R, iterations
        for a in strains:
            op.scale(1, r[a], rs[a])
            op.scale(1, z[a], zs[a])
            op.scale(0, dx[a], dx[a])
        start, rounding = rho, ROUNDING**2 * volume * np.einsum("naa->an", C)
        while active.any():
            moves = active & (rho > rounding)
            beta = np.divide(rho, before, where=moves, out=np.ones_like(rho))
            for a in strains:
                cells = op.array(1.0 * moves[a]) > 0
                descend(system, op.array(rho[a]), op.array(beta[a]), rs[a], zs[a], p[a], Kp, dx[a], cells)
            before, iterations = np.where(active, rho, before), iterations + active
            active &= iterations < max_iterations
            if not active.any():
                break
            rho = np.stack([op.numpy(system.apply_green(rs[a], zs[a])) for a in strains])
            active &= (rho > REDUCTION**2 * start).any(axis=0)
            # The mean of the stress estimates C. Its diagonal is the energy, for r is orthogonal to u.
            C = _symmetric([-op.numpy(rs[a].mean).T for a in strains]) / volume
            active &= ~_is_positive(excess(C, products(zs, rs)))
        for a in strains:
            op.axpby(1, dx[a], 1, x[a])


def _symmetric(rows: Any) -> Array:
    """Return the symmetric part (N, strains, strains) of a matrix with entries (N,)."""
    matrix = np.moveaxis(np.array(rows), 2, 0)
    return (matrix + matrix.swapaxes(1, 2)) / 2


def _is_positive(matrices: Array) -> NDArray[np.bool_]:
    """Return which matrices (N, n, n) are positive semidefinite, and without NaN."""
    eigenvalues: Any = np.linalg.eigvalsh(np.nan_to_num(matrices, nan=-1.0))
    return eigenvalues[:, 0] >= 0
