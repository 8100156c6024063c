"""The Zarr stores (v3): one sample a chunk, many samples a shard, and for each shard a receipt.

A microstructure store holds ``phase`` (sample, x, y, z) uint8, ``volume_fraction`` (sample,
material), ``seed`` (sample) and ``design`` (sample, parameter). A field store holds ``strain``
(sample, component, x, y, z) float32, tensor shear, and ``iterations``, ``residual``, ``bound``
(sample). Unwritten samples read as NaN, 255 or −1. The receipt of shard 3 of ``a.zarr`` is
``a.receipts/3.json``, written once the shard is: what has no receipt is not done. Where ``a.zarr`` is a link, the
receipts lie beside the store that it leads to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import BaseModel, Field, PositiveInt
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from lspipe import DATA_VERSION, __version__
from lspipe.cell.material import without_old_kind
from lspipe.cell.problem import Problem
from lspipe.files import leftovers, locked, parse, read_json, write_bytes, write_text

if TYPE_CHECKING:
    import xarray as xr  # takes long to import, and a worker that solves does without

Layout = Mapping[str, tuple[str, tuple[str, ...]]]
PHASE: Layout = {
    "phase": ("uint8", ("x", "y", "z")),
    "volume_fraction": ("float64", ("material",)),
    "seed": ("uint64", ()),
    "design": ("float64", ("parameter",)),
}
FIELDS: Layout = {
    "strain": ("float32", ("component", "x", "y", "z")),
    "iterations": ("int32", ()),
    "residual": ("float64", ()),
    "bound": ("float64", ()),
}
OTHER, OTHER_IMAGES, UNREADABLE = "receipt of another store", "receipt of other images", "unreadable receipt"
UNWRITTEN = {"uint8": 255, "uint64": 0, "int32": -1}
INCIDENTAL = {
    "lspipe",
    "samples",
    "images",
    "images_path",
    "microstructures_path",
}  # attributes that the shards do not depend on
MARK = "description"  # is among the receipts from the beginning: where it is missing, the store was moved without them


class Group(BaseModel):
    """The ``zarr.json`` of a store."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: dict[str, Any]


class Attributes(BaseModel):
    """Attributes of every store."""

    samples_per_shard: PositiveInt
    data_version: int
    samples: PositiveInt | None = None  # stores of earlier versions do not state it


class Generated(BaseModel):
    root_seed: int


class Imported(BaseModel):
    first: int


class CellAttributes(Attributes):
    """Attributes of microstructures."""

    split: str
    source: Generated | Imported
    axes: str
    parameters: list[str] | None = None
    labels: list[int] | None = None
    images: list[str] | None = None
    images_path: str | None = None


class FieldAttributes(Attributes):
    """Attributes of fields."""

    microstructures: dict[str, Any]
    images: list[str] | None = None
    microstructures_path: str
    components: list[str]
    macroscopic_strain: list[float]
    materials: list[dict[str, Any]]
    scheme: str
    tol: float


class Receipt(BaseModel, extra="allow"):
    """The part of a receipt that is used again."""

    store: str
    samples: Annotated[list[int], Field(min_length=2, max_length=2)]
    sha256: dict[str, str]
    images: list[str] = []


class FieldReceipt(Receipt):
    """The same of a receipt of fields."""

    phase: str
    not_converged: list[int]


def encode(array: Any, values: np.ndarray) -> memoryview:
    """The file of a shard of a Zarr array, made in memory: Zarr itself reads the file that it replaces, broken or not,
    and the checksum should be of what was meant, not of what came to lie on the disk."""
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


