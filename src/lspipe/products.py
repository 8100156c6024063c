"""Read and write the results of `lspipe evaluate`; each file holds a SHA-256 of its own content."""

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
}


def seal(kind: str, attributes: Mapping[Any, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes with the kind of the file, one of KINDS, and the SHA-256 of all names, types and values."""
    signed = {key: value for key, value in attributes.items() if key != "sha256"} | {"kind": kind}
    content = hashlib.sha256(json.dumps(signed, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        values = np.asarray(array)
        if values.dtype.kind in "biuf":
            content.update(f"{name} {values.dtype} {values.shape}".encode())
            content.update(np.ascontiguousarray(values).data)
        else:
            content.update(json.dumps([name, values.tolist()]).encode())
    return signed | {"sha256": content.hexdigest()}


def check_seal(path: Path, kind: str, attributes: Mapping[Any, Any], arrays: Mapping[str, Any]) -> None:
    """Raise ValueError if the file is of another kind or its content is not what was written."""
    if attributes.get("kind") != kind or "sha256" not in attributes:
        content = KINDS.get(str(attributes.get("kind")), "something else, or the product of an older version")
        raise ValueError(f"{path}: holds {content}; must hold {KINDS[kind]}")
    if seal(kind, attributes, arrays) != attributes:
        raise ValueError(f"{path}: is damaged: its SHA-256 differs; make it again")


def write_errors(path: Path, errors: pd.DataFrame) -> None:
    """Write the errors of ``evaluate`` as a parquet file, whole or not at all."""
    errors.attrs = seal("errors", errors.attrs, errors)
    write_bytes(path, errors.to_parquet())


def read_errors(path: Path) -> pd.DataFrame:
    """Read what ``write_errors`` wrote.

    Raises:
        ValueError: The file is damaged or holds something else.
    """
    data = path.read_bytes()
    try:
        errors = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow raises almost any error for a damaged file
        raise ValueError(
            f"{path}: is no parquet file, or is damaged ({error!r:.80}); must hold {KINDS['errors']}"
        ) from None
    check_seal(path, "errors", errors.attrs, errors)
    return errors


def write_examples(path: Path, examples: xr.Dataset) -> None:
    """Write the examples of ``evaluate`` as a store, whole or not at all."""
    try:
        save_examples(path, examples.assign_attrs(seal("examples", examples.attrs, _arrays(examples))))
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names no file
        raise


def read_examples(path: Path) -> xr.Dataset:
    """Open what ``write_examples`` wrote, lazily, after reading it once for the checksum.

    Raises:
        ValueError: The store is damaged or holds something else.
    """
    folder = path.parent if path.name == "zarr.json" else path
    try:
        data = open_dataset(folder)
        arrays = _arrays(data)
    except FileNotFoundError:
        raise
    except Exception as error:  # zarr and xarray raise almost any error for a damaged store
        raise ValueError(f"{folder}: is damaged ({error!r:.80}); must hold {KINDS['examples']}") from None
    check_seal(folder, "examples", data.attrs, arrays)
    return open_dataset(folder)


def _arrays(data: xr.Dataset) -> dict[str, Any]:
    return {f"{name} {variable.dims}": variable.values for name, variable in cast(Any, data.variables).items()}
