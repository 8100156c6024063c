"""Layout, writing and reading of the Zarr stores (v3): one sample a chunk, many samples a shard.

A microstructure store holds ``phase`` (sample, x, y, z) uint8, ``volume_fraction`` (sample,
material), ``seed`` (sample) and ``design`` (sample, parameter). A field store holds ``strain``
(sample, component, x, y, z) float32, tensor shear, and ``iterations``, ``residual``, ``bound``
(sample). Unwritten samples read as NaN, 255 or −1.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from lspipe import DATA_VERSION, __version__

PHASE = {
    "phase": ("uint8", ("x", "y", "z")),
    "volume_fraction": ("float64", ("material",)),
    "seed": ("uint64", ()),
    "design": ("float64", ("parameter",)),
}
FIELDS = {
    "strain": ("float32", ("component", "x", "y", "z")),
    "iterations": ("int32", ()),
    "residual": ("float64", ()),
    "bound": ("float64", ()),
}
UNWRITTEN = {"uint8": 255, "uint64": 0, "int32": -1}


def create(
    path: Path,
    layout: Mapping[str, tuple[str, tuple[str, ...]]],
    sizes: Mapping[str, int],
    per_shard: int,
    attributes: Mapping[str, Any],
) -> None:
    """An empty store of ``sizes['sample']`` samples, replacing any at ``path``; whole or not at all."""
    check_replaceable(path, set(layout))
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    group = zarr.create_group(new, attributes={"lspipe": __version__, "data_version": DATA_VERSION, **attributes})
    samples = sizes["sample"]
    for name, (dtype, dims) in layout.items():
        shape = tuple(sizes[d] for d in dims)
        group.create_array(
            name,
            shape=(samples, *shape),
            dtype=dtype,
            chunks=(1 if dims else per_shard, *shape),
            shards=(per_shard, *shape) if dims else None,
            # Strain is close to noise: compression saves a tenth and slows every random read.
            compressors=None if name == "strain" else ZstdCodec(level=1),
            fill_value=UNWRITTEN.get(dtype, np.nan),
            dimension_names=("sample", *dims),
        )
    shutil.rmtree(path, ignore_errors=True)
    os.replace(new, path)


def check_replaceable(path: Path, variables: set[str]) -> None:
    """Raises ValueError unless ``path`` is free, empty or a store of these variables, which may be made anew."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / "zarr.json").is_file() or not variables <= set(zarr.open_group(path, mode="r").array_keys()):
        raise ValueError(f"{path}: holds something else already and is not replaced")


def write(path: Path, first: int, arrays: Mapping[str, np.ndarray], per_shard: int) -> None:
    """Samples from ``first`` on. They must be whole shards: part of one would lose its neighbours."""
    group = zarr.open_group(path, mode="r+")
    for name, values in arrays.items():
        array: Any = group[name]
        last = first + len(values)
        if values.shape[1:] != array.shape[1:]:
            raise ValueError(f"{path}: {name} of shape {values.shape[1:]} does not fit its {array.shape[1:]}")
        if first % per_shard or (last % per_shard and last != array.shape[0]):
            raise ValueError(f"samples {first} to {last - 1} of {path} are not whole shards of {per_shard}")
        array[first:last] = values


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """A store as a lazy xarray Dataset, with the names of components and parameters as coordinates."""
    if not Path(path, "zarr.json").is_file():
        raise FileNotFoundError(f"{path}: no Zarr store here")
    data = xr.open_zarr(path, chunks=None, consolidated=False)
    names = {"component": "components", "parameter": "parameters"}
    return data.assign_coords({dim: data.attrs[key] for dim, key in names.items() if dim in data.dims})


def open_pair(microstructures: Path, fields: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """Both stores. Raises ValueError unless the fields are those of these microstructures."""
    cells, data = open_dataset(microstructures), open_dataset(fields)
    if "phase" not in cells or "strain" not in data:
        raise ValueError(f"{microstructures}, {fields}: must be a store of microstructures and one of fields")
    if data.attrs["microstructures"] != identity(cells):
        raise ValueError(f"{fields}: holds the fields of other microstructures than {microstructures}")
    return cells, data


def identity(cells: xr.Dataset) -> dict[str, Any]:
    """What tells microstructure stores apart."""
    return {"split": cells.attrs["split"], "root_seed": cells.attrs["root_seed"], "shape": list(cells.phase.shape)}


def save_dataset(path: Path, data: xr.Dataset) -> None:
    """A small dataset as a store of its own, whole or not at all."""
    check_replaceable(path, {str(name) for name in data.data_vars})
    new = path.with_name(f".{path.name}.new")
    data.to_zarr(new, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(new, path)
