"""Checks of the arguments of ``solve`` and ``predict``, which return them in the form that the package uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.inelastic import Inelastic
from lspipe.cell.material import Material
from lspipe.cell.numbers import DOUBLE, Array, check_number, check_numbers, check_unmasked, shorten
from lspipe.cell.physics import Physics

# One material for each phase, or one such list for each microstructure.
Materials = Iterable[Material] | Sequence[Sequence[Material]]
Components = tuple[float | None, ...]  # of a strain or a stress; None where the other one is prescribed
SLENDER = 1e4  # Largest ratio of a voxel's edges. Beyond it, rounding hides the lowest frequencies.


def check_phase(phase: ArrayLike, materials: int) -> NDArray[np.integer]:
    """Return ``phase`` as (N, nx, ny, nz) uint16, or uint32 for more than 65535 materials.

    Raises:
        ValueError: ``phase`` has another shape, or values other than the integers 0 … materials − 1.
    """
    cells = _check_integers(phase)
    if not 0 < materials < 2**32:
        raise ValueError(f"materials has {materials} entries: must have one for each phase, at least one")
    for extreme in (int(cells.min()), int(cells.max())):
        if not 0 <= extreme < materials:
            raise ValueError(f"phase {extreme} has no material: materials are numbered from 0 to {materials - 1}")
    dtype = np.uint16 if materials < 2**16 else np.uint32
    return np.ascontiguousarray(cells.reshape(-1, *cells.shape[-3:]), dtype)


def join_materials(
    phase: ArrayLike, materials: Any, allow_inelastic: bool = False
) -> tuple[NDArray[np.integer], tuple[Any, ...]]:
    """Return the phases, and the materials of a user as one list for all microstructures.

    Where ``materials`` has one list for each microstructure, the phases of each microstructure are numbered after those
    of the microstructures before it.

    Raises:
        ValueError: The phases are an image with a channel, or a list does not fit its microstructure.
    """
    cells = _check_integers(phase)
    shape = cells.shape
    if len(shape) == 4 and shape[-1] == 1 < shape[0] == shape[1] == shape[2]:
        raise ValueError(
            f"phase has shape {shape}: if that is one image with a channel, give phase[..., 0]; if these are "
            f"{shape[0]} cells of one voxel along z, give them in two parts"
        )
    lists = materials if isinstance(materials, list | tuple) else ()
    if not lists or not all(isinstance(m, list | tuple) for m in lists):
        return cells, check_materials(materials, allow_inelastic)
    cells = cells.reshape(-1, *shape[-3:])
    if len(lists) != len(cells):
        raise ValueError(
            f"materials: has {len(lists)} lists for {len(cells)} microstructures; must have one list for each, or one "
            "material for each phase of all"
        )
    for i, (cell, own) in enumerate(zip(cells, lists, strict=True)):
        try:
            check_phase(cell, len(check_materials(own, allow_inelastic)))
        except ValueError as error:
            raise ValueError(f"microstructure {i}: {error}") from None
    first = np.cumsum([0, *map(len, lists[:-1])], dtype=np.int64)
    return cells + first[:, None, None, None], check_materials([m for own in lists for m in own], allow_inelastic)


def _check_integers(phase: ArrayLike) -> NDArray[np.integer]:
    """Return an array (N, nx, ny, nz) or (nx, ny, nz) of integers."""
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
    return phase


def check_materials(materials: Iterable[Any], allow_inelastic: bool = False) -> tuple[Any, ...]:
    """Return the materials as a tuple, after checking that they are of one physics, and linear unless allowed."""
    ordered = isinstance(materials, Iterable) and not isinstance(materials, Set | Mapping)
    checked = tuple(materials) if ordered else ()
    if not {isinstance(m, Material | Inelastic) for m in checked} == {True}:
        raise ValueError(
            f"materials = {shorten(materials)}: must be a list of Isotropic, Anisotropic or Conductor, "
            "one for each phase"
        )
    if not allow_inelastic and any(isinstance(m, Inelastic) for m in checked):
        raise ValueError(
            f"materials = {shorten(checked)}: must be linear; inelastic ones need a load path (lspipe.solve_path)"
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
            raise ValueError(f"{name} = {shorten(load)}: must have {components} for {physics.name}")
        values[name] = check_numbers(name, [0.0 if x is None else x for x in load], DOUBLE)
    for name, e, s in zip(physics.components, *loads.values(), strict=True):
        if (e is None) == (s is None):
            raise ValueError(
                f"component {name} of strain = {shorten(e)} and of stress = {shorten(s)}: must be prescribed in one of "
                "the two, and None (null) in the other"
            )
    return values["strain"] / physics.tensor_factors, values["stress"], np.array([e is None for e in strain])


def freeze_load(strain: Any, stress: Any) -> tuple[Components, Components | None]:
    """Return a load that ``check_load`` accepts as tuples. The stress is None if no component is prescribed."""
    frozen = [
        tuple(None if x is None else float(x) for x in (() if load is None else load)) for load in (strain, stress)
    ]
    return frozen[0], None if not any(x is not None for x in frozen[1]) else frozen[1]


def check_keep(keep: Sequence[int], count: int, least: int = 1) -> list[int]:
    """Return the numbers of the kept steps of a load path in ascending order, each once; negative ones count from the
    end.

    Raises:
        ValueError: There are fewer than ``least``, or one of them is not a step of the ``count``.
    """
    numbers = list(keep) if isinstance(keep, Iterable) else [keep]
    are_integers = all(isinstance(k, int | np.integer) and not isinstance(k, bool) for k in numbers)
    if len(numbers) < least or not are_integers or not all(-count <= k < count for k in numbers):
        raise ValueError(
            f"keep = {shorten(keep)}: must be {'at least one integer' if least else 'integers'} from {-count} to "
            f"{count - 1}, the numbers of the increments of the path"
        )
    return sorted({int(k) % count for k in numbers})


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
