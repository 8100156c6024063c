"""The layout of stores: their arrays and attributes, how these are written, and a check of the files.

A microstructure store holds ``phase`` (sample, x, y, z) uint8, ``volume_fraction`` (sample, material), ``seed``
(sample) and ``design`` (sample, parameter); a store of images has no design. In a store of polycrystals, ``phase`` is
uint16 and names the grain, whose ``material`` (sample, grain) and ``orientation`` (sample, grain, quaternion) lie
beside it. A field store holds ``strain`` (sample, component, x, y, z) float32 with tensor shear, and ``iterations``,
``residual`` and ``bound`` (sample). A store of load paths holds ``strain``, ``stress`` (sample, kept, component, x, y,
z) and ``accumulated_plastic_strain`` (sample, kept, x, y, z) float32 at the kept steps, and for every step
``mean_strain``, ``mean_stress`` (sample, step, component), ``newton``, ``iterations``, ``cuts``, ``residual``,
``bound`` and ``converged`` (sample, step). A store of effective properties holds the ``stiffness`` (sample, component,
column), its guaranteed bounds ``lower`` and ``upper``, the bounds by volume fraction, the thermal ``expansion``
(sample, component), and ``gap``, ``iterations`` and ``seconds`` (sample). Samples that are not written yet read as NaN,
255, 65535 or −1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import BaseModel, Field, PositiveInt
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from lspipe.files import parse, read_json

Layout = Mapping[str, tuple[str, tuple[str, ...]]]
PHASE: Layout = {
    "phase": ("uint8", ("x", "y", "z")),
    "volume_fraction": ("float64", ("material",)),
    "seed": ("uint64", ()),
    "design": ("float64", ("parameter",)),
}
GRAINS: Layout = {
    **PHASE,
    "phase": ("uint16", ("x", "y", "z")),
    "volume_fraction": ("float64", ("crystal",)),  # xarray allows no dimension that has the name of an array
    "material": ("uint16", ("grain",)),
    "orientation": ("float64", ("grain", "quaternion")),
}
FIELDS: Layout = {
    "strain": ("float32", ("component", "x", "y", "z")),
    "iterations": ("int32", ()),
    "residual": ("float64", ()),
    "bound": ("float64", ()),
}
PATHS: Layout = {
    **dict.fromkeys(("strain", "stress"), ("float32", ("kept", "component", "x", "y", "z"))),
    "accumulated_plastic_strain": ("float32", ("kept", "x", "y", "z")),
    **dict.fromkeys(("mean_strain", "mean_stress"), ("float64", ("step", "component"))),
    **dict.fromkeys(("newton", "iterations", "cuts"), ("int32", ("step",))),
    **dict.fromkeys(("residual", "bound"), ("float64", ("step",))),
    "converged": ("bool", ("step",)),
}
MATRIX = ("float64", ("component", "column"))  # stiffness or conductivity
EFFECTIVE: Layout = {
    **dict.fromkeys(("stiffness", "lower", "upper", "reuss", "voigt", "hs_lower", "hs_upper"), MATRIX),
    "expansion": ("float64", ("component",)),
    "gap": ("float64", ()),
    "iterations": ("int32", ()),
    "seconds": ("float64", ()),
}
OPTIONAL = {"design", "material", "orientation"}  # arrays that some microstructure stores lack
UNWRITTEN = {"uint8": 255, "uint16": 65535, "uint64": 0, "int32": -1, "bool": False}
NOISE = {"strain", "stress"}  # Compression saves a tenth of these arrays and slows every random read.
# Attributes that name the entries along a dimension.
COORDINATES = {"component": "components", "parameter": "parameters", "quaternion": "quaternions", "kept": "kept"}
QUATERNIONS = ("w", "x", "y", "z")


Spacing = Annotated[list[float], Field(min_length=3, max_length=3)]


class Group(BaseModel):
    """The ``zarr.json`` of a store."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: dict[str, Any]


class Attributes(BaseModel):
    """Attributes of every store."""

    samples_per_shard: PositiveInt
    data_version: int
    samples: PositiveInt | None = None  # stores of earlier versions lack it


class Generated(BaseModel):
    root_seed: int
    generator: dict[str, Any] | None = None  # the paper's cells have none


class Imported(BaseModel):
    first: int


class CellAttributes(Attributes):
    """Attributes of a microstructure store."""

    split: str
    source: Generated | Imported
    axes: str
    spacing: Spacing | None = None  # cubic voxels have none
    parameters: list[str] | None = None
    quaternions: list[str] | None = None
    labels: list[int] | None = None
    images: list[str] | None = None
    images_path: list[str] | None = None
    images_options: dict[str, Any] | None = None
    image_numbers: list[int] | None = None


class EffectiveAttributes(Attributes):
    """Attributes of a store of effective properties."""

    microstructures: dict[str, Any]
    images: list[str] | None = None
    microstructures_path: str
    components: list[str]
    materials: list[dict[str, Any]]
    spacing: Spacing | None = None
    scheme: str
    tol: float


