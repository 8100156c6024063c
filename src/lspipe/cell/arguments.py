"""What ``solve`` and ``predict`` accept: each argument is checked and brought to its working form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.element import SCHEMES
from lspipe.cell.material import Material
from lspipe.cell.numbers import DOUBLE, Array, number, numbers, shown, unmasked
from lspipe.cell.physics import Physics

SLENDER = 1e4  # of a voxel: beyond, rounding hides the lowest frequencies


def check_phase(phase: ArrayLike, materials: int) -> NDArray[np.uint16]:
    """``phase`` as (N, nx, ny, nz). Raises ValueError unless it holds integers in 0 … materials − 1."""
    unmasked("phase", phase)
    try:
        phase = np.asarray(phase)
    except ValueError:
        raise ValueError(f"phase = {shown(phase)}: must be an array of integers") from None
    if phase.dtype.kind not in "bui":
        nan = phase.dtype.kind == "f" and np.isnan(phase).any()
        raise ValueError(f"phase has dtype {phase.dtype}{' and holds NaN' if nan else ''}: must be integers")
    if phase.ndim not in (3, 4) or 0 in phase.shape:
        raise ValueError(f"phase has shape {phase.shape}: must be (N, nx, ny, nz) or (nx, ny, nz)")
    if phase.ndim == 4 and phase.shape[-1] == 1 and 1 not in phase.shape[:-1]:
        raise ValueError(
            f"phase has shape {phase.shape}: if that is one image with a channel, give phase[..., 0]; if these are "
            f"{len(phase)} cells of one voxel along z, give them one by one"
        )
    if not 0 < materials < 2**16:
        raise ValueError(f"materials has {materials} entries: must have one for each phase, at most 65535")
    for extreme in (int(phase.min()), int(phase.max())):
        if not 0 <= extreme < materials:
            raise ValueError(
                f"phase {extreme} has no material: {materials} materials serve phases 0 to {materials - 1}"
            )
    return np.ascontiguousarray(phase.reshape(-1, *phase.shape[-3:]), dtype=np.uint16)


def check_materials(materials: Iterable[Material]) -> tuple[Material, ...]:
    """The materials of one physics as a tuple: a generator yields them once only."""
    given = tuple(materials) if isinstance(materials, Iterable) and not isinstance(materials, Set | Mapping) else ()
    if not {isinstance(m, Material) for m in given} == {True}:
        raise ValueError(
            f"materials = {shown(materials)}: must be a list of Isotropic, Anisotropic or Conductor, one for each phase"
        )
    if len(named := {m.physics.name: m for m in given}) > 1:
        raise ValueError(
            f"materials = {shown(list(named.values()))}: must be of one physics, not {' and '.join(named)}"
        )
    return given


def check_load(
    physics: Physics, strain: Sequence[float | None], stress: Sequence[float | None] | None = None
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Prescribed strain with engineering shear, prescribed stress, mask of free strains, each (strains,)."""
    count = len(physics.components)
    stress = [None] * count if stress is None else stress
    for name, load in (("strain", strain), ("stress", stress)):
        unmasked(name, load)
        if np.asarray(load, dtype=object).shape != (count,):
            raise ValueError(f"{name} = {shown(load)}: must have {count} components ({', '.join(physics.components)})")
    free, given = np.array([e is None for e in strain]), np.array([s is not None for s in stress])
    if (free != given).any():
        name = physics.components[int(np.flatnonzero(free != given)[0])]
        raise ValueError(f"component {name} of strain and stress: prescribe one of the two, the other one is None")
    E, S = (
        numbers(name, [0.0 if x is None else x for x in load], DOUBLE)
        for name, load in (("strain", strain), ("stress", stress))
    )
    return E / physics.shear, S, free


def check_scheme(scheme: str) -> None:
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ValueError(f"scheme = {shown(scheme)}: must be one of {', '.join(SCHEMES)}")


def check_tol(tol: float) -> float:
    if not 0 <= (checked := number("tol", tol)) < 1:
        raise ValueError(f"tol = {tol}: must lie in [0, 1)")
    return checked


def check_start(start: ArrayLike, shape: tuple[int, ...]) -> Array:
    u = numbers("start", start)
    if u.shape != shape:
        raise ValueError(f"start has shape {u.shape}: must have {shape}")
    return u


def check_device(device: str) -> None:
    if device != "cpu":
        import torch  # takes seconds, and only a device needs it

        index = re.fullmatch(r"cuda(?::(\d+))?", str(device))
        if not index or int(index[1] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device = {shown(device)}: must be cpu or a CUDA device that PyTorch finds")


def check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    h = numbers("spacing", spacing, DOUBLE)
    if h.shape != (3,) or h.min() <= 0:
        raise ValueError(f"spacing = {shown(spacing)}: must be three positive numbers")
    if h.max() > SLENDER * h.min():
        raise ValueError(f"spacing = {shown(spacing)}: must not differ by more than a factor {SLENDER:g}")
    return float(h[0]), float(h[1]), float(h[2])
