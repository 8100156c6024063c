"""What a network was trained for, and what it can be trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lspipe.cell.numbers import SINGLE, SMALLEST, Array, check_numbers, shorten
from lspipe.cell.problem import Problem
from lspipe.models.architectures import SEE_MODULI


@dataclass(frozen=True)
class Domain(Problem):
    """A problem that a network was trained for.

    Args:
        labels: The integer in the training images that each material belongs to, if it is known.
    """

    labels: tuple[int, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))

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


def load_scale(problem: Problem) -> float:
    """Return the strain by which the fields of a problem are divided for networks. It has the sign of the load.

    It is the first number of the load that is not negligible: of the prescribed strain, of the prescribed stress over
    the largest modulus, or of the free expansion. Without a load it is 1.
    """
    E, stress, _ = problem.load
    modulus = max(np.abs(m.stiffness).max() for m in problem.materials) or 1.0
    expansions = [problem.temperature * m.expansion_strain for m in problem.materials]
    load = np.concatenate([E * problem.physics.tensor_factors, stress / modulus, *expansions])
    large = load[np.abs(load) > SMALLEST * np.abs(load).max()]
    return float(large[0]) if large.size else 1.0


def relative_strain(problem: Problem) -> Array:
    """Return the prescribed macroscopic strain over ``load_scale``, (strains,) with tensor shear."""
    E, _, _ = problem.load
    return E * problem.physics.tensor_factors / load_scale(problem)


def check_learnable(architecture: str, channels: int, problems: Sequence[Problem], has_grains: bool = False) -> None:
    """Raise ValueError unless one network can learn the fields of all these problems.

    Args:
        architecture: As for ``build``. ``rln-cg`` learns any problems. The others of SEE_MODULI learn any
            materials, grains and macroscopic strains.
        channels: Number of components of the strain that the network predicts.
        problems: The problems of the training sets.
        has_grains: Whether microstructures are polycrystals.
    """
    if architecture == "rln-cg":
        return
    first, where = problems[0], f"architecture = {architecture!r}"
    sees_moduli = architecture in SEE_MODULI
    if has_grains and not sees_moduli:
        raise ValueError(f"{where}: needs phases, not grains; use rln-cg")
    for problem in problems:
        check_strain(problem)
        if sees_moduli:
            if (problem.scheme, problem.spacing) != (first.scheme, first.spacing):
                raise ValueError(f"{where}: learns one element and one spacing; use rln-cg to learn several")
            continue
        if problem.without_load != first.without_load:
            raise ValueError(
                f"{where}: learns one list of materials, one element and one spacing; use rln-cg to learn several"
            )
        if channels == 1 and load_scale(problem) != problem.strain[0]:
            raise ValueError(
                f"strain = {list(problem.strain)}: {problem.physics.components[0]} must not be 0, nor less than "
                f"{SMALLEST:g} of the largest component, for {architecture} to predict it alone; predict all components"
            )
    loads = {problem.strain for problem in problems}
    if channels == 1 and len(loads) > 1 and not sees_moduli:
        raise ValueError(f"{where}: must predict all components to learn {len(loads)} loads")


def check_strain(problem: Problem) -> None:
    """Raise ValueError unless the load is a macroscopic strain, which all networks but RLN-CG start from."""
    E, _, free = problem.load
    if free.any() or not E.any():
        raise ValueError(
            f"strain = {shorten(list(problem.strain))}: all components must be prescribed, and not all 0, for this "
            "network; rln-cg takes any load"
        )
    if problem.temperature:
        raise ValueError(f"temperature = {problem.temperature:g}: must be 0 for this network; rln-cg takes any load")


def find_domain(problem: Problem, domains: Sequence[Domain], sees_moduli: bool = False) -> int | None:
    """Return the number of the domain that a problem is, up to a factor of its stiffnesses and one of its load.

    Args:
        problem: The problem to solve.
        domains: Problems that a network was trained for. They have one physics, element and spacing, and differ in
            their loads alone unless the network sees the moduli.
        sees_moduli: Whether the network sees the moduli. It then serves other materials, grains and macroscopic
            strains, for which None is returned.

    Raises:
        ValueError: The network does not serve the problem.
    """
    check_strain(problem)
    check_numbers("strain", problem.load[0], SINGLE)
    domain, trained = domains[0], "this model was trained for"
    if sees_moduli and problem.physics.name != domain.physics.name:
        raise ValueError(f"materials: belong to {problem.physics.name}; {trained} {domain.physics.name}")
    if not sees_moduli and problem.grains:
        raise ValueError("phase: names grains; this network needs phases, not grains; use rln-cg")
    if not sees_moduli and not has_materials(problem, domain):
        raise ValueError(
            f"materials = {shorten(list(problem.materials))}: {trained} {list(domain.materials)} or common multiples "
            "of their moduli"
        )
    load = relative_strain(problem)
    loaded = [k for k, d in enumerate(domains) if np.allclose(load, relative_strain(d), atol=1e-6)]
    if not sees_moduli and not loaded:
        loads = " or of ".join(str(list(d.strain)) for d in domains)
        raise ValueError(f"strain = {shorten(list(problem.strain))}: {trained} multiples of {loads}")
    if not np.allclose(np.divide(problem.spacing, problem.spacing[0]), np.divide(domain.spacing, domain.spacing[0])):
        raise ValueError(f"spacing = {list(problem.spacing)}: {trained} multiples of {list(domain.spacing)}")
    if problem.scheme != domain.scheme:
        raise ValueError(f"scheme = {problem.scheme!r}: {trained} fields of {domain.scheme!r}")
    return next((k for k in loaded if has_materials(problem, domains[k])), None)


def has_materials(problem: Problem, domain: Domain) -> bool:
    """Whether the stiffnesses of a problem are those of a domain up to a factor. Grains have others."""
    C, C0 = (p.stiffnesses / (np.abs(p.stiffnesses).max() or 1.0) for p in (problem, domain))
    return not problem.grains and C.shape == C0.shape and np.allclose(C, C0, rtol=1e-6, atol=1e-9)