def checksum(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass(frozen=True)
class Store:
    """The store at ``path`` as it was, or will be, with its attributes and arrays."""

    path: Path
    attributes: dict[str, Any]
    arrays: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Store:
        """Read the store at ``path``, or where this link leads to. Arrays that lspipe does not write are left out.

        Raises:
            FileNotFoundError: There is no store.
            ValueError: The attributes or the arrays are not as lspipe writes them.
        """
        if not Path(path, "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: no Zarr store here")
        path = Path(path).resolve()
        layout, kind = (FIELDS, FieldAttributes) if (path / "strain").is_dir() else (PHASE, CellAttributes)
        try:
            attributes = read_attributes(path / "zarr.json")
            parse(path / "zarr.json", kind, attributes)
            return cls(path, attributes, read_arrays(path, layout, attributes))
        except ValueError as error:
            raise ValueError(f"{error}; {remedy(path)}") from None

    @property
    def count(self) -> int:
        """Number of samples."""
        return next(iter(self.arrays.values())).shape[0]

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.count // self.attributes["samples_per_shard"]))

    def samples(self, shard: int) -> tuple[int, int]:
        """First sample of a shard, and the one after its last."""
        per_shard = self.attributes["samples_per_shard"]
        return shard * per_shard, min((shard + 1) * per_shard, self.count)

    def images(self, shard: int) -> list[str]:
        """Digests of the images that a shard is made of; none where the microstructures are generated."""
        return self.attributes.get("images", [])[slice(*self.samples(shard))]

    @cached_property
    def description(self) -> str:
        """Names what the shards hold: attributes and layout, but not how many samples there are, nor their images."""
        layout = {
            name: [str(a.dtype), a.shape[1:], a.chunks, a.shards, a.metadata.dimension_names]
            for name, a in self.arrays.items()
        }
        stated = {k: v for k, v in self.attributes.items() if k not in INCIDENTAL}
        if "materials" in stated:
            stated["materials"] = [without_old_kind(m) for m in stated["materials"]]
        return hashlib.sha256(json.dumps([stated, layout], sort_keys=True).encode()).hexdigest()

    @cached_property
    def problem(self) -> Problem:
        """The problem that the fields of this store solve."""
        attributes = self.attributes
        values = {name: attributes[name] for name in ("materials", "scheme", "stress", "spacing") if name in attributes}
        try:
            return Problem.from_json(values | {"strain": attributes["macroscopic_strain"]})
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    @property
    def receipts(self) -> Path:
        """The folder of the receipts."""
        return self.path.with_name(self.path.name.removesuffix(".zarr") + ".receipts")

    def receipt(self, shard: int) -> dict[str, Any]:
        kind = FieldReceipt if "strain" in self.arrays else Receipt
        return read_json(self.receipts / f"{shard}.json", kind).model_dump()

    def shard(self, name: str) -> int:
        """Return the shard that a number or the path of a receipt names. ValueError for a receipt of another store."""
        file = Path(name)
        if not file.stem.isdecimal():
            raise ValueError(f"shard = {name}: must be a number or a receipt")
        if file.suffix and file.parent.resolve() != self.receipts.resolve():
            raise ValueError(
                f"{name}: the receipts of {self.path} are in {self.receipts}; make {file.parent} a link to it"
            )
        return int(file.stem)

    def files(self, shard: int) -> list[str]:
        """The files of a shard, one an array, relative to the store."""
        return [f"{n}/{a.metadata.encode_chunk_key((shard, *[0] * (a.ndim - 1)))}" for n, a in self.arrays.items()]

    def fault(self, shard: int) -> str | None:
        """What is wrong with a shard; None: nothing. Reads its receipt, and its files for their checksums."""
        try:
            stated = self.receipt(shard)
        except FileNotFoundError:
            return "no receipt"
        except ValueError:
            return UNREADABLE
        if stated["store"] != self.description:
            return OTHER
        if any(a != b for a, b in zip(stated.get("images", []), self.images(shard), strict=False)):
            return OTHER_IMAGES
        if stated["samples"] != list(self.samples(shard)):
            return f"receipt of samples {stated['samples'][0]} to {stated['samples'][1] - 1}"
        for name in self.files(shard):
            try:
                if checksum(self.path / name) != stated["sha256"].get(name):
                    return f"{name}: checksum differs"
            except FileNotFoundError:
                return f"{name}: missing"
        return None

    def is_done(self, shard: int) -> bool:
        """Whether a shard is whole. ValueError for a receipt of another store: its shard is not to be overwritten."""
        if (said := self.fault(shard)) in (OTHER, OTHER_IMAGES):
            raise ValueError(f"{self.path}: shard {shard}: {said}; {remedy(self.path)}")
        return said is None

    def check_receipts(self) -> None:
        """Raises ValueError where there are shards but never were receipts: the store was moved without them."""
        if (self.receipts / MARK).exists() or known(self.receipts):
            return
        if any(any((self.path / name / "c").glob("[0-9]*")) for name in self.arrays):
            said = f"{self.path}: holds shards without receipts"
            raise ValueError(f"{said}; move their receipts to {self.receipts}, or remove the store")

    def check_whole(self, shards: Iterable[int] | None = None) -> None:
        """Raises ValueError for the first of these shards (default: of all) with a fault."""
        self.check_receipts()
        for shard in self.shards if shards is None else shards:
            if said := self.fault(shard):
                raise ValueError(f"{self.path}: shard {shard}: {said}; lspipe verify --repair makes it anew")

    def write(self, shard: int, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a whole shard, and then its receipt, which it returns: ``record`` and the files' checksums.

        ValueError where another store is there by now, or the arrays are not the whole shard: part of one would
        lose its neighbours.
        """
        there = Store.open(self.path)
        first, last = self.samples(shard)
        stated = self.description, (first, last), self.images(shard)
        if (there.description, there.samples(shard), there.images(shard)) != stated:
            raise ValueError(f"{self.path}: is another store by now than the one that shard {shard} was made for")
        sums = {}
        for (name, array), file in zip(self.arrays.items(), self.files(shard), strict=True):
            if arrays[name].shape != (whole := (last - first, *array.shape[1:])):
                raise ValueError(f"{self.path}: {name} of shape {arrays[name].shape} is not shard {shard}, {whole}")
            data = encode(array, arrays[name])
            sums[file] = hashlib.sha256(data).hexdigest()
            write_bytes(self.path / file, data)
        receipt = {
            "store": self.description,
            "samples": [first, last],
            "images": self.images(shard),
            **record,
            "sha256": sums,
            "versions": {"lspipe": __version__, "numpy": np.__version__, "zarr": zarr.__version__},
        }
        write_text(self.receipts / f"{shard}.json", json.dumps(receipt, indent=1) + "\n")
        return receipt


def create(
    path: Path,
    layout: Layout,
    sizes: Mapping[str, int],
    per_shard: int,
    attributes: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    """Make a store of ``sizes['sample']`` samples. Where there is a store of the same description already, its shards
    that are whole and as they would be written now are kept.

    Raises:
        ValueError: There are shards of another description that are not to be replaced, or shards without receipts;
            ``path`` holds something else; or another process writes to the store.
    """
    check_replaceable(path, set(layout))
    path = path.resolve()
    if path.suffix != ".zarr":
        raise ValueError(f"{path}: must end in .zarr")
    if per_shard < 1:
        raise ValueError(f"samples per shard = {per_shard}: must be at least 1")
    stated = {"lspipe": __version__, "data_version": DATA_VERSION, "samples_per_shard": per_shard, **attributes}
    stated["samples"] = sizes["sample"]
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes=encode_attributes(stated))
    wanted = Store(path, stated, {name: add_array(group, name, layout, sizes, per_shard) for name in layout})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray reads consolidated metadata first, though no standard has it yet
        zarr.consolidate_metadata(group.store)
    with locked(path):
        wanted.check_receipts()
        faults = {shard: wanted.fault(shard) for shard in known(wanted.receipts)}
        if not replace and (others := sum(fault in (OTHER, OTHER_IMAGES) for fault in faults.values())):
            of = differing(path, stated) if OTHER in faults.values() else "other images"
            raise ValueError(f"{path}: holds {others} shards of {of}; --replace removes them")
        last = max(
            (wanted.receipt(shard)["samples"][1] for shard, fault in faults.items() if fault != UNREADABLE), default=0
        )
        if not replace and last > sizes["sample"]:
            raise ValueError(f"{path}: holds {last} samples, more than {sizes['sample']}; --replace removes the others")
        write_text(wanted.receipts / MARK, wanted.description + "\n")
        kept = {shard for shard, fault in faults.items() if fault is None}
        for shard in faults.keys() - kept:
            (wanted.receipts / f"{shard}.json").unlink()
        for name in PHASE if "phase" in layout else FIELDS:
            if name not in layout:
                remove(path / name)
            for entry in (path / name / "c").glob("[0-9]*"):
                if entry.name not in map(str, kept):
                    remove(entry)
        for file in leftovers(path, wanted.receipts):
            file.unlink()
        # The group's own file comes last: without it there is no store.
        for name in sorted(files, key=len, reverse=True):
            write_bytes(path / name, files[name].as_buffer_like())


def add_array(group: zarr.Group, name: str, layout: Layout, sizes: Mapping[str, int], per_shard: int) -> Any:
    """The empty array ``name`` of a store, in a group that lies in memory."""
    dtype, dims = layout[name]
    shape = tuple(sizes[d] for d in dims)
    return group.create_array(
        name,
        shape=(sizes["sample"], *shape),
        dtype=dtype,
        chunks=(1 if dims else per_shard, *shape),
        shards=(per_shard, *shape) if dims else None,
        # Strain is close to noise: compression saves a tenth and slows every random read.
        compressors=None if name == "strain" else ZstdCodec(level=1),
        fill_value=UNWRITTEN.get(dtype, np.nan),
        dimension_names=("sample", *dims),
    )


def read_arrays(path: Path, layout: Layout, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a store. ValueError where their metadata are not those that ``add_array`` makes."""
    arrays: dict[str, Any] = {}
    file, memory = path / "zarr.json", zarr.create_group(MemoryStore())
    lengths = {d: len(attributes[f"{d}s"]) for d in ("component", "parameter") if f"{d}s" in attributes}
    try:
        group = zarr.open_group(path, mode="r")
        for name, (_, dims) in layout.items():
            if name == "design" and "parameters" not in attributes:
                continue  # of images
            file = path / name / "zarr.json"
            arrays[name] = zarr.open_array(file.parent, mode="r")
            sizes = dict(zip(dims, arrays[name].shape[1:], strict=True)) | lengths
            sizes["sample"] = attributes.get("samples") or next(iter(arrays.values())).shape[0]
            wanted = add_array(memory, name, layout, sizes, attributes["samples_per_shard"]).metadata.to_dict()
            for there in (arrays[name].metadata.to_dict(), group[name].metadata.to_dict()):
                if wrong := [key for key in wanted if there.get(key) != wanted[key]]:
                    key = wrong[0]
                    raise ValueError(f"{key} = {there.get(key)!r:.300}; lspipe writes {wanted[key]!r:.300}")
    except Exception as error:  # Zarr has errors of every type for metadata that it does not understand
        said = " ".join(str(error).split())[:700] or repr(error)
        raise ValueError(f"{file}: is {'damaged: ' + said if file.exists() else 'missing'}") from None
    return arrays


def encode_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF has too: mappings, and lists of more than numbers and strings, become JSON text."""

    def is_flat(value: Any) -> bool:
        return isinstance(value, str | int | float)

    return {
        name: value
        if is_flat(value) or (not isinstance(value, dict) and all(map(is_flat, value)))
        else json.dumps(value)
        for name, value in attributes.items()
    }


def read_attributes(file: Path) -> dict[str, Any]:
    """The attributes that ``encode_attributes`` encoded, or that an earlier version wrote as they are."""
    return {
        name: parse(f"{file}: {name}", Any, value.encode())
        if isinstance(value, str) and value.startswith(("{", "["))
        else value
        for name, value in read_json(file, Group).attributes.items()
    }


def remove(entry: Path) -> None:
    """Remove a file, a link, a folder, or nothing."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def remedy(path: Path) -> str:
    """What mends the metadata of a store."""
    command = "allocate" if (path / "strain").is_dir() else "generate (of images: import)"
    return f"lspipe {command} makes the store again and keeps what is whole"


def known(receipts: Path) -> list[int]:
    """The shards that have a receipt."""
    return [int(file.stem) for file in receipts.glob("*.json") if re.fullmatch("0|[1-9][0-9]*", file.stem)]


def differing(path: Path, stated: Mapping[str, Any]) -> str:
    """In what the store that is there differs from one of these attributes."""
    try:
        there = Store.open(path).attributes
    except (ValueError, OSError):
        return "another store"
    plain = json.loads(json.dumps(stated))
    keys = sorted(k for k in {*there, *plain} - INCIDENTAL if there.get(k) != plain.get(k))
    return "a store with " + (", ".join(f"{k} = {there.get(k)}" for k in keys) or "another layout")


def check_replaceable(path: Path, variables: set[str]) -> None:
    """Raises ValueError unless ``path`` is free, empty or a store of these variables, which may be made anew: a whole
    one, or what is left of one. Snakemake removes zarr.json before it makes a store again."""
    if lost := [p for p in (path, *path.parents) if p.is_symlink() and not p.exists()]:
        raise ValueError(f"{path}: {lost[0]} is a link to {lost[0].readlink()}, which is not there")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    names = {entry.name for entry in path.iterdir()} - {"zarr.json"} if path.is_dir() else set()
    whole = variables <= names and any((path / name / "zarr.json").is_file() for name in variables)
    if not whole and not (names and names <= variables and all(_is_of_samples(path / name) for name in names)):
        raise ValueError(f"{path}: holds something else already and is not replaced; give another name or remove it")


def _is_of_samples(array: Path) -> bool:
    """Whether what is left of a store's array says so itself."""
    try:
        return json.loads((array / "zarr.json").read_bytes())["dimension_names"][0] in ("sample", "example")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """A store as a lazy xarray Dataset, with the names of components and parameters as coordinates."""
    path = Path(path)
    if (path / "truth").is_dir() and (path / "zarr.json").is_file():
        attributes: Mapping[str, Any] = {}  # the examples of an evaluation
    else:
        attributes = Store.open(path).attributes
    import xarray as xr

    data = xr.open_zarr(path, chunks=None, consolidated=False)
    names = {"component": "components", "parameter": "parameters"}
    return data.assign_coords({dim: attributes[key] for dim, key in names.items() if key in attributes})


def open_pair(microstructures: Path, fields: Path) -> tuple[Store, Store]:
    """Both stores. Raises ValueError unless the fields are those of these microstructures."""
    cells, data = Store.open(microstructures), Store.open(fields)
    if "phase" not in cells.arrays or "strain" not in data.arrays:
        raise ValueError(f"{microstructures}, {fields}: must be a store of microstructures and one of fields")
    check_version(cells)
    check_version(data)
    same = [data.attributes["microstructures"], data.attributes.get("images", []), data.count]
    if same != [identity(cells), cells.attributes.get("images", []), cells.count]:
        raise ValueError(f"{fields}: holds the fields of other microstructures than {microstructures}")
    return cells, data


def seen_from(path: Path, file: Path) -> str:
    """The path of a file relative to a store, links followed in both: an attribute for ``beside``."""
    seen = os.path.relpath(file.resolve(), path.resolve())
    try:
        seen.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{seen!a}: the name is not UTF-8; rename the file or its folder") from None
    return seen


def check_version(data: Store) -> None:
    """Raise ValueError for a store whose data this version would not write again."""
    if (version := data.attributes.get("data_version")) != DATA_VERSION:
        made = f"data_version = {version}: this lspipe reads and writes {DATA_VERSION}"
        raise ValueError(f"{data.path}: {made}; make the store again, with --replace")


def beside(data: Store, name: str) -> Path:
    """Where what an attribute names was when the store was made, seen from the store."""
    return Path(os.path.normpath(data.path / data.attributes[name]))


def identity(cells: Store) -> dict[str, Any]:
    """What tells microstructure stores apart, but not how many samples they have, nor their images."""
    stated = cells.attributes
    labels = {"labels": stated["labels"]} if "labels" in stated else {}
    return {"split": stated["split"], **stated["source"], **labels, "shape": list(cells.arrays["phase"].shape[1:])}


def save_examples(path: Path, data: xr.Dataset) -> None:
    """Write the examples of an evaluation as a store of their own, whole or not at all, in place of earlier ones."""
    check_replaceable(path, {"truth", "iterates"})  # an older version left them without some of the rest
    for entry in path.glob("*"):
        if entry.name not in {"zarr.json", *data.variables} and not _is_of_samples(entry):
            raise ValueError(f"{entry}: is no part of the examples that {path} is replaced by; move it elsewhere")
    path = path.resolve()
    new = path.with_name(f".{path.name}.new")
    with locked(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in ``create``
        data.to_zarr(new, mode="w", zarr_format=3, consolidated=True)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(new, path)
