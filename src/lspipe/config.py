"""The configuration of a run: the checks of its keys against each other, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field, model_validator

from lspipe.cell.inelastic import Inelastic
from lspipe.cell.kinds import read_material
from lspipe.cell.material import Isotropic
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem
from lspipe.microstructure import generate, read_generator
from lspipe.models.architectures import LEAST, PAPER, SEE_MODULI
from lspipe.models.description import Description, check_start
from lspipe.models.domain import Domain, check_learnable, get_path
from lspipe.sections import (
    HomogenizationConfig,
    JobsConfig,
    LoadConfig,
    MaterialValues,
    MicrostructuresConfig,
    Name,
    NetworkConfig,
    Paths,
    Section,
    SolverConfig,
    TrainingConfig,
)

BASELINE = "cg"  # the name of the solver stopped early, with which every network is compared
SHARDS = 100_000  # A split has at most this number of shards, because each shard is a few files.


class Config(Section):
    """A run."""

    run: Name = Field("default", description="name of the folder results/{run}")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="root of the seeds of the microstructures")
    microstructures: MicrostructuresConfig = MicrostructuresConfig()
    cases: Annotated[dict[Name, Annotated[list[MaterialValues], Len(1)]], Len(1)] = Field(
        description="for each case, its materials of phases 0, 1, …; polycrystals have one for each kind of crystal"
    )
    loads: Annotated[dict[Name, LoadConfig], Len(1)] = Field(
        {"tension": LoadConfig(strain=[1e-3, 0, 0, 0, 0, 0])},
        description="the macroscopic loads by their names; every case is solved under each, elastic cases under those "
        "without `steps` and cases with inelastic materials under those with `steps`",
    )
    solver: SolverConfig = SolverConfig()
    homogenization: HomogenizationConfig = HomogenizationConfig()
    truth: dict[str, Paths] = Field(
        {},
        description="files of published strain fields of the images, by CASE or CASE/LOAD; they stand in for the "
        "solver's fields",
    )
    networks: list[NetworkConfig] = Field(description="the networks to train and compare; there may be none")
    training: TrainingConfig = TrainingConfig()
    jobs: JobsConfig = JobsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        cells, names = self.microstructures, [n.name for n in self.networks]
        if cells.labels and not cells.images:
            raise ValueError(f"microstructures.labels = {cells.labels}: must be left out, for there are no images")
        self._check_small()
        for key, n in cells.grids.items():
            try:
                generate(0, n, 0, generator=read_generator(cells.generator), spacing=cells.spacing or (1, 1, 1))
            except ValueError as error:
                raise ValueError(f"{key.removesuffix('.n')}: {error}") from None
        for name, materials in self.cases.items():
            count, owner = len(cells.labels), "one for each of microstructures.labels"
            if not cells.images:
                generator = read_generator(cells.generator)
                part = "kind of crystal (fractions)" if generator.grains else "phase"
                count, owner = generator.phases, f"one for each {part} of microstructures.generator"
            if count and len(materials) != count:
                raise ValueError(f"cases.{name}: must have {count} materials, not {len(materials)}: {owner}")
        self._check_loads()
        for name in self.truth:
            if name not in self.problems or not cells.images:
                allowed = ", ".join(self.problems) if cells.images else "left out, for there are no images"
                raise ValueError(f"truth.{name}: must be {allowed}")
        for i, network in enumerate(self.networks):
            if network.name == BASELINE:
                raise ValueError(
                    f"networks.{i}.name = {network.name!r}: is the name of the solver; choose another name"
                )
            if names.index(network.name) != i:
                raise ValueError(f"networks.{i}.name = {network.name!r}: must not repeat the name of another network")
            for k, case in enumerate(network.train_on):
                if case not in (learnable := dict.fromkeys(part for p in self.problems for part in parents(p))):
                    raise ValueError(f"networks.{i}.train_on.{k} = {case!r}: must be one of {', '.join(learnable)}")
            if network.published:
                self._check_published(f"networks.{i}", network)
            self._check_network(f"networks.{i}", network)
            self._check_start(f"networks.{i}.start = {network.start!r}", network, self.networks[:i])
        for split in self.counts:
            if (count := len(self.shards_of(split))) > SHARDS:
                raise ValueError(
                    f"jobs.samples_per_shard = {self.jobs.samples_per_shard}: makes {count} shards of "
                    f"microstructures.{split.replace('_', '.')}; must make at most {SHARDS}"
                )
        return self

    def _check_small(self) -> None:
        """Raise ValueError where small cells are missing, stand beside images, or are not smaller than the others."""
        cells = self.microstructures
        if not cells.small:
            for i in (i for i, network in enumerate(self.networks) if network.small):
                raise ValueError(f"networks.{i}.small = true: must be left out, for there are no microstructures.small")
            return
        if cells.images:
            raise ValueError("microstructures.small: must be left out beside images, for small cells are generated")
        fewer = [small < n or small == n == 1 for small, n in zip(cells.small.n, cells.n, strict=True)]
        if not all(fewer):
            raise ValueError(
                f"microstructures.small.n = {cells.small.n}: must have fewer voxels along each axis than "
                f"microstructures.n = {cells.n}"
            )

    def _check_loads(self) -> None:
        """Raise ValueError for a case that no load fits, or a load that fits no case."""
        for case in self.cases:
            if case not in [c for c, _ in self.loaded.values()]:
                kind, needed = ("an", "steps") if self._is_inelastic(case) else ("no", "strain or stress")
                raise ValueError(
                    f"cases.{case}: has {kind} inelastic material; add a load with {needed}, or remove this case"
                )
        for load, values in self.loads.items():
            if load not in [name for _, name in self.loaded.values()]:
                kind, needed = ("steps", "an") if values.steps else ("no steps", "no")
                raise ValueError(
                    f"loads.{load}: has {kind}; add a case with {needed} inelastic material, or remove this load"
                )

    def _check_network(self, key: str, network: NetworkConfig) -> None:
        """Raise ValueError for problems that a network cannot learn."""
        problems = [self.problems[name] for name in self.problems_of(network)]
        try:
            check_learnable(network.architecture, len(self.components_of(network)), problems, self.has_grains)
        except ValueError as error:
            raise ValueError(f"{key}.train_on = {network.train_on}: {error}") from None
        for name, n in self.microstructures.grids.items():
            is_seen = network.small or name == "microstructures.n"
            if is_seen and min(n) < LEAST and network.architecture in PAPER:
                advice = "" if network.published else "; rln-cg takes any number"
                raise ValueError(
                    f"{key}.architecture = {network.architecture!r}: needs at least {LEAST} voxels along each axis, "
                    f"not {name} = {n}{advice}"
                )

    def _check_published(self, key: str, network: NetworkConfig) -> None:
        """Raise ValueError for what a published network cannot do."""
        for name in ("small", "epochs", "learning_rate", "start"):
            if value := getattr(network, name):
                shown = "true" if value is True else repr(value)
                raise ValueError(f"{key}.{name} = {shown}: must be left out, for published networks are not trained")
        if network.architecture not in PAPER:
            raise ValueError(
                f"{key}.architecture = {network.architecture!r}: published networks are {', '.join(PAPER)}"
            )
        if len(self.problems_of(network)) > 1:
            raise ValueError(
                f"{key}.train_on = {network.train_on}: must be one case under one load for a published network"
            )
        if network.predict != "first":
            raise ValueError(f"{key}.predict = {network.predict!r}: published networks are for xx")
        if not self._is_the_papers(self.problems_of(network)[0]):
            raise ValueError(
                f"{key}.published = {network.published!r}: published networks are for two isotropic materials with "
                "one Poisson's ratio, no grains, a strain of xx alone, cubic voxels, and solver.scheme bbar"
            )

    def _check_start(self, where: str, network: NetworkConfig, earlier: Sequence[NetworkConfig]) -> None:
        """Raise ValueError where a network cannot start from another one of the run."""
        if not network.start:
            return
        if start := self.start_of(network):
            if start not in earlier:
                raise ValueError(f"{where}: is listed after this network; list it before")
            check_start(where, self.describe(start), self.describe(network))

    def start_of(self, network: NetworkConfig) -> NetworkConfig | None:
        """Return the network of this run that a network starts from, if any."""
        return next((other for other in self.networks if other.name == network.start != network.name), None)

    def _is_the_papers(self, name: str) -> bool:
        """Return whether published networks may fit a problem: it must be as in the paper except for its moduli."""
        problem = self.problems[name]
        ratios = [m.poisson for m in problem.materials if isinstance(m, Isotropic) and not m.expansion]
        is_pair = len(problem.materials) == len(ratios) == 2 and ratios[0] == ratios[1]
        is_solved_alike = len({*problem.spacing}) == 1 and problem.scheme == "bbar" and not get_path(problem)
        is_loaded_alike = bool(problem.strain[0]) and problem.strain[1:] == (0,) * 5 and not problem.temperature
        return is_pair and is_solved_alike and is_loaded_alike and not self.has_grains

    @property
    def has_grains(self) -> bool:
        """Whether the configuration generates polycrystals. Images do not say before they are read."""
        cells = self.microstructures
        return not cells.images and read_generator(cells.generator).grains > 0

    @property
    def physics(self) -> Physics:
        """Elasticity or conduction."""
        return next(iter(self.problems.values())).physics

    @cached_property
    def loaded(self) -> dict[str, tuple[str, str]]:
        """Case and load of each problem by its name: CASE, or CASE/LOAD where there are several loads.

        A case with an inelastic material is solved under the loads with steps, any other case under those without.
        """
        return {
            case if len(self.loads) == 1 else f"{case}/{load}": (case, load)
            for case in self.cases
            for load, values in self.loads.items()
            if bool(values.steps) == self._is_inelastic(case)
        }

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """The problems by name. Those of a load path are its kept steps, PATH/step3."""
        linear = {name: self._problem(*pair) for name, pair in self.loaded.items() if name not in self.paths}
        steps = {name: Domain.of_step(self.paths[path], step) for name, (path, step) in self.kept.items()}
        return linear | steps

    @cached_property
    def kept(self) -> dict[str, tuple[str, int]]:
        """The load path and the number of each kept step, by the name of the problem."""
        steps = {path: self.loads[self.loaded[path][1]].divide()[1] for path in self.paths}
        return {f"{path}/step{step}": (path, step) for path, kept in steps.items() for step in kept}

    def fields_of(self, name: str) -> str:
        """Return the name of the fields that a problem belongs to: that of its load path, or its own."""
        return self.kept.get(name, (name, 0))[0]

    @cached_property
    def paths(self) -> dict[str, PathProblem]:
        """The load paths by name."""
        return {name: self._path(*pair) for name, pair in self.loaded.items() if self.loads[pair[1]].steps}

    def _is_inelastic(self, case: str) -> bool:
        return any(isinstance(read_material(values), Inelastic) for values in self.cases[case])

    def _path(self, case: str, load: str) -> PathProblem:
        try:
            return PathProblem(
                tuple(map(read_material, self.cases[case])),
                tuple(self.loads[load].divide()[0]),
                scheme=self.solver.scheme,
                spacing=self.microstructures.spacing or (1, 1, 1),  # type: ignore[arg-type]  # It makes a tuple.
            )
        except ValueError as error:
            raise ValueError(f"cases.{case} under loads.{load}: {error}") from None

    def _problem(self, case: str, load: str) -> Problem:
        values = self.loads[load]
        strain: Any = values.strain or [None] * len(values.stress)
        if not strain:
            raise ValueError(f"loads.{load}: must prescribe strain, stress, or one of the two for each component")
        if values.keep != LoadConfig.model_fields["keep"].default:
            raise ValueError(f"loads.{load}.keep = {values.keep}: must be left out, for the load has no steps")
        try:
            problem = Problem(
                tuple(map(read_material, self.cases[case])),
                strain,
                values.stress or None,  # type: ignore[arg-type]  # It makes a tuple.
                temperature=values.temperature,
                scheme=self.solver.scheme,
                spacing=self.microstructures.spacing or (1, 1, 1),  # type: ignore[arg-type]
            )
            problem.check_storable()
        except ValueError as error:
            raise ValueError(f"cases.{case} under loads.{load}: {error}") from None
        return problem

    def problems_of(self, network: NetworkConfig) -> list[str]:
        """Return the names of the problems that a network learns."""
        return [name for name in self.problems if {*parents(name)} & {*network.train_on}]

    def components_of(self, network: NetworkConfig) -> tuple[str, ...]:
        """Return the components that a network predicts."""
        is_first = network.predict == "first" and network.architecture not in SEE_MODULI
        return self.physics.components[:1] if is_first else self.physics.components

    def describe(self, network: NetworkConfig) -> Description:
        """Return the description of a network that learns its first problem."""
        problem, components = self.problems[self.problems_of(network)[0]], self.components_of(network)
        return Description(architecture=network.architecture, components=list(components), domains=[problem.to_json()])

    def training_of(self, network: NetworkConfig) -> dict[str, Any]:
        """Return the settings of the training of a network: those of the run, or its own."""
        own = network.model_dump(include={"epochs", "learning_rate"}, exclude_none=True)
        settings = self.training.model_dump(exclude={"seeds", "epochs"}) | {"epochs": self.training.epochs}
        return settings | own  # Their order is part of the command: a training is repeated when it changes.

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of microstructures of each split; microstructures.small adds small_train and small_valid."""
        cells = self.microstructures
        small = {"small_train": cells.small.train, "small_valid": cells.small.valid} if cells.small else {}
        return {"train": cells.train, "valid": cells.valid, "test": cells.test, **small}

    def learned_splits(self, network: NetworkConfig) -> tuple[str, str]:
        """Return the splits that a network trains on and is validated on."""
        return ("small_train", "small_valid") if network.small else ("train", "valid")

    def first_image(self, split: str) -> int:
        """Return the number of the first image of a split: test takes the first images, then valid, then train."""
        taken = {"test": 0, "valid": self.microstructures.test}
        return taken.get(split, self.microstructures.test + self.microstructures.valid)

    def shards_of(self, split: str) -> range:
        """Return the shards of a split."""
        return range(-(-self.counts[split] // self.jobs.samples_per_shard))

    def jobs_of(self, split: str) -> list[range]:
        """Return the shards that each job solves of a split."""
        shards, per_job = self.shards_of(split), self.jobs.shards_per_job
        return [shards[first : first + per_job] for first in range(0, len(shards), per_job)]


def parents(name: str) -> list[str]:
    """Return the names that stand for a problem: CASE, CASE/LOAD and CASE/LOAD/step3."""
    parts = name.split("/")
    return ["/".join(parts[:k]) for k in range(1, len(parts) + 1)]
