"""The configuration of a run, typed and checked once; the paths of a run; its JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lspipe.cell.material import Isotropic

BASELINES = ("constant", "cg1", "cg5", "cg10")

Count = Annotated[int, Field(ge=1)]


def _unique(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("must not repeat an entry")
    return items


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MicrostructuresConfig(Section):
    """Periodic two-phase cells of n³ voxels."""

    n: Annotated[int, Field(ge=8)] = Field(12, description="voxels along an edge of the cell")
    train: Count = Field(256, description="number of microstructures to train on")
    valid: Count = Field(32, description="number that choose the best epoch")
    test: Count = Field(64, description="number that the tables and figures are made of")


class LoadConfig(Section):
    """The macroscopic load."""

    strain: Annotated[list[float], Len(6, 6)] = Field(
        [1e-3, 0, 0, 0, 0, 0],
        description="macroscopic strain xx, yy, zz, yz, xz, xy (tensor shear); xx must not be 0",
    )


class SolverConfig(Section):
    """The ground truth."""

    scheme: Literal["bbar", "full", "reduced"] = Field(
        "bbar", description="element: bbar (Abaqus C3D8), full (2×2×2 Gauss points), reduced (one point)"
    )
    tol: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4, description="energy norm of the residual relative to that of the load"
    )


class NetworkConfig(Section):
    """A network to train."""

    name: Name = Field(description="names its folder and its row in the tables")
    architecture: Literal["fln", "rln-t", "rln"] = Field(
        description="fln (one pass), rln-t (5 passes, tied weights), rln (5 passes)"
    )
    train_on: Annotated[list[str], Len(1, 1)] = Field(
        description="the case that it learns; these networks do not see the moduli, so one"
    )


class TrainingConfig(Section):
    """How each network is trained: Adam, cosine decay to 1e-8, gradient norm at most 2 a pass."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Len(1), AfterValidator(_unique)] = Field(
        [0], description="one training of each network a seed"
    )
    epochs: Count = Field(8, description="passes through the training set")
    batch: Count = Field(4, description="microstructures a step")
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-3, description="initial learning rate")


class JobsConfig(Section):
    """How the data set is cut."""

    samples_per_shard: Count = Field(64, description="samples in one shard file, written by one task")
    shards_per_job: Count = Field(4, description="shards solved by one job of the workflow")


class Config(Section):
    """Everything that a run depends on."""

    run: Name = Field("default", description="names the folder results/{run}")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="root of the microstructures' seeds")
    microstructures: MicrostructuresConfig = MicrostructuresConfig()
    cases: Annotated[dict[Name, Annotated[list[Isotropic], Len(2, 2)]], Len(1)] = Field(
        description="materials of phase 0, 1 of each case: young (GPa, > 0), poisson (> -1, < 0.5)"
    )
    load: LoadConfig = LoadConfig()
    solver: SolverConfig = SolverConfig()
    networks: Annotated[list[NetworkConfig], Len(1)] = Field(description="the networks to train")
    training: TrainingConfig = TrainingConfig()
    jobs: JobsConfig = JobsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [n.name for n in self.networks]
        for i, network in enumerate(self.networks):
            if network.name in BASELINES:
                raise ValueError(f"networks.{i}.name = {network.name!r}: must not be one of {', '.join(BASELINES)}")
            if names.index(network.name) != i:
                raise ValueError(f"networks.{i}.name = {network.name!r}: must not repeat the name of another network")
            for case in network.train_on:
                if case not in self.cases:
                    raise ValueError(
                        f"networks.{i}.train_on = {case!r}: must be one of cases ({', '.join(self.cases)})"
                    )
        if self.load.strain[0] == 0:
            raise ValueError("load.strain.0 = 0: must not be 0, for the networks predict strain relative to it")
        return self

    def jobs_of(self, split: str) -> range:
        """Indices of the jobs that solve a split."""
        per_job = self.jobs.samples_per_shard * self.jobs.shards_per_job
        return range(-(-getattr(self.microstructures, split) // per_job))


def parse_config(raw: dict[str, Any]) -> Config:
    """The configuration of ``raw``. Raises ValueError with one line for each wrong key: its value and
    what is allowed."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(_line(e) for e in error.errors())) from None


def _line(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if not key:  # said by Config itself, which names the key
        return f"config: {error['msg'].removeprefix('Value error, ')}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = f"is no key; allowed here: {', '.join(_keys(error['loc'][:-1]))}"
    if error["type"] in ("missing", "missing_argument"):
        return f"config: {key} is missing"
    return f"config: {key} = {error['input']!r}: {message}"


def _keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that the schema allows at a location."""
    root = node = schema()
    for step in location:
        node = (
            node.get("properties", {}).get(step)
            or node.get("additionalProperties")
            or node.get("patternProperties")
            or node["items"]
        )
        node = root["$defs"][node["$ref"].split("/")[-1]] if "$ref" in node else node
    return list(node["properties"])


def schema() -> dict[str, Any]:
    """JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
