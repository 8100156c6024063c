"""The Zarr stores (v3): one sample a chunk, many samples a shard, and for each shard a receipt.

A microstructure store holds ``phase`` (sample, x, y, z) uint8, ``volume_fraction`` (sample,
material), ``seed`` (sample) and ``design`` (sample, parameter). A field store holds ``strain``
(sample, component, x, y, z) float32, tensor shear, and ``iterations``, ``residual``, ``bound``
(sample). Unwritten samples read as NaN, 255 or −1. The receipt of shard 3 of ``a.zarr`` is
``a.receipts/3.json``, written once the shard is: what has no receipt is not done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from lspipe import DATA_VERSION, __version__
from lspipe.files import write_bytes, write_text

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
OTHER = "receipt of another store"
UNWRITTEN = {"uint8": 255, "uint64": 0, "int32": -1}


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
        """The store that is there. FileNotFoundError where there is none."""
        if not Path(path, "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: no Zarr store here")
        try:
            group = zarr.open_group(path, mode="r")
            return cls(path, dict(group.attrs), dict(sorted(group.arrays())))  # Zarr lists them as they come
        except ValueError as error:
            raise ValueError(f"{path}: a zarr.json in it is damaged ({error}); make the store again") from None

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

    @cached_property
    def description(self) -> str:
        """Names what the shards hold: attributes and layout, but not how many samples there are."""
        layout = {
            name: [str(a.dtype), a.shape[1:], a.chunks, a.shards, a.metadata.dimension_names]
            for name, a in self.arrays.items()
        }
        stated = {k: v for k, v in self.attributes.items() if k != "lspipe" and not k.endswith("_path")}
        return hashlib.sha256(json.dumps([stated, layout], sort_keys=True).encode()).hexdigest()

    @property
    def receipts(self) -> Path:
        """The folder of the receipts."""
        return self.path.with_suffix(".receipts")

    def receipt(self, shard: int) -> dict[str, Any]:
        return json.loads((self.receipts / f"{shard}.json").read_text())

    def files(self, shard: int) -> list[str]:
        """The files of a shard, one an array, relative to the store."""
        return [f"{n}/{a.metadata.encode_chunk_key((shard, *[0] * (a.ndim - 1)))}" for n, a in self.arrays.items()]

    def fault(self, shard: int) -> str | None:
        """What is wrong with a shard; None: nothing. Reads its receipt, and its files for their checksums."""
        try:
            if not isinstance(stated := self.receipt(shard), dict):
                raise ValueError
        except FileNotFoundError:
            return "no receipt"
        except ValueError:
            return "unreadable receipt"
        if stated.get("store") != self.description:
            return OTHER
        if stated["samples"] != list(self.samples(shard)):
            return f"receipt of samples {stated['samples'][0]} to {stated['samples'][1] - 1}"
        for name in self.files(shard):
            try:
                if checksum(self.path / name) != stated["sha256"].get(name):
                    return f"{name}: checksum differs"
            except FileNotFoundError:
                return f"{name}: missing"
        return None

    def check_whole(self, shards: Iterable[int] | None = None) -> None:
        """Raises ValueError for the first of these shards (default: of all) with a fault."""
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
        if there.description != self.description or there.samples(shard) != (first, last):
            raise ValueError(f"{self.path}: is another store by now than the one that shard {shard} was made for")
        sums = {}
        for (name, array), file in zip(self.arrays.items(), self.files(shard), strict=True):
            if arrays[name].shape != (whole := (last - first, *array.shape[1:])):
                raise ValueError(f"{self.path}: {name} of shape {arrays[name].shape} is not shard {shard}, {whole}")
            data = encode(array, arrays[name])
            sums[file] = hashlib.sha256(data).hexdigest()
            write_bytes(self.path / file, data)
        stated = {
            "store": self.description,
            "samples": [first, last],
            **record,
            "sha256": sums,
            "versions": {"lspipe": __version__, "numpy": np.__version__, "zarr": zarr.__version__},
        }
        write_text(self.receipts / f"{shard}.json", json.dumps(stated, indent=1) + "\n")
        return stated


def create(
    path: Path,
    layout: Layout,
    sizes: Mapping[str, int],
    per_shard: int,
    attributes: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    """A store of ``sizes['sample']`` samples. Of a store of the same description that is at ``path`` already,
    it keeps the shards that have a receipt and are as they would be written now. Raises ValueError where there are
    shards of another description, unless they are to be replaced, and where ``path`` holds something else."""
    check_replaceable(path, set(layout))
    if path.suffix != ".zarr":
        raise ValueError(f"{path}: must end in .zarr")
    if per_shard < 1:
        raise ValueError(f"samples per shard = {per_shard}: must be at least 1")
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    stated = {"lspipe": __version__, "data_version": DATA_VERSION, "samples_per_shard": per_shard, **attributes}
    group = zarr.create_group(new, attributes=stated)
    for name, (dtype, dims) in layout.items():
        shape = tuple(sizes[d] for d in dims)
        group.create_array(
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
    wanted = Store(path, stated, dict(group.arrays()))
    if not replace and (others := sum(wanted.fault(shard) == OTHER for shard in known(wanted.receipts))):
        shutil.rmtree(new)
        raise ValueError(f"{path}: holds {others} shards of {differing(path, stated)}; --replace removes them")
    kept = {shard for shard in wanted.shards if path.exists() and wanted.fault(shard) is None}
    for shard in set(known(wanted.receipts)) - kept:
        (wanted.receipts / f"{shard}.json").unlink()
    for entry in path.glob("*/c/*"):
        if entry.name not in map(str, kept) or entry.parts[-3] not in layout:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for array in path.glob("*/zarr.json"):
        if array.parent.name not in layout:
            shutil.rmtree(array.parent)
    # The group's own file comes last: without it there is no store.
    for file in sorted(new.rglob("zarr.json"), key=lambda f: -len(f.parts)):
        (path / file.relative_to(new)).parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, path / file.relative_to(new))
    shutil.rmtree(new)


def known(receipts: Path) -> list[int]:
    """The shards that have a receipt."""
    return [int(file.stem) for file in receipts.glob("*.json") if file.stem.isdecimal()]


def differing(path: Path, stated: Mapping[str, Any]) -> str:
    """In what the store that is there differs from one of these attributes."""
    try:
        there = Store.open(path).attributes
    except (ValueError, OSError):
        return "another store"
    plain = json.loads(json.dumps(stated))
    keys = sorted(k for k in {*there, *plain} if k != "lspipe" and there.get(k) != plain.get(k))
    return "a store with " + (", ".join(f"{k} = {there.get(k)}" for k in keys) or "another layout")


def check_replaceable(path: Path, variables: set[str]) -> None:
    """Raises ValueError unless ``path`` is free, empty or a store of these variables, which may be made anew: a whole
    one, or what is left of one. Snakemake removes zarr.json before it makes a store again."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    ours = path.is_dir() and any(path.rglob("zarr.json"))
    if ours:
        names = {entry.name for entry in path.iterdir()} - {"zarr.json"}
        ours = variables <= names or (names <= variables and all(_is_of_samples(path / name) for name in names))
    if not ours:
        raise ValueError(f"{path}: holds something else already and is not replaced")


