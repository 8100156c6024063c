"""Load paths: the increments of each step, and steps that no microstructure reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from lspipe.cell.arguments import Components, check_load
from lspipe.cell.physics import ELASTICITY

Numbers = Sequence[float | None]
Step = tuple[Numbers, Numbers | None, int]  # strain, stress, number of increments


def divide_steps(steps: Iterable[Step]) -> list[tuple[Components, Components]]:
    """Divide each step into increments: equal parts of the way from the load at its start to the load at its end.

    Args:
        steps: Strain and stress at the end of each step, as for ``Problem``, and the number of its increments.

    Returns:
        The strain (6,) and the stress (6,) at the end of each increment, with None where it is not prescribed.

    Raises:
        ValueError: A load is not allowed, or a step of several increments prescribes a component whose value at the
            start of the step is not known, because the step before prescribes the stress instead of the strain, or the
            strain instead of the stress.
    """
    increments: list[tuple[Components, Components]] = []
    before: Components = (0.0,) * 12  # strain and stress
    for i, (strain, stress, count) in enumerate(steps):
        try:
            check_load(ELASTICITY, strain, stress)
        except ValueError as error:
            raise ValueError(f"steps.{i}: {error}") from None
        after = (*strain, *((None,) * 6 if stress is None else stress))
        for name, start, end in zip(ELASTICITY.components * 2, before, after, strict=True):
            if count > 1 and start is None and end is not None:
                raise ValueError(
                    f"steps.{i}.increments = {count}: must be 1, because {name} changes between strain and stress, so "
                    "that its value at the start of the step is unknown"
                )
        for k in range(1, count + 1):
            load = after if k == count else tuple(map(partial(_interpolate, k / count), before, after))
            increments.append((load[:6], load[6:]))
        before = after
    return increments


def _interpolate(part: float, start: float | None, end: float | None) -> float | None:
    """Return a component on the way between two loads, or None if the end does not prescribe it."""
    return None if start is None or end is None else start + part * (end - start)


def explain_unreached(where: object, steps: str) -> str:
    """Return the message for steps of a load path that no microstructure has reached."""
    return (
        f"{where}: no microstructure has reached {steps} of the load path; the load exceeds what the cells can carry, "
        "or the increments are too large"
    )
