"""An open store: its samples lie in shards, and a receipt with checksums says that a shard is done.

The receipt of shard 3 of ``a.zarr`` is ``a.receipts/3.json``. It is written after the shard: a shard without a receipt
is not done. Where ``a.zarr`` is a link, the receipts lie beside the store that it leads to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from lspipe.cell.kinds import without_old_kind
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.problem import Problem
from lspipe.files import parse, read_json, write_bytes, write_text
from lspipe.store.layout import (
    EFFECTIVE,
    FIELDS,
    PATHS,
    Attributes,
    CellAttributes,
    EffectiveAttributes,
    FieldAttributes,
    PathAttributes,
    Receipt,
    SolvedReceipt,
    encode_shard,
    lay_out_cells,
    open_arrays,
    read_attributes,
)
from lspipe.versions import DATA_VERSION, __version__

OTHER, OTHER_IMAGES, UNREADABLE = "receipt of another store", "receipt of other images", "unreadable receipt"
MISSING = "no receipt"
# Attributes that the shards do not depend on.
INCIDENTAL = {
    *("lspipe", "samples", "images", "images_path", "images_options", "image_numbers", "microstructures_path"),
    "truth_path",
}
SOLVED = ("strain", "stiffness")  # arrays by which stores of fields and of effective properties are known
# This file lies among the receipts from the beginning. If it is missing, the store was moved without its receipts.
MARK = "description"


@dataclass(frozen=True)
class Store:
    """A store of microstructures, fields, load paths or effective properties: attributes, and Zarr arrays by name."""

    path: Path
    attributes: dict[str, Any]
    arrays: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a store; a link is followed. Arrays that lspipe does not write are left out.

        Raises:
            FileNotFoundError: There is no store.
            ValueError: The attributes or the arrays are not as lspipe writes them.
        """
        if not Path(path, "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: is no store; lspipe generate, import and allocate make stores")
        path = Path(path).resolve()
        is_fields, is_effective = ((path / name).is_dir() for name in SOLVED)
        try:
            attributes = read_attributes(path / "zarr.json")
            kind: type[Attributes]
            if is_fields:
                kind, layout = (PathAttributes, PATHS) if "steps" in attributes else (FieldAttributes, FIELDS)
            else:
                kind = EffectiveAttributes if is_effective else CellAttributes
                layout = EFFECTIVE if is_effective else lay_out_cells(attributes)
            parse(path / "zarr.json", kind, attributes)
            return cls(path, attributes, open_arrays(path, layout, attributes))
        except ValueError as error:
            raise ValueError(f"{error}; {suggest_remedy(path)}") from None

    @property
    def count(self) -> int:
        """Number of samples."""
        return next(iter(self.arrays.values())).shape[0]

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.count // self.attributes["samples_per_shard"]))

    def samples(self, shard: int) -> tuple[int, int]:
        """Return the first sample of a shard, and the one after its last."""
        per_shard = self.attributes["samples_per_shard"]
        return shard * per_shard, min((shard + 1) * per_shard, self.count)

    def images(self, shard: int) -> list[str]:
        """Return the digests of the images of a shard; none where the microstructures are generated."""
        return self.attributes.get("images", [])[slice(*self.samples(shard))]

    @cached_property
    def problem(self) -> Problem:
        """The problem that the fields of this store solve; without load in a store of effective properties.

        Raises:
            ValueError: This is a store of load paths, or the problem is not allowed.
        """
        attributes = self.attributes
        if self.has_paths:
            raise ValueError(f"{self.path}: holds load paths; must be a store of a linear problem")
        names = ("materials", "scheme", "stress", "temperature", "spacing")
        values = {name: attributes[name] for name in names if name in attributes}
        try:
            strain = attributes.get("macroscopic_strain", [0.0] * len(attributes["components"]))
            return Problem.from_json(values | {"strain": strain})
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    @property
    def has_paths(self) -> bool:
        """Whether this is a store of load paths."""
        return "mean_strain" in self.arrays

    @cached_property
    def path_problem(self) -> PathProblem:
        """The problem of the load paths of this store."""
        names = ("materials", "steps", "scheme", "spacing")
        try:
            return PathProblem.from_json({name: self.attributes[name] for name in names if name in self.attributes})
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    @cached_property
    def description(self) -> str:
        """A digest of attributes and layout. It leaves out the number of samples and their images."""
        layout = {
            name: [str(a.dtype), a.shape[1:], a.chunks, a.shards, a.metadata.dimension_names]
            for name, a in self.arrays.items()
        }
        attributes = {k: v for k, v in self.attributes.items() if k not in INCIDENTAL}
        if "materials" in attributes:
            attributes["materials"] = [without_old_kind(m) for m in attributes["materials"]]
        return hashlib.sha256(json.dumps([attributes, layout], sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """The attributes that tell microstructure stores apart, without the number of samples and their images."""
        attributes = self.attributes
        optional = {name: attributes[name] for name in ("labels", "spacing") if name in attributes}
        shape = list(self.arrays["phase"].shape[1:])
        return {"split": attributes["split"], **attributes["source"], **optional, "shape": shape}

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel of a microstructure store."""
        x, y, z = self.attributes.get("spacing", (1.0, 1.0, 1.0))
        return x, y, z

    @property
    def receipts(self) -> Path:
        """The folder of the receipts."""
        return self.path.with_name(self.path.name.removesuffix(".zarr") + ".receipts")

    @property
    def received(self) -> list[int]:
        """The shards that have a receipt, whatever is in it."""
        return [int(file.stem) for file in self.receipts.glob("*.json") if re.fullmatch("0|[1-9][0-9]*", file.stem)]

    def receipt(self, shard: int) -> dict[str, Any]:
        """Read the receipt of a shard."""
        kind = Receipt if "phase" in self.arrays else SolvedReceipt
        return read_json(self.receipts / f"{shard}.json", kind).model_dump()

    def partial(self, shard: int) -> Path:
        """Return the folder of the saved parts of a shard that is not done; see ``path_solving``."""
        return self.receipts / f"{shard}.partial"

    def parse_shard(self, name: str) -> int:
        """Return the shard of a number or of the path of a receipt. ValueError for a receipt of another store."""
        file = Path(name)
        if not file.stem.isdecimal():
            raise ValueError(f"shard = {name}: must be a number or a receipt")
        if file.suffix and file.parent.resolve() != self.receipts.resolve():
            raise ValueError(
                f"{name}: the receipts of {self.path} are in {self.receipts}; make {file.parent} a link to it"
            )
        return int(file.stem)

    def resolve(self, attribute: str) -> Path:
        """Return the path in an attribute that ``relative_path`` made."""
        return Path(os.path.normpath(self.path / self.attributes[attribute]))

    def resolve_files(self, attribute: str) -> list[Path]:
        """Return the files that an attribute lists; none where the store lacks it."""
        return [Path(os.path.normpath(self.path / file)) for file in self.attributes.get(attribute, [])]

    def files(self, shard: int) -> list[str]:
        """Return the files of a shard relative to the store, one for each array."""
        return [f"{n}/{a.metadata.encode_chunk_key((shard, *[0] * (a.ndim - 1)))}" for n, a in self.arrays.items()]

    def find_fault(self, shard: int) -> str | None:
        """Return the fault of a shard, or None. This reads its receipt, and its files for their checksums."""
        try:
            receipt = self.receipt(shard)
        except FileNotFoundError:
            return MISSING
        except ValueError:
            return UNREADABLE
        if receipt["store"] != self.description:
            return OTHER
        if any(a != b for a, b in zip(receipt["images"], self.images(shard), strict=False)):
            return OTHER_IMAGES
        if receipt["samples"] != list(self.samples(shard)):
            return f"receipt of samples {receipt['samples'][0]} to {receipt['samples'][1] - 1}"
        for name in self.files(shard):
            try:
                if compute_checksum(self.path / name) != receipt["sha256"].get(name):
                    return f"{name}: checksum differs"
            except FileNotFoundError:
                return f"{name}: missing"
        return None

    def is_done(self, shard: int) -> bool:
        """Whether a shard is whole. ValueError for a receipt of another store: its shard must not be overwritten."""
        if (fault := self.find_fault(shard)) in (OTHER, OTHER_IMAGES):
            raise ValueError(f"{self.path}: shard {shard}: {fault}; {suggest_remedy(self.path)}")
        return fault is None

    def check_receipts(self) -> None:
        """Raise ValueError where there are shards but never were receipts: the store was moved without them."""
        if (self.receipts / MARK).exists() or self.received:
            return
        if any(any((self.path / name / "c").glob("[0-9]*")) for name in self.arrays):
            raise ValueError(
                f"{self.path}: holds shards without receipts; move their receipts to {self.receipts}, or remove the "
                "store"
            )

    def check_version(self) -> None:
        """Raise ValueError for a store whose data this version would not write again."""
        if (version := self.attributes["data_version"]) != DATA_VERSION:
            raise ValueError(
                f"{self.path}: data_version = {version}: this lspipe reads and writes {DATA_VERSION}; "
                f"{suggest_remedy(self.path)}"
            )

    def check_whole(self, shards: Iterable[int] | None = None) -> None:
        """Raise ValueError for the first of these shards (default: of all) that has a fault."""
        self.check_receipts()
        for shard in self.shards if shards is None else shards:
            if fault := self.find_fault(shard):
                finish = f"run {find_command(self.path, 'solve')} to finish it"
                remedy = finish if fault == MISSING else "run lspipe verify --repair to make it again"
                raise ValueError(f"{self.path}: shard {shard}: {fault}; {remedy}")

    def write(self, shard: int, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a whole shard, then its receipt: ``record`` and the checksums of the files. Returns the receipt.

        Raises:
            ValueError: The store on disk is another one by now, or the arrays are not the whole shard. A part of a
                shard would lose the samples beside it.
        """
        current = Store.open(self.path)
        first, last = self.samples(shard)
        expected = self.description, (first, last), self.images(shard)
        if (current.description, current.samples(shard), current.images(shard)) != expected:
            raise ValueError(f"{self.path}: was replaced while shard {shard} was computed; run the command again")
        checksums = {}
        for (name, array), file in zip(self.arrays.items(), self.files(shard), strict=True):
            if arrays[name].shape != (shape := (last - first, *array.shape[1:])):
                raise ValueError(
                    f"{self.path}: {name} of shard {shard} has the shape {arrays[name].shape}; must be {shape}"
                )
            data = encode_shard(array, arrays[name])
            checksums[file] = hashlib.sha256(data).hexdigest()
            write_bytes(self.path / file, data)
        receipt = {
            "store": self.description,
            "samples": [first, last],
            "images": self.images(shard),
            **record,
            "sha256": checksums,
            "versions": {"lspipe": __version__, "numpy": np.__version__, "zarr": zarr.__version__},
        }
        write_text(self.receipts / f"{shard}.json", json.dumps(receipt, indent=1) + "\n")
        return receipt


def open_pair(microstructures: Path, solved: Path, kinds: Collection[str] = ("strain",)) -> tuple[Store, Store]:
    """Open both stores.

    Raises:
        ValueError: The second one is not of these microstructures, or has none of the arrays ``kinds``.
    """
    cells, data = Store.open(microstructures), Store.open(solved)
    if "phase" not in cells.arrays or not data.arrays.keys() & {*kinds}:
        content = "fields or effective properties" if "stiffness" in kinds else "fields"
        raise ValueError(f"{microstructures}, {solved}: must be a store of microstructures and one of {content}")
    cells.check_version()
    data.check_version()
    stated = [data.attributes["microstructures"], data.attributes.get("images", []), data.count]
    if stated != [cells.identity, cells.attributes.get("images", []), cells.count]:
        theirs = data.attributes["microstructures_path"]
        raise ValueError(f"{solved}: belongs to other microstructures than {microstructures}: those of {theirs}")
    return cells, data


def compute_checksum(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def suggest_remedy(path: Path) -> str:
    """Return the command that repairs the metadata of a store, for a message."""
    return f"run {find_command(path, 'allocate')} to make the store again; whole shards are kept"


def find_command(path: Path, of_fields: str) -> str:
    """Return the command that writes a store, for a message; ``of_fields`` is that for a store of fields."""
    commands = {"strain": of_fields, "stiffness": "homogenize"}
    command = next((c for name, c in commands.items() if (path / name).is_dir()), "generate (of images: import)")
    return f"lspipe {command}"


def relative_path(path: Path, file: Path) -> str:
    """Return the path of a file relative to a store, links followed in both, for an attribute; see Store.resolve."""
    relative = os.path.relpath(file.resolve(), path.resolve())
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{relative!a}: the name is not UTF-8; rename the file or its folder") from None
    return relative
