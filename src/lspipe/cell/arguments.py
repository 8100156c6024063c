"""What ``solve`` and ``predict`` accept: each argument is checked and brought to its working form."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.element import SCHEMES
from lspipe.cell.material import TENSOR_SHEAR, VOIGT, Material

Array = NDArray[np.float64]


def check_phase(phase: ArrayLike, materials: int) -> NDArray[np.uint16]:
    """``phase`` as (N, nx, ny, nz). Raises ValueError unless it holds integers in 0 … materials − 1."""
    phase = np.asarray(phase)
    if phase.dtype.kind not in "bui":
        nan = phase.dtype.kind == "f" and np.isnan(phase).any()
        raise ValueError(f"phase has dtype {phase.dtype}{' and holds NaN' if nan else ''}: must be integers")
    if phase.ndim not in (3, 4) or 0 in phase.shape:
        raise ValueError(f"phase has shape {phase.shape}: must be (N, nx, ny, nz) or (nx, ny, nz)")
    if not 0 < materials < 2**16:
        raise ValueError(f"materials has {materials} entries: must have one for each phase, at most 65535")
    for extreme in (int(phase.min()), int(phase.max())):
        if not 0 <= extreme < materials:
            raise ValueError(
                f"phase {extreme} has no material: {materials} materials serve phases 0 to {materials - 1}"
            )
    return np.ascontiguousarray(phase.reshape(-1, *phase.shape[-3:]), dtype=np.uint16)


def check_materials(materials: Sequence[Material]) -> tuple[Material, ...]:
    if not isinstance(materials, Sequence) or not all(isinstance(m, Material) for m in materials):
        raise ValueError(f"materials = {materials}: must be a list of Isotropic or Anisotropic, one for each phase")
    return tuple(materials)


def check_load(
    strain: Sequence[float | None], stress: Sequence[float | None] | None = None
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Prescribed strain (6,) with engineering shear, prescribed stress (6,), mask (6,) of free strains."""
    stress = [None] * 6 if stress is None else stress
    if any(np.asarray(load, dtype=object).shape != (6,) for load in (strain, stress)):
        raise ValueError(f"strain and stress need six components each ({', '.join(VOIGT)})")
    free, given = np.array([e is None for e in strain]), np.array([s is not None for s in stress])
    if (free != given).any():
        name = VOIGT[int(np.flatnonzero(free != given)[0])]
        raise ValueError(f"component {name}: prescribe either the strain or the stress, the other one is None")
    E, S = (np.array([0.0 if x is None else float(x) for x in load]) for load in (strain, stress))
    if not (np.isfinite(E).all() and np.isfinite(S).all()):
        raise ValueError(f"strain = {list(strain)}, stress = {list(stress)}: must be finite")
    return E / TENSOR_SHEAR, S, free


def check_scheme(scheme: str, tol: float) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme = {scheme!r}: must be one of {', '.join(SCHEMES)}")
    if not 0 <= tol < 1:
        raise ValueError(f"tol = {tol}: must lie in [0, 1)")


def check_iteration(scheme: str, tol: float, max_iterations: int) -> None:
    check_scheme(scheme, tol)
    if not isinstance(max_iterations, (int, np.integer)) or max_iterations < 0:
        raise ValueError(f"max_iterations = {max_iterations}: must be an integer, not negative")


def check_device(device: str) -> None:
    if device != "cpu":
        import torch  # takes seconds, and only a device needs it

        if not re.fullmatch(r"cuda(:\d+)?", device) or int(device[5:] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device = {device!r}: must be cpu or a CUDA device that PyTorch finds")


def check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    if np.shape(spacing) != (3,) or not all(0 < h < np.inf for h in spacing):
        raise ValueError(f"spacing = {spacing}: must be three positive numbers")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])
