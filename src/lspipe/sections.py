"""The sections of a configuration: their keys with types, defaults and descriptions.

A check of one key stands here. ``config`` checks keys against each other.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticKnownError

from lspipe.cell.arguments import check_keep
from lspipe.cell.kinds import read_material
from lspipe.cell.registry import KINDS
from lspipe.load_path import divide_steps
from lspipe.microstructure import read_generator
from lspipe.models.architectures import ARCHITECTURES


def _unique(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("must not repeat an entry")
    return items


def _architecture(name: str) -> str:
    if not re.fullmatch(rf"{'|'.join(ARCHITECTURES)}|[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise ValueError(f"must be {', '.join(ARCHITECTURES)} or module:Class, which names a class of your own")
    return name


Count = Annotated[int, Field(ge=1, le=10**7)]
Edge = Annotated[int, Field(ge=1, le=4096)]
EDGE = {"type": "integer", "minimum": 1, "maximum": 4096}
Edges = Annotated[
    list[Edge],
    Len(3, 3),
    BeforeValidator(lambda n: [n] * 3 if str(n).isdecimal() and int(n) else n),
    WithJsonSchema({"anyOf": [EDGE, {"type": "array", "items": EDGE, "minItems": 3, "maxItems": 3}]}),
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
A_NAME = "a string of letters, digits and (not first) ._-, at most 100"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: Any, info: ValidationInfo) -> Any:  # Python takes True for 1
        takes_bool = cls.model_fields[info.field_name].annotation is bool  # type: ignore[index]
        if not takes_bool and any(isinstance(v, bool) for v in (value if isinstance(value, list) else [value])):
            raise PydanticKnownError("float_type")
        return value


def convert_numbers(value: Any, depth: int = 3) -> Any:
    """Return a value in which text is a number where it reads as one: 120e9 in YAML, or 8 after ``--config``.

    Lists nested deeper than a matrix in a mapping stay as they are: an alias may stand for an exponentially large one.
    """
    if isinstance(value, dict) and depth:
        return {key: convert_numbers(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list) and depth:
        return [convert_numbers(entry, depth - 1) for entry in value]
    for number in (int, float) if isinstance(value, str) else ():
        with suppress(ValueError):
            return number(value)
    return value


def _material(values: dict[str, Any]) -> dict[str, Any]:
    read_material(values := convert_numbers(values))
    return values


def _generator(values: dict[str, Any]) -> dict[str, Any]:
    read_generator(values := convert_numbers(values))
    return values


# These are typed and checked where their kinds are defined.
MaterialValues = Annotated[
    dict[str, Any],
    AfterValidator(_material),
    WithJsonSchema(
        {
            "type": "object",
            "description": f"a material: its `kind` ({', '.join(KINDS)}), the parameters of this kind, and its "
            "orientation by `euler` or `quaternion` (docs/materials.md)",
        }
    ),
]
GeneratorValues = Annotated[dict[str, Any], AfterValidator(_generator), WithJsonSchema({"type": "object"})]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


PATHS: Any = [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
Paths = Annotated[
    list[Annotated[str, Len(1)]],
    Len(1),
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": PATHS}),
]


def _images(value: Any) -> Any:
    return {"path": value} if value and isinstance(value, str | list) else value or None


class ImagesConfig(Section):
    """Files of images, and how cells are cut from them (docs/images.md)."""

    path: Paths = Field(description="file, folder of slices, or list of files whose images follow each other")
    dataset: str = Field("", description="name of the array within the file, if it has several")
    axes: str = Field(
        "",
        description="a letter for each axis of the array in the file: x, y, z, n (images), c (one-hot channels); by "
        "default as the file states or as is usual in its format",
    )
    crop: Annotated[list[Annotated[list[int | None], Len(2, 2)]], Len(0, 3)] = Field(
        [], description="first voxel and end to keep along x, y and z; `null` stands for a face of the image"
    )
    downsample: Annotated[int, Field(ge=1)] = Field(1, description="number of voxels along each axis that become one")
    threshold: Annotated[list[float], Len(0, 254)] = Field(
        [], description="ascending grey values at which the next phase begins"
    )
    blocks: Edges | None = Field(
        None, description="voxels along an edge, or along x, y and z, of the cells into which each image is cut"
    )
    mirror: bool = Field(False, description="mirror cells along each axis, which makes them periodic")
    raw: Annotated[dict[str, Any], AfterValidator(convert_numbers)] = Field(
        {}, description="`shape` and `dtype`, and perhaps `order` and `header`, of a file without header"
    )

    @property
    def files(self) -> list[Path]:
        """The files, in the encoding of the locale."""
        return [Path(os.fsdecode(name.encode())) for name in self.path]

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``read_images``."""
        return self.model_dump(exclude={"path"}, exclude_defaults=True)


