"""Materials whose stress depends on the history of the strain."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lspipe.cell.physics import ELASTICITY
from lspipe.cell.registry import register


class Inelastic:
    """A material with a law of its own, which ``solve_path`` evaluates at each integration point.

    A subclass has the attributes below. ``law`` is compiled by Numba (``@numba.njit``) and is called as
    ``law(strain, state, parameters, stress, new_state, tangent)`` with float64 arrays:

    - it reads the strain (6,) in Voigt order with engineering shear, the state (states,) at the start of the step, and
      the parameters;
    - it writes the stress (6,), the state at the end of the step, and the consistent tangent, ∂stress/∂strain (6, 6).

    The tangent must be symmetric and positive definite. The solver reads its upper triangle.

    Files name the material by its ``kind`` if the subclass is a dataclass. The kind is the name of the class in lower
    case, or is given: ``class Mine(Inelastic, kind="my-material")``.

    Attributes:
        elastic: The linear ``Material`` that this one is under small strains. The reference medium follows from it.
        law: The compiled function.
        parameters: Sequence of the numbers that the law takes.
        states: Number of state variables at a point, which are 0 at the start.
        least_stiffness: A stiffness (6, 6) that no tangent falls below, for the guaranteed bound on the error; 0 where
            none is known.
    """

    physics = ELASTICITY
    kind: ClassVar[str]
    elastic: Any
    law: Any
    parameters: Any
    states: Any
    least_stiffness: Any = np.zeros((6, 6))

    def __init_subclass__(cls, kind: str = "") -> None:
        register(cls, kind)


def elastic_part(material: Any) -> Any:
    """Return the linear material of an inelastic one, and any other material as it is."""
    return material.elastic if isinstance(material, Inelastic) else material
