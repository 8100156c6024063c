"""Effective stiffness or conductivity of cells between guaranteed bounds.

Let x_a = (u_a, e_a) be displacements under the unit strains e_a, r_a = −K x_a their residuals, V the volume, and α the
constant with C ≥ α C⁰. The energies C_app[a, b] = x_a·K x_b / V and R[a, b] = r_a·K⁰⁻¹r_b / V bound the effective
stiffness: C_app − R/α ≤ C_eff ≤ C_app (docs/theory.md). The strains of a cell are iterated together in single precision
until R/α ≤ tol C_app. The returned C_app and R are those of the final displacements. Only K⁰⁻¹ has single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.arguments import Materials, check_device, check_phase, check_tol, join_materials
from lspipe.cell.conjugate_gradients import REDUCTION, System, descend
from lspipe.cell.effective import Effective
from lspipe.cell.engine import build_operator
from lspipe.cell.numbers import Array, check_integer
from lspipe.cell.operator import Operator, Vector
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import warn_not_converged
from lspipe.cell.threads import side_by_side

ROUNDING = 1e-12  # Relative rounding of the energy. The bounds are widened by this part of the stiffness.
ROUNDING_R = 1e-5  # Relative rounding of R, in which K⁰⁻¹ has single precision. The diagonal of R is enlarged by it.


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
        ValueError: An argument does not meet the conditions above.
    """
    phase, problem = join_problem(phase, materials, spacing, scheme)
    return homogenize_problem(phase, problem, tol=tol, max_iterations=max_iterations, device=device, warn=warn)


def effective_stiffness(phase: ArrayLike, materials: Materials, **options: Any) -> Array:
    """Return the ``stiffness`` that ``homogenize`` computes for the same arguments."""
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
    with side_by_side(min(op.threads, len(batches))) as each:
        results = list(each(partial(_homogenize_batch, op, tol, max_iterations), batches))
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
    return C, lower, upper, gap, iterations.mean(axis=0), _is_positive(excess(C, R))


def _iterate(
    op: Operator, phase: NDArray[np.integer], excess: Callable[[Array, Array], Array], max_iterations: int
) -> tuple[Array, Array, Array]:
    """Iterate the unit strains of N cells until ``excess(C, R)`` is positive; return C, R and numbers of iterations.

    C and R are (N, strains, strains), and the numbers of iterations are (strains, N).
    """
    count, strains, volume = len(phase), range(len(op.constants.C0)), op.constants.volume * phase[0].size
    system = System(op, op.voxels(phase), op.empty(count, np.float64), np.zeros_like(op.constants.C0))
    x = [op.vector(None, np.tile(e, (count, 1))) for e in np.eye(len(strains))]
    r = [op.empty(count, np.float64) for _ in strains]
    rs, z, p, dx = ([op.empty(count, op.constants.working_precision) for _ in strains] for _ in range(4))
    Kp = op.empty(count, op.constants.working_precision)

    def multiply(left: list[Vector], right: list[Vector]) -> Array:
        """Return a symmetric matrix (N, strains, strains) of inner products per volume."""
        matrix = np.empty((count, len(strains), len(strains)))
        for a, b in combinations_with_replacement(strains, 2):
            matrix[:, a, b] = matrix[:, b, a] = op.numpy(op.inner(left[a], right[b])) / volume
        return matrix

    def select(C: Array, R: Array | None = None) -> NDArray[np.bool_]:
        """Return which unit strains to iterate, (strains, N).

        These are the strains that exceed the gap alone. In a cell without such strains, they are those that dominate
        the combination which exceeds it most.
        """
        diagonal = excess(C, rho.T[:, None] / volume * np.eye(len(strains))).diagonal(axis1=1, axis2=2)
        lagging = diagonal < 0
        if not (alone := lagging.any(axis=1)).all():
            values, vectors = np.linalg.eigh(np.nan_to_num(excess(C, multiply(z, rs) if R is None else R)))
            worst = np.abs(vectors[:, :, 0])
            together = worst >= worst.max(axis=1, keepdims=True) / 2
            lagging |= (~alone & (values[:, 0] < 0))[:, None] & together
        return lagging.T & (rho > rounding) & (iterations < max_iterations)

    def select_early() -> NDArray[np.bool_]:
        # The mean stress estimates C. Its diagonal is the energy, for r is orthogonal to the displacement.
        C = -np.stack([op.numpy(v.mean) for v in rs], axis=1) / volume
        return select((C + C.swapaxes(1, 2)) / 2)

    for a in strains:
        op.scale(-1, system.apply_stiffness(op.scale(1, x[a], Kp), rs[a]), rs[a])
    rho = np.stack([op.numpy(system.apply_green(rs[a], z[a])) for a in strains])
    energies = np.stack([-op.numpy(rs[a].mean)[:, a] for a in strains])
    rounding = np.finfo(op.constants.working_precision).eps ** 2 * energies  # A smaller residual is rounding.
    before, iterations = np.full_like(rho, np.inf), np.zeros_like(rho)
    moves = select_early()
    while True:
        start = rho.copy()
        while moves.any():
            for a in strains:
                if (cells := moves[a]).any():
                    beta = np.divide(rho[a], before[a], where=cells, out=np.ones(count))
                    numbers = op.array(rho[a]), op.array(beta)
                    descend(system, *numbers, rs[a], z[a], p[a], Kp, dx[a], op.array(1.0 * cells) > 0)
                    before[a] = np.where(cells, rho[a], before[a])
                    rho[a] = op.numpy(system.apply_green(rs[a], z[a]))
            iterations += moves
            moves = select_early() & (rho > REDUCTION**2 * start)
        for a in strains:
            system.residual(op.axpby(1, dx[a], 1, x[a]), r[a])
            rho[a] = op.numpy(system.apply_green(r[a], z[a]))
        rounding = ROUNDING**2 * energies
        C, R = -multiply(x, r), multiply(z, r) * (1 + ROUNDING_R * np.eye(len(strains)))
        moves = select(C, R)
        if not moves.any():
            return C, R, iterations
        for a in strains:
            op.scale(1, r[a], rs[a])
            op.scale(0, dx[a], dx[a])


def _is_positive(matrices: Array) -> NDArray[np.bool_]:
    """Return which matrices (N, n, n) are positive semidefinite, and without NaN."""
    eigenvalues: Any = np.linalg.eigvalsh(np.nan_to_num(matrices, nan=-1.0))
    return eigenvalues[:, 0] >= 0
