"""Checks of the arguments of ``solve`` and ``predict``, which return them in the form that the package uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.material import Material
from lspipe.cell.numbers import DOUBLE, Array, check_number, check_numbers, check_unmasked, shorten
from lspipe.cell.physics import Physics

SLENDER = 1e4  # Largest ratio of a voxel's edges. Beyond it, rounding hides the lowest frequencies.


def check_phase(phase: ArrayLike, materials: int) -> NDArray[np.uint16]:
    """Return ``phase`` as (N, nx, ny, nz) uint16.

    Raises:
        ValueError: It has another shape, or values other than the integers 0 … materials − 1.
    """
    check_unmasked("phase", phase)
    try:
        phase = np.asarray(phase)
    except ValueError:
        raise ValueError(f"phase = {shorten(phase)}: must be an array of integers") from None
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


def check_channel(phase: ArrayLike) -> None:
    """Raise ValueError for an array (N, nx, ny, 1), which could be one image with an axis of channels."""
    shape = getattr(phase, "shape", ())
    if len(shape) == 4 and shape[-1] == 1 and 1 not in shape[:-1]:
        raise ValueError(
            f"phase has shape {shape}: if that is one image with a channel, give phase[..., 0]; if these are "
            f"{shape[0]} cells of one voxel along z, give them one by one"
        )


def check_materials(materials: Iterable[Material]) -> tuple[Material, ...]:
    """Return the materials as a tuple, after checking that they are of one physics."""
    ordered = isinstance(materials, Iterable) and not isinstance(materials, Set | Mapping)
    checked = tuple(materials) if ordered else ()
    if not {isinstance(m, Material) for m in checked} == {True}:
        raise ValueError(
            f"materials = {shorten(materials)}: must be a list of Isotropic, Anisotropic or Conductor, "
            "one for each phase"
        )
    if len(examples := {m.physics.name: m for m in checked}) > 1:
        raise ValueError(
            f"materials = {shorten(list(examples.values()))}: must be of one physics, not {' and '.join(examples)}"
        )
    return checked


def check_load(
    physics: Physics, strain: Sequence[float | None], stress: Sequence[float | None] | None = None
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return the prescribed strain with engineering shear, the prescribed stress and the mask of free strains.

    Each has shape (strains,). A component that is not prescribed is 0.
    """
    count, values = len(physics.components), {}
    loads = {"strain": strain, "stress": [None] * count if stress is None else stress}
    for name, load in loads.items():
        check_unmasked(name, load)
        if np.asarray(load, dtype=object).shape != (count,):
            components = f"{count} components ({', '.join(physics.components)})"
            raise ValueError(f"{name} = {shorten(load)}: must have {components}")
        values[name] = check_numbers(name, [0.0 if x is None else x for x in load], DOUBLE)
    for name, e, s in zip(physics.components, *loads.values(), strict=True):
        if (e is None) == (s is None):
            raise ValueError(f"component {name} of strain and stress: prescribe one of the two, the other one is None")
    return values["strain"] / physics.tensor_factors, values["stress"], np.array([e is None for e in strain])


def check_tol(tol: float) -> float:
    """Return a tolerance as a float."""
    if not 0 <= (checked := check_number("tol", tol)) < 1:
        raise ValueError(f"tol = {tol}: must lie in [0, 1)")
    return checked


def check_device(device: str) -> None:
    """Raise ValueError unless the device is 'cpu' or a CUDA device of this machine."""
    if device != "cpu":
        import torch  # PyTorch takes seconds to import, and only a device needs it.

        index = re.fullmatch(r"cuda(?::(\d+))?", str(device))
        if not index or int(index[1] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device = {shorten(device)}: must be cpu or a CUDA device that PyTorch finds")


def check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Return the edge lengths of a voxel as floats."""
    h = check_numbers("spacing", spacing, DOUBLE)
    if h.shape != (3,) or h.min() <= 0:
        raise ValueError(f"spacing = {shorten(spacing)}: must be three positive numbers")
    if h.max() > SLENDER * h.min():
        raise ValueError(f"spacing = {shorten(spacing)}: must not differ by more than a factor {SLENDER:g}")
    return float(h[0]), float(h[1]), float(h[2])
