"""The configuration of a run: its keys with types and defaults, its checks, its JSON schema and its reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from lspipe.cell.material import Conductor, Isotropic
from lspipe.cell.numbers import SINGLE, SMALLEST, check_numbers, shorten
from lspipe.cell.physics import Physics
from lspipe.cell.problem import Problem

BASELINE = "cg"  # the name of the solver stopped early, with which every network is compared
RENAMED = {"components": "predict", "checkpoint": "published"}  # keys of networks in earlier versions
MOST = 20  # wrong values that get a line each
SHARDS = 100_000  # A split has at most so many shards; each shard is a few files.


def _unique(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("must not repeat an entry")
    return items


def _architecture(name: str) -> str:
    if not re.fullmatch(r"fln|rln-t|rln|rln-cg|[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise ValueError("must be fln, rln-t, rln, rln-cg or module:Class, which names a class of your own")
    return name


Count = Annotated[int, Field(ge=1, le=10**7)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
A_NAME = "a string of letters, digits and (not first) ._-, at most 100"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: Any) -> Any:  # Python takes True for 1
        if any(isinstance(v, bool) for v in (value if isinstance(value, list) else [value])):
            raise PydanticKnownError("float_type")
        return value


class MicrostructuresConfig(Section):
    """The microstructures: generated two-phase cells of n³ voxels, or images."""

    images: str = Field(
        "", description="a .npy or .npz file of images to use instead of generated cells; `n` is then ignored"
    )
    labels: Annotated[list[int], Len(0, 255), AfterValidator(_unique)] = Field(
        [],
        description="integers in the images, in the order of the materials of a case; by default those of the file in "
        "ascending order",
    )
    n: Annotated[int, Field(ge=8, le=4096)] = Field(12, description="voxels along an edge of the cell")
    train: Count = Field(256, description="number of microstructures to train on")
    valid: Count = Field(32, description="number of microstructures that choose the best epoch")
    test: Count = Field(64, description="number of microstructures in the tables and figures")


class ElasticConfig(Section):
    """An isotropic elastic material."""

    young: Annotated[float, Field(gt=0)] = Field(description="Young's modulus, GPa")
    poisson: Annotated[float, Field(gt=-1, lt=0.5)] = Field(description="Poisson's ratio")

    @property
    def material(self) -> Isotropic:
        return Isotropic(self.young, self.poisson)


class ConductorConfig(Section):
    """An isotropic conductor of heat or electricity."""

    conductivity: Annotated[float, Field(gt=0)] = Field(
        description="conductivity, W/(m K), in place of the two keys above"
    )

    @property
    def material(self) -> Conductor:
        return Conductor(self.conductivity)


ELASTIC, CONDUCTOR = "#/$defs/ElasticConfig", "#/$defs/ConductorConfig"  # places in the JSON schema


def _kind(material: Any) -> str:
    conducts = isinstance(material, ConductorConfig) or (isinstance(material, dict) and "conductivity" in material)
    return CONDUCTOR if conducts else ELASTIC


MaterialConfig = Annotated[
    Annotated[ElasticConfig, Tag(ELASTIC)] | Annotated[ConductorConfig, Tag(CONDUCTOR)], Discriminator(_kind)
]


class LoadConfig(Section):
    """The macroscopic load."""

    strain: Annotated[list[float], Len(3, 6)] = Field(
        [1e-3, 0, 0, 0, 0, 0],
        description="macroscopic strain xx, yy, zz, yz, xz, xy (tensor shear), or macroscopic gradient x, y, z of "
        "conductors; the first component must not be 0",
    )


class SolverConfig(Section):
    """How the ground truth is solved."""

    scheme: Literal["bbar", "full", "reduced"] = Field(
        "bbar", description="element: bbar (Abaqus C3D8), full (2×2×2 Gauss points), reduced (one point)"
    )
    tol: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4, description="relative residual (energy norm) at which the solver stops"
    )


class NetworkConfig(Section):
    """A network to train, or a published one."""

    name: Name = Field(description="name of its folder and its rows in the tables; must be unique")
    architecture: Annotated[str, AfterValidator(_architecture)] = Field(
        description="the paper's fln (one pass), rln-t (5 passes, tied weights), rln (5 passes); rln-cg (5 passes "
        "of conjugate gradients with a learned local solver); or module:Class, a class of your own (docs/network.md)"
    )
    predict: Literal["first", "all"] = Field(
        "first",
        description="strain components that the network predicts: first (xx alone, as in the paper) or all; rln-cg "
        "predicts all in either case",
    )
    published: str = Field(
        "", description="file of weights that the paper's authors publish; the network is then used without training"
    )
    train_on: Annotated[list[Name], Len(1), AfterValidator(_unique)] = Field(
        description="the case to train on; rln-cg may train on several, because the moduli are among its inputs"
    )


class TrainingConfig(Section):
    """How networks are trained: Adam, cosine decay to 1e-8, gradient norm at most 2 per pass."""

    seeds: Annotated[list[Seed], Len(1), AfterValidator(_unique)] = Field(
        [0], description="seeds; each network is trained once with each seed"
    )
    epochs: Count = Field(8, description="passes through the training set")
    batch: Count = Field(4, description="microstructures in a training step")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(2e-3, description="initial learning rate")
    precision: Literal["float32", "bf16", "tf32"] = Field(
        "float32",
        description="precision of convolutions in training: float32, bf16 (CUDA and CPUs) or tf32 (CUDA only)",
    )


class JobsConfig(Section):
    """How the data set is divided."""

    samples_per_shard: Count = Field(64, description="samples in a shard, which one task solves and writes")
    shards_per_job: Count = Field(4, description="shards that one job of the workflow solves")


class Config(Section):
    """A run."""

    run: Name = Field("default", description="name of the folder results/{run}")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="root of the seeds of the microstructures")
    microstructures: MicrostructuresConfig = MicrostructuresConfig()
    cases: Annotated[dict[Name, Annotated[list[MaterialConfig], Len(2)]], Len(1)] = Field(
        description="for each case, its materials of phases 0, 1, …; generated cells have two phases"
    )
    load: LoadConfig = LoadConfig()
    solver: SolverConfig = SolverConfig()
    networks: Annotated[list[NetworkConfig], Len(1)] = Field(description="the networks to train and compare")
    training: TrainingConfig = TrainingConfig()
    jobs: JobsConfig = JobsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [n.name for n in self.networks]
        for i, network in enumerate(self.networks):
            if network.name == BASELINE:
                raise ValueError(f"networks.{i}.name = {network.name!r}: is the solver itself; choose another")
            if names.index(network.name) != i:
                raise ValueError(f"networks.{i}.name = {network.name!r}: must not repeat the name of another network")
            for k, case in enumerate(network.train_on):
                if case not in self.cases:
                    raise ValueError(
                        f"networks.{i}.train_on.{k} = {case!r}: must be one of cases ({', '.join(self.cases)})"
                    )
            if len(network.train_on) > 1 and network.architecture != "rln-cg":
                raise ValueError(
                    f"networks.{i}.train_on = {network.train_on}: must be one case, for {network.architecture} does "
                    "not see the moduli"
                )
            if network.published and network.architecture not in ("fln", "rln-t", "rln"):
                raise ValueError(
                    f"networks.{i}.architecture = {network.architecture!r}: published networks are fln, rln-t and rln"
                )
            if network.published and network.predict != "first":
                raise ValueError(f"networks.{i}.predict = {network.predict!r}: published networks are for xx")
            if network.published and not self._is_the_papers(network.train_on[0]):
                raise ValueError(
                    f"networks.{i}.published = {network.published!r}: published networks are for two materials with "
                    "one Poisson's ratio, a load.strain of xx alone, and solver.scheme bbar"
                )
        labels = self.microstructures.labels
        if labels and not self.microstructures.images:
            raise ValueError(f"microstructures.labels = {labels}: must be left out, for there are no images")
        for name, materials in self.cases.items():
            if labels and len(materials) != len(labels):
                raise ValueError(
                    f"cases.{name}: must have {len(labels)} materials, not {len(materials)}: one for each of "
                    "microstructures.labels"
                )
            if not self.microstructures.images and len(materials) != 2:
                raise ValueError(f"cases.{name}: must have 2 materials, not {len(materials)}: one for each phase")
            for i, material in enumerate(materials):
                for key in {"young", "conductivity"} & type(material).model_fields.keys():
                    check_numbers(f"cases.{name}.{i}.{key}", getattr(material, key), SINGLE)
            try:
                self.problem(name)
            except ValueError as error:
                raise ValueError(f"cases.{name} under load.strain: {error}") from None
        for split in ("train", "valid", "test"):
            if (count := len(self.shards_of(split))) > SHARDS:
                raise ValueError(
                    f"jobs.samples_per_shard = {self.jobs.samples_per_shard}: makes {count} shards of "
                    f"microstructures.{split}; must make at most {SHARDS}"
                )
        first, largest = self.load.strain[0], max(map(abs, self.load.strain))
        check_numbers("load.strain", self.load.strain, SINGLE)
        if abs(first) <= SMALLEST * largest:
            raise ValueError(
                f"load.strain.0 = {first:g}: must not be 0, for the networks predict strain relative to it, and not "
                f"less than {SMALLEST:g} of the largest component"
            )
        return self

    def _is_the_papers(self, case: str) -> bool:
        """Whether the published networks can be meant for a case: all but its moduli is as in the paper."""
        ratios = {getattr(m, "poisson", None) for m in self.cases[case]}  # a conductor has none
        is_pair = len(self.cases[case]) == 2 and len(ratios) == 1 and None not in ratios
        return is_pair and not any(self.load.strain[1:]) and self.solver.scheme == "bbar"

    @property
    def physics(self) -> Physics:
        """Elasticity or conduction."""
        return self.problem(next(iter(self.cases))).physics

    def problem(self, case: str) -> Problem:
        """Return the problem of a case."""
        return Problem([m.material for m in self.cases[case]], self.load.strain, scheme=self.solver.scheme)  # type: ignore[arg-type]

    def first_image(self, split: str) -> int:
        """Return the number of the first image of a split: test takes the first images, then valid, then train."""
        taken = {"test": 0, "valid": self.microstructures.test}
        return taken.get(split, self.microstructures.test + self.microstructures.valid)

    def shards_of(self, split: str) -> range:
        """Return the shards of a split."""
        return range(-(-getattr(self.microstructures, split) // self.jobs.samples_per_shard))

    def jobs_of(self, split: str) -> list[range]:
        """Return the shards that each job solves of a split."""
        shards, per_job = self.shards_of(split), self.jobs.shards_per_job
        return [shards[first : first + per_job] for first in range(0, len(shards), per_job)]


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses a key that occurs twice in a mapping: the first value would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                raise ValueError(
                    f"line {key.start_mark.line + 1}: the key {shorten(key.value)} is there twice; keep one"
                )
            seen.add(name)
        return node


def read_yaml(where: object, text: str | bytes) -> Any:
    """Read YAML text, or JSON, which is YAML too.

    Raises:
        ValueError: The text is not UTF-8, is not YAML, or has a key twice. The message is one line that begins with
            ``where``.
    """
    try:
        return yaml.load(text if isinstance(text, str) else text.decode(), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None


def parse_config(raw: Any) -> Config:
    """Check a configuration and fill in the defaults.

    Args:
        raw: What was read from YAML or JSON.

    Raises:
        ValueError: Keys or values are wrong. The message has a line for each, with the value and what is allowed.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        errors = error.errors()
        more = [f"config: {len(errors) - MOST} more values are wrong"] if len(errors) > MOST else []
        raise ValueError("\n".join([*map(_line, errors[:MOST]), *more])) from None


