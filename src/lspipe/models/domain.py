"""The problems that a network was trained for, and checks of the problems that it can learn or solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Self

import numpy as np

from lspipe.cell.arguments import check_load
from lspipe.cell.numbers import SINGLE, SMALLEST, Array, check_numbers, shorten
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.problem import Problem
from lspipe.models.architectures import SEE_MODULI


@dataclass(frozen=True)
class Domain(Problem):
    """A problem that a network was trained for.

    Args:
        labels: The integer in the training images that each material belongs to, if it is known.
        path: The load path whose fields at the end of a ``step`` are the solution. This problem then states the elastic
            parts of the materials and the load at this time. Without a path, it is linear.
        step: The number of the step.
    """

    labels: tuple[int, ...] | None = field(default=None, compare=False)
    path: PathProblem | None = None
    step: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))

    @classmethod
    def of_step(cls, path: PathProblem, step: int, labels: Sequence[int] | None = None) -> Self:
        """Return the domain of the fields at the end of one step of a load path."""
        strain, stress = path.steps[step]
        elastic = path.elastic.materials
        return cls(elastic, strain, stress, 0.0, path.scheme, path.spacing, labels=labels, path=path, step=step)  # type: ignore[arg-type]

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Raise ValueError where images have other labels than those that the network was trained on."""
        if labels and self.labels and tuple(labels) != self.labels:
            raise ValueError(
                f"labels = {list(labels)}: this model was trained for {list(self.labels)}; import all images with the "
                "same labels"
            )

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON, from which ``from_json`` makes the domain again."""
        values = self.path.to_json() | {"step": self.step} if self.path else super().to_json()
        return values | ({"labels": list(self.labels)} if self.labels else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the domain that ``to_json`` wrote."""
        if "step" not in values:
            return super().from_json(values)
        path = {name: value for name, value in values.items() if name not in ("step", "labels")}
        return cls.of_step(PathProblem.from_json(path), values["step"], values.get("labels"))


def load_scale(problem: Problem) -> float:
    """Return the strain by which the fields of a problem are divided for networks. It has the sign of the load.

    It is the first number of the load that is not negligible: of the prescribed strain, of the prescribed stress over
    the largest modulus, or of the free expansion. Without a load it is 1. For all steps of a load path, it is the
    largest component of the largest strain, so that a network sees how far the load has gone.
    """
    if path := get_path(problem):
        loads = [check_load(problem.physics, *step)[0] * problem.physics.tensor_factors for step in path.steps]
        farthest = max(loads, key=np.linalg.norm)
        return float(farthest[np.abs(farthest).argmax()]) or 1.0
    E, stress, _ = problem.load
    modulus = max(np.abs(m.stiffness).max() for m in problem.materials) or 1.0
    expansions = [problem.temperature * m.expansion_strain for m in problem.materials]
    load = np.concatenate([E * problem.physics.tensor_factors, stress / modulus, *expansions])
    large = load[np.abs(load) > SMALLEST * np.abs(load).max()]
    return float(large[0]) if large.size else 1.0


def get_path(problem: Problem) -> PathProblem | None:
    """Return the load path that a problem is a step of, or None where the problem is linear."""
    return problem.path if isinstance(problem, Domain) else None


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
    first, where = problems[0], f"architecture = {architecture!r}"
    sees_moduli = architecture in SEE_MODULI
    if any(map(get_path, problems)):
        check_steps(where, sees_moduli, channels, problems)
    if architecture == "rln-cg":
        return
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


def check_steps(where: str, sees_moduli: bool, channels: int, problems: Sequence[Problem]) -> None:
    """Raise ValueError unless a network can learn these steps, which must be of one load path."""
    if sees_moduli:
        raise ValueError(f"{where}: predicts multiples of the load; use fln, rln-t or rln to learn a load path")
    if channels == 1:
        raise ValueError(f"{where}: must predict all components to learn a load path")
    if any(get_path(problem) != get_path(problems[0]) for problem in problems):
        raise ValueError(f"{where}: learns the steps of one load path alone; remove the other problems")
    for one, other in combinations(problems, 2):
        first, second = (problem.step if isinstance(problem, Domain) else 0 for problem in (one, other))
        if first != second and have_same_strain(one, other):
            raise ValueError(
                f"{where}: cannot tell steps {first} and {second} of the load path apart, which have the strain "
                f"{list(one.strain)}; keep one of the two"
            )


