"""Materials whose stress depends on the history of the strain."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from lspipe.cell.numbers import Array, check_numbers, shorten
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


def check_law(material: Inelastic, strain: ArrayLike, state: ArrayLike | None = None, tol: float = 1e-4) -> None:
    """Compare the tangent of a law with differences of its stress, at one strain and state.

    Differences mean nothing across a kink of the law. Choose a strain that is clearly elastic or clearly plastic.

    Args:
        material: Material whose law is checked.
        strain: Strain (6,) in Voigt order with tensor shear, not 0.
        state: State (states,) at the start of the step, by default 0.
        tol: Largest difference that is allowed, relative to the largest entry of the tangent.

    Raises:
        ValueError: An entry of the tangent differs, or the tangent is not positive definite.
    """
    if not isinstance(material, Inelastic):
        raise ValueError(f"material = {shorten(material)}: must be inelastic; linear materials have no law")
    strain = check_numbers("strain", strain) / ELASTICITY.tensor_factors
    state = np.zeros(material.states) if state is None else check_numbers("state", state)
    parameters, name = np.array(material.parameters, np.float64), type(material).__name__

    def evaluate(strain: Array) -> tuple[Array, Array]:
        stress, tangent = np.zeros(6), np.zeros((6, 6))
        material.law(strain, state, parameters, stress, np.zeros(material.states), tangent)
        return stress, np.triu(tangent) + np.triu(tangent, 1).T

    h, tangent = 1e-5 * np.abs(strain).max(), evaluate(strain)[1]
    differences = np.stack([(evaluate(strain + d)[0] - evaluate(strain - d)[0]) / (2 * h) for d in h * np.eye(6)], 1)
    i, j = np.unravel_index(np.abs(tangent - differences).argmax(), (6, 6))
    if not abs(tangent[i, j] - differences[i, j]) <= tol * np.abs(tangent).max():
        raise ValueError(
            f"law of {name}: tangent[{i}, {j}] = {tangent[i, j]:.6g}, but differences of the stress give "
            f"{differences[i, j]:.6g}; the tangent must be the derivative of the stress, and symmetric"
        )
    if (least := np.linalg.eigvalsh(tangent)[0]) <= 0:
        raise ValueError(f"law of {name}: the tangent has the eigenvalue {least:.6g}; must be positive definite")
