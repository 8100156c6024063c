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


def is_clamped(problem: Problem) -> bool:
    """Return whether the macroscopic strain is 0, so that only temperature drives the fields."""
    E, _, free = problem.load
    return not (E.any() or free.any())


def is_unloaded(problem: Problem) -> bool:
    """Return whether the macroscopic stress is 0, so that only temperature drives the fields."""
    _, stress, free = problem.load
    return bool(free.all()) and not stress.any()