class SmallConfig(Section):
    """Smaller generated cells, on which a step of training takes less time (docs/training.md)."""

    n: Edges = Field(description="voxels along an edge of the small cells, or along x, y and z")
    train: Count = Field(description="number of small cells to train on")
    valid: Count = Field(32, description="number of small cells that choose the best epoch")


class MicrostructuresConfig(Section):
    """The microstructures: generated cells, or images."""

    generator: GeneratorValues = Field(
        {"kind": "gaussian"},
        description="what cells to generate: a `kind` and its parameters (docs/microstructures.md); gaussian without "
        "parameters makes the two-phase cells of the paper",
    )
    images: Annotated[ImagesConfig | None, BeforeValidator(_images)] = Field(
        None,
        description="images to use instead of generated cells: the path of a file, or a mapping; `generator` and `n` "
        "are then ignored",
        json_schema_extra=lambda node: node["anyOf"].__setitem__(slice(0, 0), PATHS),  # type: ignore[index]
    )
    labels: Annotated[list[int], Len(0, 255), AfterValidator(_unique)] = Field(
        [],
        description="integers in the images, in the order of the materials of a case; by default those of the file in "
        "ascending order",
    )
    n: Edges = Field(
        [12, 12, 12],
        description="voxels along an edge of the cell, or along x, y and z; 1 along z is a two-dimensional cell",
    )
    spacing: Annotated[list[Annotated[float, Field(gt=0)]], Len(3, 3)] | None = Field(
        None, description="edge lengths of a voxel along x, y and z; by default those that images state, or 1"
    )
    train: Count = Field(256, description="number of microstructures to train on")
    valid: Count = Field(32, description="number of microstructures that choose the best epoch")
    test: Count = Field(64, description="number of microstructures in the tables and figures")
    small: SmallConfig | None = Field(
        None,
        description="smaller cells of the same generator; networks with `small` train on them (docs/training.md)",
    )

    def grid_of(self, split: str) -> list[int]:
        """Return the numbers of voxels along x, y and z of the generated cells of a split."""
        return self.small.n if self.small and split.startswith("small_") else self.n

    @property
    def grids(self) -> dict[str, list[int]]:
        """The numbers of voxels of generated cells, by their keys; none where there are images."""
        small = {"microstructures.small.n": self.small.n} if self.small else {}
        return {} if self.images else {"microstructures.n": self.n, **small}


Components = Annotated[list[float | None], Len(0, 6)]


class StepConfig(Section):
    """A part of a load path, which proceeds from the load before in equal increments."""

    strain: Components = Field([], description="macroscopic strain at the end of the step, as `loads.{load}.strain`")
    stress: Components = Field([], description="macroscopic stress at the end of the step, as `loads.{load}.stress`")
    increments: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="number of equal parts of the step")