def have_same_strain(one: Problem, other: Problem) -> bool:
    """Return whether two problems prescribe the same strain up to rounding."""
    E, other_E = one.load[0], other.load[0]
    return bool(np.allclose(E, other_E, rtol=0, atol=1e-6 * max(np.abs(E).max(), np.abs(other_E).max())))


def check_strain(problem: Problem) -> None:
    """Raise ValueError unless the load is a macroscopic strain, which all networks but RLN-CG start from."""
    E, _, free = problem.load
    other = "" if get_path(problem) else "; rln-cg takes any load"
    if free.any() or not E.any():
        raise ValueError(
            f"strain = {shorten(list(problem.strain))}: all components must be prescribed, and not all 0, for this "
            f"network{other}"
        )
    if problem.temperature:
        raise ValueError(f"temperature = {problem.temperature:g}: must be 0 for this network{other}")


def find_domain(problem: Problem, domains: Sequence[Domain], sees_moduli: bool = False) -> int | None:
    """Return the number of the domain to which a problem belongs.

    A linear problem may differ from its domain by a factor of its stiffnesses and by one of its load. A step of a load
    path has the materials and the strain of its domain.

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
    others = "" if domain.path else "; the solver (cg) and rln-cg take others"
    if sees_moduli and problem.physics.name != domain.physics.name:
        raise ValueError(f"materials: belong to {problem.physics.name}; {trained} {domain.physics.name}")
    if not sees_moduli and problem.grains:
        raise ValueError("phase: names grains; this network needs phases, not grains; use rln-cg")
    if get_path(problem) and not domain.path:
        raise ValueError(f"materials = {shorten([*all_materials(problem)])}: {trained} linear materials")
    if not sees_moduli and not has_materials(problem, domain):
        multiples = "" if domain.path else " or common multiples of their moduli"
        raise ValueError(
            f"materials = {shorten([*all_materials(problem)])}: {trained} {[*all_materials(domain)]}{multiples}{others}"
        )
    loaded = [k for k, d in enumerate(domains) if has_load(problem, d)]
    if not sees_moduli and not loaded:
        strains = [str(list(d.strain)) for d in domains]
        loads = f"the strain {' or '.join(strains)}" if domain.path else f"multiples of {' or of '.join(strains)}"
        raise ValueError(f"strain = {shorten(list(problem.strain))}: {trained} {loads}{others}")
    if not np.allclose(np.divide(problem.spacing, problem.spacing[0]), np.divide(domain.spacing, domain.spacing[0])):
        raise ValueError(f"spacing = {list(problem.spacing)}: {trained} multiples of {list(domain.spacing)}")
    if problem.scheme != domain.scheme:
        raise ValueError(f"scheme = {problem.scheme!r}: {trained} fields of {domain.scheme!r}")
    return next((k for k in loaded if has_materials(problem, domains[k])), None)


def all_materials(problem: Problem) -> tuple[Any, ...]:
    """Return the materials of a problem. Those of a step of a load path include their inelastic parts."""
    path = get_path(problem)
    return path.materials if path else problem.materials


def has_materials(problem: Problem, domain: Domain) -> bool:
    """Return whether the materials of a problem are those of a domain, up to a factor where both are linear.

    The result is False for a linear problem with grains.
    """
    if get_path(problem) or domain.path:
        return all_materials(problem) == all_materials(domain)
    C, C0 = (p.stiffnesses / (np.abs(p.stiffnesses).max() or 1.0) for p in (problem, domain))
    return not problem.grains and C.shape == C0.shape and np.allclose(C, C0, rtol=1e-6, atol=1e-9)


def has_load(problem: Problem, domain: Domain) -> bool:
    """Return whether a problem has the strain of a domain. Without a load path, the two may differ by a factor."""
    if domain.path:
        return have_same_strain(problem, domain)
    return np.allclose(relative_strain(problem), relative_strain(domain), atol=1e-6)
