"""The Zarr stores (v3) of microstructures and fields: one sample in a chunk, many samples in a shard.

layout.py has the arrays and attributes, shards.py an open store with its receipts, creation.py makes new stores.
Nothing else uses Zarr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lspipe.store.layout import COORDINATES
from lspipe.store.shards import Store

if TYPE_CHECKING:
    import xarray as xr  # takes long to import, and a worker that solves does without


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a store as a lazy xarray Dataset, with the names of components and parameters, and the numbers of the kept
    steps of load paths, as coordinates.

    Args:
        path: A store of microstructures or fields, or the examples of an evaluation.

    Raises:
        FileNotFoundError: There is no store.
        ValueError: The store is damaged.
    """
    path = Path(path)
    is_examples = (path / "truth").is_dir() and (path / "zarr.json").is_file()
    attributes: Mapping[str, Any] = {} if is_examples else Store.open(path).attributes
    import xarray as xr

    data = xr.open_zarr(path, chunks=None, consolidated=False)
    return data.assign_coords({dim: attributes[name] for dim, name in COORDINATES.items() if name in attributes})