class LoadConfig(Section):
    """A macroscopic load: the strain, the stress, or for each component one of the two; or a path of such loads."""

    strain: Components = Field(
        [],
        description="macroscopic strain xx, yy, zz, yz, xz, xy (tensor shear), or macroscopic gradient x, y, z of "
        "conductors; `null` where the stress is prescribed",
    )
    stress: Components = Field(
        [],
        description="macroscopic stress, GPa, or minus the heat flux of conductors; `null` where the strain is given",
    )
    temperature: float = Field(0.0, description="change of temperature, K, which drives the `expansion` of materials")
    steps: list[StepConfig] = Field(
        [],
        description="steps of a load path, in place of `strain` and `stress`, for cases with inelastic materials "
        "(docs/plasticity.md)",
    )
    keep: list[int] = Field(
        [-1], description="increments of the path whose fields are stored, counted from 0, or from −1 at the end"
    )

    def divide(self) -> tuple[list[Any], list[int]]:
        """Return the load at the end of each increment of the path, and the numbers of the kept ones.

        Raises:
            ValueError: The load is no path, or a value is not allowed.
        """
        if not self.steps:
            raise ValueError("steps: there are none; a load path needs them")
        for name in ("strain", "stress", "temperature"):
            if value := getattr(self, name):
                raise ValueError(f"{name} = {value}: must be left out beside steps")
        steps = [(s.strain or [None] * len(s.stress), s.stress or None, s.increments) for s in self.steps]
        increments = divide_steps(steps)
        return increments, check_keep(self.keep, len(increments))


class SolverConfig(Section):
    """How the ground truth is solved."""

    scheme: Literal["bbar", "full", "reduced"] = Field(
        "bbar", description="element: bbar (Abaqus C3D8), full (2×2×2 Gauss points), reduced (one point)"
    )
    tol: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4, description="relative residual (energy norm) at which the solver stops"
    )


class HomogenizationConfig(Section):
    """How the effective properties of the test microstructures are computed."""

    tol: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-3, description="guaranteed relative gap between the bounds of the effective properties"
    )


class NetworkConfig(Section):
    """A network to train, or a published one."""

    name: Name = Field(description="name of its folder and its rows in the tables; must be unique")
    architecture: Annotated[str, AfterValidator(_architecture)] = Field(
        description="the paper's fln (one pass), rln-t (5 passes, tied weights), rln (5 passes); rln-cg (5 passes "
        "of conjugate gradients with a learned local solver); the neural operators fno (one pass), ifno and therino "
        "(16 passes); or module:Class, a class of your own (docs/network.md)"
    )
    predict: Literal["first", "all"] = Field(
        "first",
        description="strain components that the network predicts: first (xx alone, as in the paper) or all; rln-cg, "
        "fno, ifno and therino predict all in either case",
    )
    published: str = Field(
        "", description="file of weights that the paper's authors publish; the network is then used without training"
    )
    start: str = Field(
        "",
        description="model whose weights training starts from: a network that is listed before this one, a model of "
        "the package (rln-t-c10, …) or the folder of a model (docs/training.md)",
    )
    train_on: Annotated[list[str], Len(1), AfterValidator(_unique)] = Field(
        description="the case to train on; CASE/LOAD is one of its loads, and CASE stands for all of them. rln-cg, "
        "fno, ifno and therino may train on several cases, because the moduli are among their inputs"
    )
    small: bool = Field(
        False, description="train and validate on microstructures.small; the test cells are those of microstructures.n"
    )
    epochs: Count | None = Field(
        None, description="passes of this network through its training set; training.epochs unless given"
    )
    learning_rate: LearningRate | None = Field(
        None, description="initial learning rate of this network; training.learning_rate unless given"
    )


class TrainingConfig(Section):
    """How networks are trained: cosine decay to 1e-8, gradient norm at most 2 per pass."""

    seeds: Annotated[list[Seed], Len(1), AfterValidator(_unique)] = Field(
        [0], description="seeds; each network is trained once with each seed"
    )
    epochs: Count = Field(8, description="passes through the training set")
    batch: Count = Field(4, description="microstructures in a training step")
    learning_rate: LearningRate = Field(2e-3, description="initial learning rate")
    optimizer: Literal["adam", "soap"] = Field(
        "adam",
        description="adam as in the paper, or soap, which needs fewer steps for the same error (docs/training.md)",
    )
    precision: Literal["float32", "bf16", "tf32"] = Field(
        "float32",
        description="precision of convolutions in training: float32, bf16 (where the device has no instructions for "
        "it, float32 is used) or tf32 (CUDA only)",
    )


class JobsConfig(Section):
    """How the data set is divided."""

    samples_per_shard: Count = Field(64, description="samples in a shard, which one task solves and writes")
    shards_per_job: Count = Field(4, description="shards that one job of the workflow solves")
