"""The base class of the generators, the grid of voxels, and cuts at quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lspipe.cell.numbers import Array, check_numbers, shorten

KINDS: dict[str, type[Generator]] = {}  # classes of generators by their names in files


@dataclass(frozen=True)
class Grid:
    """The voxels of a periodic cell.

    An axis of one voxel is no axis of the geometry: with nz = 1, spheres are discs and grains are columns along z.

    Args:
        shape: Numbers of voxels nx, ny, nz.
        spacing: Edge lengths of a voxel along x, y, z.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def axes(self) -> list[int]:
        """Axes of the geometry: those with more than one voxel, at least one."""
        return [a for a in range(3) if self.shape[a] > 1] or [0]

    @property
    def edges(self) -> Array:
        """Edge lengths of the cell along the axes of the geometry."""
        return np.array([self.shape[a] * self.spacing[a] for a in self.axes])

    @property
    def centres(self) -> Array:
        """Centres (voxels, axes) of the voxels in array order."""
        lines = [self.spacing[a] * (np.arange(self.shape[a]) + 0.5) for a in self.axes]
        return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(self.size, -1)

    def __str__(self) -> str:
        return "×".join(map(str, self.shape)) + " voxels"


class Generator:
    """A generator of periodic microstructures. A subclass is a frozen dataclass that files name by its ``kind``.

    Attributes:
        parameters: Names of the design parameters of a sample.
        phases: Number of materials in the cells.
        grains: Number of grains in a cell of a polycrystal, else 0.
    """

    kind: ClassVar[str]
    parameters: Any = ()
    phases: Any
    grains: Any = 0

    def __init_subclass__(cls, kind: str = "") -> None:
        if kind:
            cls.kind, KINDS[kind] = kind, cls

    def check(self, grid: Grid) -> None:
        """Raise ValueError if cells of this grid cannot be made."""

    def design(self, u: Array, grid: Grid) -> Array:
        """Return the design parameters (N, parameters) for numbers u of this shape that are uniform in [0, 1)."""
        return u

    def make(self, grid: Grid, design: Array, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Return the phase (nx, ny, nz) of one cell and, of a polycrystal, the material and orientation of grains."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and the parameters as values for JSON."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {"kind": self.kind} | values


def read_generator(values: Mapping[str, Any]) -> Generator:
    """Return the generator that ``Generator.to_dict`` wrote.

    Args:
        values: The ``kind``, by default 'gaussian', and parameters, which all have defaults.

    Raises:
        ValueError: The kind is unknown, or a parameter is unknown or has a wrong value.
    """
    parameters = dict(values)
    kind = parameters.pop("kind", "gaussian")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind = {shorten(kind)}: must be one of {', '.join(KINDS)}")
    allowed = [f.name for f in fields(KINDS[kind])]  # type: ignore[arg-type]
    if unknown := [name for name in parameters if name not in allowed]:
        raise ValueError(f"{unknown[0]:.100} is not a key of {kind}; allowed here: {', '.join(allowed)}")
    return KINDS[kind](**parameters)


def cut(field: Array, fractions: ArrayLike) -> NDArray[np.int64]:
    """Divide a field into phases at its quantiles.

    Args:
        field: (…), any numbers without ties.
        fractions: (phases − 1,), the shares of all phases but the last one.

    Returns:
        The phase (…) of each entry; phase 0 has the smallest entries. Each share is exact to one entry.
    """
    return np.searchsorted(np.quantile(field, np.minimum(np.cumsum(fractions), 1)), field)


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return the fractions as a tuple; raise ValueError unless they are positive and their sum is 1."""
    allowed = "positive numbers whose sum is 1"
    checked = check_numbers("fractions", fractions, allowed=allowed)
    if checked.ndim != 1 or not checked.size or checked.min() <= 0 or abs(checked.sum() - 1) > 1e-6:
        raise ValueError(f"fractions = {shorten(fractions)}: must be {allowed}")
    return tuple(checked.tolist())
