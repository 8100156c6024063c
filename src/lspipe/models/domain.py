"""What a network was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lspipe.cell.numbers import SINGLE, SMALLEST, check_numbers, shorten
from lspipe.cell.problem import Problem


@dataclass(frozen=True)
class Domain(Problem):
    """A problem that networks can learn: the stiffnesses up to a common factor, and the load up to another one.

    Args:
        labels: The integer in the training images that each material belongs to, if it is known.

    Raises:
        ValueError: Networks cannot learn the problem.
    """

    labels: tuple[int, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
        first = self.strain[0] or 0.0
        if None in self.strain or abs(first) <= SMALLEST * max(abs(e or 0.0) for e in self.strain):
            raise ValueError(
                f"strain = {list(self.strain)}: {self.physics.components[0]} must not be 0, nor less than {SMALLEST:g} "
                "of the largest component, for networks learn the field relative to it"
            )

    def check_problem(self, problem: Problem) -> float:
        """Return the first component of the macroscopic strain of a problem.

        Raises:
            ValueError: The problem is not the one of this domain, nor a multiple of it.
        """
        C, C0 = problem.stiffnesses, self.stiffnesses
        scale = C[0, 0, 0] or np.nan  # a void is a multiple of nothing
        if C.shape != C0.shape or not np.allclose(C / scale, C0 / C0[0, 0, 0], rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"materials = {shorten(list(problem.materials))}: this model was trained for {list(self.materials)} "
                "or common multiples of their moduli"
            )
        (E, _, free), (E0, _, _) = problem.load, self.load
        check_numbers("strain", E, SINGLE)
        if free.any() or E[0] == 0 or not np.allclose(E / E[0], E0 / E0[0], atol=1e-6):
            raise ValueError(
                f"strain = {shorten(list(problem.strain))}: this model was trained for multiples of {list(self.strain)}"
            )
        if not np.allclose(np.divide(problem.spacing, problem.spacing[0]), np.divide(self.spacing, self.spacing[0])):
            raise ValueError(
                f"spacing = {list(problem.spacing)}: this model was trained for multiples of {list(self.spacing)}"
            )
        if problem.scheme != self.scheme:
            raise ValueError(f"scheme = {problem.scheme!r}: this model was trained for fields of {self.scheme!r}")
        return float(E[0])

    def relative(self, channels: int) -> list[float]:
        """Return the first components of the macroscopic strain over its very first."""
        E, _, _ = self.load
        return [float(e / E[0]) for e in (E * self.physics.tensor_factors)[:channels]]

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Raise ValueError where images have other labels than those that the network was trained on."""
        if labels and self.labels and tuple(labels) != self.labels:
            raise ValueError(
                f"labels = {list(labels)}: this model was trained for {list(self.labels)}; import all images with the "
                "same labels"
            )

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON, from which ``from_json`` makes the domain again."""
        return super().to_json() | ({"labels": list(self.labels)} if self.labels else {})
