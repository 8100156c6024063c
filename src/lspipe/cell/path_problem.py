"""The statement of a load path, without the microstructure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from lspipe.cell.arguments import Components, check_load, check_materials, freeze_load
from lspipe.cell.inelastic import Inelastic, elastic_part
from lspipe.cell.kinds import write_material
from lspipe.cell.material import Material
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem, build_problem

LARGE = 0.05  # strain beyond which the theory of small strain is doubtful; see docs/theory.md


@dataclass(frozen=True)
class PathProblem:
    """The materials, the macroscopic loads, the element and the voxels of a load path.

    Args:
        materials: One material for each phase, elastic or ``Inelastic``. At least one must be inelastic.
        steps: The load at the end of each step: a pair of a strain and a stress as in ``Problem``, or a strain alone.
        scheme: 'bbar', 'full' or 'reduced'.
        spacing: Edge lengths of a voxel along x, y, z.

    Raises:
        ValueError: A value is not allowed, or values do not fit together.
    """

    materials: tuple[Material | Inelastic, ...]
    steps: tuple[tuple[Components, Components | None], ...]
    scheme: str = "bbar"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "materials", check_materials(self.materials, allow_inelastic=True))
        if self.materials[0].physics is not ELASTICITY:
            raise ValueError("materials: are conductors; must be elastic or inelastic")
        if not any(isinstance(m, Inelastic) for m in self.materials):
            raise ValueError("materials: none is inelastic; a load path needs at least one, such as Plastic")
        steps = []
        for t, step in enumerate(self.steps):
            pair = step if hasattr(step, "__len__") and len(step) == 2 else (step, None)
            try:
                check_load(ELASTICITY, *pair)
            except ValueError as error:
                raise ValueError(f"step {t}: {error}") from None
            steps.append(freeze_load(*pair))
        if not steps:
            raise ValueError("steps: there are none; give at least one load")
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "spacing", self.elastic.spacing)  # It checks the scheme, too.

    @cached_property
    def elastic(self) -> Problem:
        """The linear problem of the elastic parts of the materials, under no load."""
        materials = tuple(map(elastic_part, self.materials))
        return Problem(materials, (0.0,) * 6, scheme=self.scheme, spacing=self.spacing)

    def warn_of_large_strains(self) -> None:
        """Warn where a step prescribes a strain for which the theory of small strain is doubtful."""
        largest = max((e for strain, _ in self.steps for e in strain if e is not None), key=abs, default=0.0)
        if abs(largest) > LARGE:
            warnings.warn(
                f"steps: the strain {largest:g} is large; the theory of small strain is doubtful beyond "
                f"{LARGE:g} (docs/theory.md)",
                stacklevel=3,
            )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON's types, from which ``from_json`` makes the problem again.

        Most defaults are left out.
        """
        values: dict[str, Any] = {
            "materials": [write_material(m) for m in self.materials],
            "steps": [[None if load is None else list(load) for load in step] for step in self.steps],
            "scheme": self.scheme,
        }
        if self.spacing != (1.0, 1.0, 1.0):
            values["spacing"] = list(self.spacing)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the problem that ``to_json`` wrote.

        Raises:
            ValueError: A key is missing, unknown or has a wrong value.
        """
        return build_problem(cls, values)
