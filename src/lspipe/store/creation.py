"""Creation of stores, which keep the whole shards of an earlier store, and of the examples of an evaluation."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import zarr
from zarr.storage import MemoryStore

from lspipe.cell.numbers import shorten
from lspipe.files import leftovers, locked, write_bytes, write_text
from lspipe.store.layout import GRAINS, OPTIONAL, PATHS, Layout, add_array, encode_attributes
from lspipe.store.shards import INCIDENTAL, MARK, OTHER, OTHER_IMAGES, UNREADABLE, Store
from lspipe.versions import DATA_VERSION, __version__

if TYPE_CHECKING:
    import xarray as xr


def create_store(
    path: Path,
    layout: Layout,
    sizes: Mapping[str, int],
    per_shard: int,
    attributes: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    """Create a store of ``sizes['sample']`` samples.

    If a store of the same description exists, those of its shards are kept that are whole and as they would be written
    now.

    Raises:
        ValueError: Shards of another description exist and ``replace`` is false, shards have no receipts, ``path``
            holds something else, or another process writes to the store.
    """
    check_replaceable(path, set(layout) - OPTIONAL)
    path = path.resolve()
    if path.suffix != ".zarr":
        raise ValueError(f"{path}: must end in .zarr")
    if per_shard < 1:
        raise ValueError(f"samples per shard = {per_shard}: must be at least 1")
    count = sizes["sample"]
    values = {"lspipe": __version__, "data_version": DATA_VERSION, "samples_per_shard": per_shard, **attributes}
    values["samples"] = count
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes=encode_attributes(values))
    new = Store(path, values, {name: add_array(group, name, layout, sizes, per_shard) for name in layout})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray reads consolidated metadata first, though no standard has it yet
        zarr.consolidate_metadata(group.store)
    with locked(path):
        new.check_receipts()
        faults = {shard: new.find_fault(shard) for shard in new.received}
        if not replace and (others := sum(fault in (OTHER, OTHER_IMAGES) for fault in faults.values())):
            difference = describe_differences(path, values) if OTHER in faults.values() else "other images"
            raise ValueError(f"{path}: holds {others} shards of {difference}; --replace removes them")
        last = max(
            (new.receipt(shard)["samples"][1] for shard, fault in faults.items() if fault != UNREADABLE), default=0
        )
        if not replace and last > count:
            raise ValueError(f"{path}: holds {last} samples, more than {count}; --replace removes the others")
        is_same = (new.receipts / MARK).exists() and (new.receipts / MARK).read_text("utf-8").strip() == new.description
        partial = [*new.receipts.glob("*.partial")]
        if partial and not replace and not is_same:
            difference = describe_differences(path, values)
            raise ValueError(f"{path}: holds saved steps of {difference}; --replace removes them")
        for part in partial:
            if not is_same or part not in map(new.partial, new.shards):
                remove(part)
        write_text(new.receipts / MARK, new.description + "\n")
        kept = {shard for shard, fault in faults.items() if fault is None}
        for shard in faults.keys() - kept:
            (new.receipts / f"{shard}.json").unlink()
        # Load paths have these arrays. In other stores, a user may have added arrays of these names.
        before = PATHS if (path / "mean_strain").is_dir() else {}
        for name in GRAINS if "phase" in layout else {**before, **layout}:
            if name not in layout:
                remove(path / name)
            for entry in (path / name / "c").glob("[0-9]*"):
                if entry.name not in map(str, kept):
                    remove(entry)
        for file in leftovers(path, new.receipts):
            file.unlink()
        # The group's own file comes last: without it there is no store.
        for name in sorted(files, key=len, reverse=True):
            write_bytes(path / name, files[name].as_buffer_like())


def remove(entry: Path) -> None:
    """Remove a file, a link, a folder, or nothing."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def describe_differences(path: Path, attributes: Mapping[str, Any]) -> str:
    """Return in which attributes an existing store differs from these, for a message."""
    try:
        existing = Store.open(path).attributes
    except (ValueError, OSError):
        return "another store"
    plain = json.loads(json.dumps(attributes))
    keys = sorted(k for k in {*existing, *plain} - INCIDENTAL if existing.get(k) != plain.get(k))
    return "a store with " + (", ".join(f"{k} = {shorten(existing.get(k))}" for k in keys) or "another layout")


def check_replaceable(path: Path, variables: set[str]) -> None:
    """Raise ValueError unless ``path`` is free, empty or a store of these variables, whole or partly removed.

    Snakemake removes zarr.json before it makes a store again.
    """
    if broken := [p for p in (path, *path.parents) if p.is_symlink() and not p.exists()]:
        raise ValueError(
            f"{path}: {broken[0]} is a link to {broken[0].readlink()}, which does not exist; remove or mend the link"
        )
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    names = {entry.name for entry in path.iterdir()} - {"zarr.json"} if path.is_dir() else set()
    is_whole = variables <= names and any((path / name / "zarr.json").is_file() for name in variables)
    is_rest = names and names <= variables | OPTIONAL and all(_is_of_samples(path / name) for name in names)
    if not is_whole and not is_rest:
        raise ValueError(f"{path}: holds something else already and is not replaced; give another name or remove it")


def check_new(path: Path) -> None:
    """Raise ValueError where there is something already."""
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path}: exists already and is not replaced; give another name or remove it")


def save_new(path: Path, data: xr.Dataset) -> None:
    """Write a dataset as a new store, whole or not at all.

    Raises:
        ValueError: There is something at ``path`` already.
    """
    path = path.resolve()
    new = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with locked(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in ``create_store``
            check_new(path)
            data.assign_attrs(encode_attributes(data.attrs)).to_zarr(new, zarr_format=3, consolidated=True)
            os.replace(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_of_samples(array: Path) -> bool:
    """Whether the metadata of an array name samples as its first dimension."""
    try:
        return json.loads((array / "zarr.json").read_bytes())["dimension_names"][0] in ("sample", "example")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def save_examples(path: Path, data: xr.Dataset) -> None:
    """Write the examples of an evaluation as a store, whole or not at all, in place of earlier ones."""
    check_replaceable(path, {"truth", "iterates"})  # the arrays that every version wrote
    for entry in path.glob("*"):
        if entry.name not in {"zarr.json", *data.variables} and not _is_of_samples(entry):
            raise ValueError(f"{entry}: is no part of the examples that {path} is replaced by; move it elsewhere")
    path = path.resolve()
    new = path.with_name(f".{path.name}.new")
    with locked(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in ``create_store``
        data.to_zarr(new, mode="w", zarr_format=3, consolidated=True)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(new, path)