class FieldAttributes(EffectiveAttributes):
    """Attributes of a field store."""

    macroscopic_strain: list[float | None]
    stress: list[float | None] | None = None
    temperature: float = 0.0
    truth: list[str] | None = None  # SHA-256 of the files of published strains that stand in for the solver's
    truth_path: list[str] | None = None


class PathAttributes(EffectiveAttributes):
    """Attributes of a store of load paths."""

    steps: list[tuple[list[float | None], list[float | None] | None]]
    kept: list[int]


class Receipt(BaseModel, extra="allow"):
    """The part of a receipt that later runs read."""

    store: str
    samples: Annotated[list[int], Field(min_length=2, max_length=2)]
    sha256: dict[str, str]
    images: list[str] = []


class SolvedReceipt(Receipt):
    """The part of a receipt of fields or effective properties that later runs read."""

    phase: str
    not_converged: list[int]


def lay_out_cells(attributes: Mapping[str, Any]) -> Layout:
    """Return the arrays of a microstructure store with these attributes."""
    layout = GRAINS if "quaternions" in attributes else PHASE
    return {name: array for name, array in layout.items() if name != "design" or "parameters" in attributes}


def encode_shard(array: Any, values: np.ndarray) -> memoryview:
    """Return the bytes of the file of one shard of a Zarr array.

    The file is made in memory. Zarr would read the file that it replaces, which may be broken, and the checksum must
    be that of the intended bytes, not of what reached the disk.
    """
    files: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(files),
        data=values.astype(array.dtype, copy=False),
        chunks=array.chunks,
        shards=array.shards,
        compressors=array.compressors,
        fill_value=array.fill_value,
        config={"write_empty_chunks": True},
    )
    return files["/".join(["c", *["0"] * array.ndim])].as_buffer_like()


def add_array(group: zarr.Group, name: str, layout: Layout, sizes: Mapping[str, int], per_shard: int) -> Any:
    """Add the empty array ``name`` to a group in memory."""
    dtype, dims = layout[name]
    shape = tuple(sizes[d] for d in dims)
    chunk = (1, *shape[1:]) if dims[:1] == ("kept",) else shape
    return group.create_array(
        name,
        shape=(sizes["sample"], *shape),
        dtype=dtype,
        chunks=(1 if dims else per_shard, *chunk),
        shards=(per_shard, *shape) if dims else None,
        compressors=None if name in NOISE else ZstdCodec(level=1),
        fill_value=UNWRITTEN.get(dtype, np.nan),
        dimension_names=("sample", *dims),
    )


def open_arrays(path: Path, layout: Layout, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Open the arrays of a store. Raises ValueError where their metadata differ from what ``add_array`` writes."""
    arrays: dict[str, Any] = {}
    file, memory = path / "zarr.json", zarr.create_group(MemoryStore())
    stated = {**COORDINATES, "step": "steps"}
    lengths = {dim: len(attributes[name]) for dim, name in stated.items() if name in attributes}
    try:
        group = zarr.open_group(path, mode="r")
        for name, (_, dims) in layout.items():
            file = path / name / "zarr.json"
            arrays[name] = zarr.open_array(file.parent, mode="r")
            sizes = dict(zip(dims, arrays[name].shape[1:], strict=True)) | lengths
            sizes["sample"] = attributes.get("samples") or next(iter(arrays.values())).shape[0]
            expected = add_array(memory, name, layout, sizes, attributes["samples_per_shard"]).metadata.to_dict()
            for metadata in (arrays[name].metadata.to_dict(), group[name].metadata.to_dict()):
                if wrong := [key for key in expected if metadata.get(key) != expected[key]]:
                    key = wrong[0]
                    raise ValueError(f"{key} = {metadata.get(key)!r:.300}; lspipe writes {expected[key]!r:.300}")
    except Exception as error:  # Zarr has errors of every type for metadata that it does not understand
        message = " ".join(str(error).split())[:700] or repr(error)
        raise ValueError(f"{file}: is {'damaged: ' + message if file.exists() else 'missing'}") from None
    return arrays


def encode_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes that netCDF can hold too: mappings, and lists of mappings or lists, become JSON text."""

    def is_plain(value: Any) -> bool:
        return isinstance(value, str | int | float)

    return {
        name: value
        if is_plain(value) or (not isinstance(value, dict) and all(map(is_plain, value)))
        else json.dumps(value)
        for name, value in attributes.items()
    }


def read_attributes(file: Path) -> dict[str, Any]:
    """Read attributes that ``encode_attributes`` encoded, or that an earlier version wrote without encoding."""
    return {
        name: parse(f"{file}: {name}", Any, value.encode())
        if isinstance(value, str) and value.startswith(("{", "["))
        else value
        for name, value in read_json(file, Group).attributes.items()
    }
