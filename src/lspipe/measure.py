"""The components of the strain that errors measure and figures show."""

from __future__ import annotations

import numpy as np

from lspipe.cell.problem import Problem


def count_measured(problem: Problem, predicted: int) -> int:
    """Return how many components errors measure, of the first ``predicted`` ones that a model predicts.

    Under a macroscopic strain along the first component alone, errors are those of this component, as in Kelly &
    Kalidindi (2021). Under any other load they are those of all components that the model predicts.
    """
    E, _, free = problem.load
    is_uniaxial = E[0] and not (E[1:].any() or free.any() or problem.temperature)
    return 1 if is_uniaxial else predicted


def choose_shown(problem: Problem) -> int:
    """Return the number of the component that figures show.

    It is the first one where its macroscopic strain is prescribed and not 0. Otherwise it is the component with the
    largest prescribed strain; where all are 0, with the largest prescribed stress; where all are 0, one that is free.
    """
    E, stress, free = problem.load
    if E[0]:
        return 0
    loads = E * problem.physics.tensor_factors, stress, free
    return next((int(np.abs(load).argmax()) for load in loads if load.any()), 0)


def prescribed_size(problem: Problem, measured: int) -> float:
    """Return ‖E‖ of the first ``measured`` components where the load prescribes all strains, else 0.

    Errors are relative to it. Where it is 0 they are relative to a mean of the true field; see ``is_thermal``.
    """
    E, _, free = problem.load
    tensor = E * problem.physics.tensor_factors
    return 0.0 if free.any() else float(np.sqrt((tensor**2 / problem.physics.tensor_factors)[:measured].sum()))


def is_thermal(problem: Problem) -> bool:
    """Return whether only temperature drives the fields: errors are then relative to ⟨‖ε‖⟩ and ⟨‖σ‖⟩.

    ‖⟨ε⟩‖ and ‖⟨σ⟩‖, to which they are relative otherwise, may be 0.
    """
    E, stress, _ = problem.load
    return not (E.any() or stress.any())