def _line(error: Any) -> str:
    location = list(error["loc"])
    if is_key := location[-1:] == ["[key]"]:
        location[-2:] = [error["input"]]
    key = ".".join(str(step) for step in location if step not in (ELASTIC, CONDUCTOR)) or "top level"
    if location and location[-1] == ELASTIC:  # no mapping, which may be meant as either kind
        location.pop()
    match error["type"]:
        case "value_error" if not location:  # from Config, which names the key
            return f"config: {error['ctx']['error']}"
        case "value_error":
            rule = str(error["ctx"]["error"])
        case "extra_forbidden" if location[0] == "networks" and location[-1] in RENAMED:
            rule = f"is now called {RENAMED[location[-1]]}"
        case "extra_forbidden" | "invalid_key":
            rule = f"is no key; allowed here: {', '.join(_at(location[:-1])['properties'])}"
        case "finite_number":
            rule = "must be a finite number"
        case "string_pattern_mismatch":
            rule = f"must be {A_NAME}"
        case _:
            node = {"type": "string", "pattern": ""} if is_key else _at(location)
            rule = f"must be {_allowed(node)}"
            if node.get("type") == "string" and isinstance(error["input"], bool | int | float | date):
                rule += "; put quotes around it"
    value = "is missing" if error["type"] == "missing" else f"= {shorten(error['input'])}"
    return f"config: {key:.200} {value}: {rule}"


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def reference() -> str:
    """Return a Markdown table of all keys."""
    rows = [("key", "must be", "default", "meaning"), ("---",) * 4, *_rows("", schema())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(key: str, node: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    node = _resolved(node)
    if "description" in node and "properties" not in node:
        default = f"`{json.dumps(node['default'])}`" if "default" in node else "required"
        yield f"`{key}`", _allowed(node), default, node["description"]
    if "items" in node:
        yield from _rows(f"{key}[]", node["items"])
    for name, child in node.get("properties", {}).items():
        yield from _rows(f"{key}.{name}".lstrip("."), child)
    for child in node.get("patternProperties", {}).values():
        yield from _rows(f"{key}.{{case}}", child)
    for child in node.get("oneOf", []):
        yield from _rows(key, child)


def _allowed(node: dict[str, Any]) -> str:
    """Return the values that a part of the schema allows, in words."""
    node = _resolved(node)
    match node:
        case {"enum": [*others, last]}:
            return f"{', '.join(others)} or {last}"
        case {"properties": keys}:
            return f"a mapping of {', '.join(keys)}"
        case {"items": item, "minItems": least, "maxItems": most}:
            return f"a list of {least} to {most}, each {_allowed(item)}"
        case {"items": item, "maxItems": most}:
            return f"a list of at most {most}, each {_allowed(item)}"
        case {"items": item, "minItems": least}:
            return f"a list of at least {least}, each {_allowed(item)}"
        case {"oneOf": kinds}:
            return " or ".join(map(_allowed, kinds))
        case {"patternProperties": named, "minProperties": least}:
            return f"a mapping of at least {least}, each {_allowed(*named.values())}"
        case {"type": "string", "pattern": _}:
            return A_NAME
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {node[bound]}" for bound, sign in signs.items() if bound in node)
    return f"{'an' if node['type'] == 'integer' else 'a'} {node['type']} {bounds}".rstrip()


def _at(location: Sequence[str | int]) -> dict[str, Any]:
    """Return the part of the schema for a location in the configuration."""
    node = schema()
    for step in location:
        match _resolved(node):
            case {"oneOf": _}:
                node = {"$ref": step}
            case {"properties": keys}:
                node = keys[step]
            case {"items": item}:
                node = item
            case {"patternProperties": named}:
                (node,) = named.values()
    return _resolved(node)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    return schema()["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
