"""The samples of a microstructure store in the form that solvers and models need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lspipe.cell.problem import Problem
from lspipe.images import Images, list_files, read_images
from lspipe.store.shards import Store


def read_cells(cells: Store, samples: slice, problem: Problem) -> tuple[NDArray[np.integer], Problem]:
    """Read some samples of a microstructure store.

    Returns:
        Their phases (N, nx, ny, nz), and the problem that serves them. For polycrystals, the phases number the grains
        of all these samples, and the problem holds their materials and orientations.
    """
    phase = cells.arrays["phase"][samples]
    if "orientation" not in cells.arrays:
        return phase, problem
    return problem.join_grains(phase, *(cells.arrays[name][samples] for name in ("material", "orientation")))


def find_materials(arrays: Mapping[str, NDArray]) -> NDArray[np.integer]:
    """Return the number of the material of each voxel, (N, nx, ny, nz), for arrays of a microstructure store."""
    phase = arrays["phase"]
    return np.stack([m[p] for m, p in zip(arrays["material"], phase, strict=True)]) if "material" in arrays else phase


def read_materials(cells: Store, samples: slice) -> NDArray[np.integer]:
    """Read the number of the material of each voxel of some samples, (N, nx, ny, nz)."""
    return find_materials({n: cells.arrays[n][samples] for n in ("phase", "material") if n in cells.arrays})


def digest_cells(cells: Store, first: int, last: int) -> str:
    """Return the SHA-256 of samples first … last − 1, by which the receipt of their fields names them.

    Raises:
        ValueError: The shards of these samples are not whole.
    """
    per_shard = cells.attributes["samples_per_shard"]
    cells.check_whole(range(first // per_shard, -(-last // per_shard)))
    content = hashlib.sha256()
    for name in ("phase", "material", "orientation"):
        if name in cells.arrays:
            content.update(cells.arrays[name][first:last].tobytes())
    return content.hexdigest()


def open_images(cells: Store) -> Images:
    """Return the images of a microstructure store, which are kept for the shards that are made next."""
    if "images_options" not in cells.attributes:
        raise ValueError(f"{cells.path}: was imported by an earlier version; run lspipe import to make it again")
    files = cells.resolve_files("images_path")
    changed = tuple(max(f.stat().st_mtime_ns for f in list_files(file)) for file in files)
    return _open_images(tuple(files), json.dumps(cells.attributes["images_options"]), changed)


@lru_cache(maxsize=1)
def _open_images(files: tuple[Path, ...], options: str, _changed: tuple[int, ...]) -> Images:
    return read_images(files, **json.loads(options))
