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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from lspipe.cell.arguments import check_load, check_materials, check_phase, check_scheme, check_spacing
from lspipe.cell.material import TENSOR_SHEAR, VOIGT, Material
from lspipe.cell.operator import Operator, operator
from lspipe.cell.operator_numba import axpy

Array = NDArray[np.float64]
ROUNDING = 1e-13  # a residual below this part of the cell's own energy norm is rounding


class NotConverged(RuntimeWarning):
    """Some samples did not reach the tolerance."""


@dataclass(frozen=True)
class Solution:
    """Fields of N microstructures. What a method cannot give is None.

    ``strain``: (N, C, nx, ny, nz), the voxel means of the C ``components``, tensor shear.
    ``stress``: (N, 6, nx, ny, nz), voxel means in Voigt order, in the unit of the moduli.
    ``displacement``: (N, 3, nx, ny, nz), its periodic part at the nodes, node (i, j, k) being the
    lowest corner of voxel (i, j, k). In a void the strain is not unique: it is NaN there, and ``bound``
    is infinite. Per microstructure (N,): ``iterations``; ``green``, the number
    of applications of K⁰⁻¹, the last of which serves the residual; ``residual``, its energy norm
    relative to that of the load; ``bound`` ≥ energy norm of the error / energy norm of the field;
    ``converged``. ``history``: (N, longest), the residuals as the iteration saw them, beginning with that of the
    start, then NaN.
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
    start: ArrayLike | None = None,
) -> Solution:
    """Strain, stress and displacement of periodic microstructures under a macroscopic load.

    ``phase``: (N, nx, ny, nz) or one cell (nx, ny, nz), integers that index ``materials``.
    ``strain``: the six components of the macroscopic strain in Voigt order xx, yy, zz, yz, xz, xy,
    tensor shear. A None is a free component, whose macroscopic stress is given in ``stress``.
    ``spacing``: edge lengths of a voxel. ``scheme``: 'bbar' (Abaqus C3D8), 'full' (2×2×2 Gauss
    points) or 'reduced' (one point; Willot 2015). ``tol``: energy norm of the residual relative to
    that of the load. ``start``: displacement (N, 3, nx, ny, nz) to begin with. Samples run on
    numba.get_num_threads() threads. Warns of samples that did not reach ``tol``; raises ValueError
    for arguments that make no sense.
    """
    materials = check_materials(materials)
    phase = check_phase(phase, len(materials))
    E, S, free = check_load(strain, stress)
    h = check_spacing(spacing)
    check_scheme(scheme, tol)
    if max_iterations < 0:
        raise ValueError(f"max_iterations = {max_iterations}: must not be negative")
    shape = (len(phase), 3, *phase.shape[1:])
    u0 = np.zeros(shape) if start is None else np.asarray(start, dtype=np.float64)
    if u0.shape != shape or not np.isfinite(u0).all():
        raise ValueError(f"start of shape {u0.shape}: must be finite and of shape {shape}")

    op = operator(materials, phase.shape[1:], h, scheme)
    # One thread a sample: the small products inside are not worth sharing out.
    with threadpool_limits(1), ThreadPoolExecutor(min(numba.get_num_threads(), len(phase))) as pool:
        cells = pool.map(lambda p, u: _solve_cell(op, p, E, S, free, tol, max_iterations, u), phase, u0)
        solution = join(list(cells))
    if solution.converged is not None and solution.residual is not None and not solution.converged.all():
        late = np.flatnonzero(~solution.converged)
        worst = solution.residual[late].max()
        warnings.warn(
            f"samples {late.tolist()} did not reach tol = {tol} in {max_iterations} iterations "
            f"(residual up to {worst:.1e})",
            NotConverged,
            stacklevel=2,
        )
    return solution


def join(solutions: Sequence[Solution]) -> Solution:
    """One Solution of the microstructures of several, which give the same fields."""
    parts = {f.name: [getattr(s, f.name) for s in solutions] for f in fields(Solution) if f.name != "components"}
    parts = {name: arrays for name, arrays in parts.items() if arrays[0] is not None}
    if "history" in parts:
        longest = max(h.shape[1] for h in parts["history"])
        fill = [((0, 0), (0, longest - h.shape[1])) for h in parts["history"]]
        parts["history"] = [
            np.pad(h, width, constant_values=np.nan) for h, width in zip(parts["history"], fill, strict=True)
        ]
    return Solution(components=solutions[0].components, **{n: np.concatenate(a) for n, a in parts.items()})


def _solve_cell(
    op: Operator,
    phase: NDArray[np.uint16],
    E: Array,
    S: Array,
    free: NDArray[np.bool_],
    tol: float,
    max_iterations: int,
    u: Array,
) -> Solution:
    """The fields of one microstructure ``phase`` (nx, ny, nz), starting from the displacement ``u``."""
    shape, nodal = u.shape, u.size  # a vector of unknowns is (u, e): displacements, then free strains
    V = op.volume * phase.size
    fractions = np.bincount(phase.ravel(), minlength=len(op.C)) / phase.size
    VC = V * np.tensordot(fractions, op.C, 1)
    VC_free, VC0_free = VC[np.ix_(free, free)], V * op.C0[np.ix_(free, free)]

    def load(strain: Array) -> Array:
        """div(C:E)."""
        return op.divergence((op.C @ strain).T[:, phase]).ravel()

    F = np.array([load(unit) for unit in np.eye(6)[free]]).reshape(-1, nodal)

    def K(x: Array, out: Array) -> Array:
        op.stiffness(phase, x[:nodal].reshape(shape), out[:nodal].reshape(shape))
        if len(F):
            out[:nodal] -= x[nodal:] @ F
            out[nodal:] = VC_free @ x[nodal:] - F @ x[:nodal]
        return out

    def K0_inverse(r: Array, precision: type = np.float64) -> Array:
        z = np.empty_like(r)
        scale = np.sqrt(r @ r) or 1.0  # keeps any unit within the range of single precision
        z[:nodal] = op.green((r[:nodal].reshape(shape) / scale).astype(precision)).ravel()
        z[:nodal] *= scale
        z[nodal:] = np.linalg.solve(VC0_free, r[nodal:])
        return z

    f = np.concatenate([load(E), (V * S - VC @ E)[free]])
    x = np.concatenate([u.ravel(), np.zeros(free.sum())])
    r = f - K(x, np.empty_like(x)) if x.any() else f.copy()
    z = K0_inverse(r)
    rho = load2 = float(r @ z)
    green = 1
    if x.any():
        load2 = float(f @ K0_inverse(f)) or rho  # without any load, relative to the start
        green += 1
    floor2 = ROUNDING**2 * max(float(E @ (V * op.C0) @ E), load2)
    target = max(tol**2 * load2, floor2)

    iterations, history = 0, [rho]
    p, Kp, beta = np.zeros_like(x), np.empty_like(x), 0.0
    while rho > target and iterations < max_iterations:
        p *= beta
        p += z
        K(p, Kp)
        step = rho / float(p @ Kp)
        axpy(step, p, x)
        axpy(-step, Kp, r)
        iterations += 1
        if iterations < max_iterations:
            # A preconditioner need not be exact: in single precision it takes half the time.
            z = K0_inverse(r, np.float32)
            rho, previous = float(r @ z), rho
            beta = rho / previous
            green += 1
            history.append(rho)

    u = x[:nodal].reshape(shape)
    if iterations:
        u -= u.mean(axis=(1, 2, 3), keepdims=True)  # the rounding of single precision
    r = f - K(x, Kp)
    rho = max(float(r @ K0_inverse(r)), 0.0)
    green += 1
    E = E.copy()
    E[free] = x[nodal:]
    energy = E @ VC @ E - (load(E) + r[:nodal]) @ x[:nodal]
    strain = E[:, None, None, None] + op.gradient(u)
    stress = op.stress(phase, strain)
    strain[:, np.isin(phase, np.flatnonzero(op.alpha == 0))] = np.nan
    residual = np.sqrt(rho / load2) if max(rho, load2) > floor2 else 0.0
    alpha = op.alpha[fractions > 0].min()
    if rho <= floor2 and (np.count_nonzero(fractions) == 1 or not f.any()):
        bound = 0.0  # nothing to solve, and solved
    else:
        bound = np.sqrt(max(rho, floor2) / alpha / energy) if alpha * energy > 0 else np.inf
    converged = rho <= 1.01 * target  # recurrence and recomputation differ by rounding
    return Solution(
        strain=TENSOR_SHEAR[:, None, None, None] * strain[None],
        components=VOIGT,
        stress=stress[None],
        displacement=u[None],
        iterations=np.array([iterations]),
        green=np.array([green]),
        residual=np.array([residual]),
        bound=np.array([bound]),
        converged=np.array([converged]),
        history=np.sqrt(np.abs([history]) / (load2 or 1.0)),
    )