def _is_of_samples(array: Path) -> bool:
    """Whether what is left of a store's array says so itself."""
    try:
        return json.loads((array / "zarr.json").read_text())["dimension_names"][0] in ("sample", "example")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """A store as a lazy xarray Dataset, with the names of components and parameters as coordinates."""
    Store.open(Path(path))
    import xarray as xr

    data = xr.open_zarr(path, chunks=None, consolidated=False)
    names = {"component": "components", "parameter": "parameters"}
    return data.assign_coords({dim: data.attrs[key] for dim, key in names.items() if dim in data.dims})


def open_pair(microstructures: Path, fields: Path) -> tuple[Store, Store]:
    """Both stores. Raises ValueError unless the fields are those of these microstructures."""
    cells, data = Store.open(microstructures), Store.open(fields)
    if "phase" not in cells.arrays or "strain" not in data.arrays:
        raise ValueError(f"{microstructures}, {fields}: must be a store of microstructures and one of fields")
    check_version(cells)
    check_version(data)
    if data.attributes["microstructures"] != identity(cells) or data.count != cells.count:
        raise ValueError(f"{fields}: holds the fields of other microstructures than {microstructures}")
    return cells, data


def check_version(data: Store) -> None:
    """Raise ValueError for a store whose data this version would not write again."""
    if (version := data.attributes.get("data_version")) != DATA_VERSION:
        made = f"data_version = {version}: this lspipe reads and writes {DATA_VERSION}"
        raise ValueError(f"{data.path}: {made}; make the store again, with --replace")


def beside(data: Store, name: str) -> Path:
    """Where what an attribute names was when the store was made, seen from the store."""
    return Path(os.path.normpath(data.path / data.attributes[name]))


def identity(cells: Store) -> dict[str, Any]:
    """What tells microstructure stores apart, but not how many samples they have."""
    stated = cells.attributes
    return {"split": stated["split"], **stated["source"], "shape": list(cells.arrays["phase"].shape[1:])}


def save_examples(path: Path, data: xr.Dataset) -> None:
    """The examples of an evaluation as a store of their own, whole or not at all."""
    check_replaceable(path, {"truth", "iterates"})  # an older version left them without some of the rest
    new = path.with_name(f".{path.name}.new")
    data.to_zarr(new, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(new, path)
