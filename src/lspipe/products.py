"""What `evaluate` and `study` write and tables and figures read: each file with a SHA-256 of its own content."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from lspipe.files import write_bytes
from lspipe.store import open_dataset
from lspipe.store.creation import save_examples

if TYPE_CHECKING:
    import xarray as xr

KINDS = {
    "errors": "the errors of `lspipe evaluate` (.parquet)",
    "examples": "the examples of `lspipe evaluate` (a store)",
    "study": "the results of `lspipe study` (.parquet)",
}


def sealed(kind: str, attributes: Mapping[Any, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a product of one of KINDS, with its kind and the SHA-256 of all names, types and values."""
    stated = {key: value for key, value in attributes.items() if key != "sha256"} | {"kind": kind}
    content = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        values = np.asarray(array)
        if values.dtype.kind in "biuf":
            content.update(f"{name} {values.dtype} {values.shape}".encode())
            content.update(np.ascontiguousarray(values).data)
        else:
            content.update(json.dumps([name, values.tolist()]).encode())
    return stated | {"sha256": content.hexdigest()}


def check_seal(path: Path, kind: str, attributes: Mapping[Any, Any], arrays: Mapping[str, Any]) -> None:
    """Raises ValueError for another kind of file, and for content that is not what was written."""
    if attributes.get("kind") != kind or "sha256" not in attributes:
        there = KINDS.get(str(attributes.get("kind")), "something else, or the product of an older version")
        raise ValueError(f"{path}: holds {there}; must hold {KINDS[kind]}")
    if sealed(kind, attributes, arrays) != attributes:
        raise ValueError(f"{path}: is damaged: its SHA-256 differs; make it again")


def write_table(path: Path, kind: str, table: pd.DataFrame) -> None:
    """Write a table as a parquet file, whole or not at all."""
    table.attrs = sealed(kind, table.attrs, table)
    write_bytes(path, table.to_parquet())


def read_table(path: Path, kind: str) -> pd.DataFrame:
    """Read the table of one of KINDS. ValueError for a damaged file and another kind."""
    data = path.read_bytes()
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow raises almost anything for a damaged file
        raise ValueError(
            f"{path}: is no parquet file, or is damaged ({error!r:.80}); must hold {KINDS[kind]}"
        ) from None
    check_seal(path, kind, table.attrs, table)
    return table


def write_examples(path: Path, examples: xr.Dataset) -> None:
    """Write examples as a store, whole or not at all."""
    try:
        save_examples(path, examples.assign_attrs(sealed("examples", examples.attrs, _arrays(examples))))
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say what did not fit
        raise


def read_examples(path: Path) -> xr.Dataset:
    """Open the examples lazily, after one reading for the checksum. ValueError as of ``read_table``."""
    folder = path.parent if path.name == "zarr.json" else path
    try:
        data = open_dataset(folder)
        arrays = _arrays(data)
    except FileNotFoundError:
        raise
    except Exception as error:  # there is no end to the ways in which a damaged store is wrong
        raise ValueError(f"{folder}: is damaged ({error!r:.80}); must hold {KINDS['examples']}") from None
    check_seal(folder, "examples", data.attrs, arrays)
    return open_dataset(folder)


def _arrays(data: xr.Dataset) -> dict[str, Any]:
    return {f"{name} {variable.dims}": variable.values for name, variable in cast(Any, data.variables).items()}
