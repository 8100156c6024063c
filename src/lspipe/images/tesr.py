"""Reader of Neper's raster tessellations, .tesr."""

from __future__ import annotations

import math
import mmap
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lspipe.images.raw import map_voxels
from lspipe.images.source import Crystals, Source, check_memory, naming

TYPES = {
    f"binary{bits}{order}": f"{'>' if order else '<'}u{bits // 8}" for bits in (8, 16, 32) for order in ("", "_big")
}
PARAMETERS = {"rodrigues": 3, "euler-bunge": 3, "rotmat": 9, "axis-angle": 4, "quaternion": 4}
VOID, FIRST = 0, 1  # labels of voids and of the first grain


def find_sources(path: Path) -> list[Source]:
    """Return the raster: grains with their orientations, or labels where the file has no orientations.

    Raises:
        ValueError: The file is damaged, its orientations are in a convention that is not known, or it names a file in
            another folder.
    """
    with naming(path):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            keys, offset = _read_header(data)
        general = keys["**general"]
        dimension = int(general[0])
        numbers = general[1 : 1 + 2 * dimension]
        grid = tuple(int(n) for n in numbers[:dimension])
        spacing = [float(h) for h in numbers[dimension:]]
        if dimension not in (2, 3) or len(spacing) != dimension or min(grid) < 1 or min(spacing) <= 0:
            raise ValueError(f"**general = {' '.join(general[:7])}")
        form, *rest = keys["**data"]
        voxels = math.prod(grid)
        file_name = rest[1] if rest[:1] == ["*file"] else ""
    if file_name and (Path(file_name).name != file_name or not path.with_name(file_name).is_file()):
        raise ValueError(f"{path}: *file {file_name}: must be a file in the same folder")
    crystals = _read_crystals(path, keys)
    axes = "xyz"[:dimension]
    x, y, z = [*spacing, spacing[0]][:3]
    place = path.with_name(file_name) if file_name else path
    if form == "ascii":
        check_memory(path, 8 * voxels)
        start, changed = 0 if file_name else offset, place.stat().st_mtime_ns

        def read(part: tuple[slice, ...]) -> NDArray[Any]:
            return _read_text(place, start, voxels, changed).reshape(grid[::-1])[part]

        source = Source(path, "", grid[::-1], np.dtype(np.int64), axes[::-1], read)
    elif form in TYPES:
        dtype = np.dtype(TYPES[form])
        source = map_voxels(place, grid, dtype, "F", 0 if file_name else offset, axes, is_end=bool(file_name))
    else:
        raise ValueError(f"{path}: **data = {form}: must be ascii or one of {', '.join(TYPES)}")
    stated = frozenset({"axes", "spacing"})
    return [replace(source, path=path, stated=stated, spacing=(x, y, z), crystals=crystals)]


def _read_header(data: mmap.mmap) -> tuple[dict[str, list[str]], int]:
    """Return the words of each section, of ``**data`` only its format and file, and where the voxels begin."""
    begin = data.find(b"**data")
    if begin < 0 or not data[: 1 << 10].lstrip().startswith(b"***tesr"):
        raise ValueError("has no sections ***tesr and **data")
    keys: dict[str, list[str]] = {}
    words: list[str] = []
    for word in data[:begin].decode("ascii").split():
        if word.startswith("*"):
            words = keys.setdefault(word, [])
        else:
            words.append(word)
    position = begin + len(b"**data")
    form = data[position : position + 200].split(None, 1)[0]
    position = data.find(b"\n", data.find(form, position)) + 1
    following = data[position : position + 4096].split(None, 2)
    keys["**data"] = [form.decode("ascii")]
    if following[:1] == [b"*file"]:
        keys["**data"] += ["*file", following[1].decode()]
    return keys, position


def _read_crystals(path: Path, keys: dict[str, list[str]]) -> Crystals | None:
    """Return the grains, in the order of their labels; None where the file has no orientations."""
    if "*ori" not in keys:
        return None
    name, *values = keys["*ori"]
    descriptor, _, convention = name.partition(":")
    if descriptor not in PARAMETERS or convention not in ("", "passive"):
        known = ", ".join(PARAMETERS)
        raise ValueError(
            f"{path}: *ori {name}: must be one of {known}, in the passive convention; write it in one of these"
        )
    with naming(path):
        numbers = np.array(values, float).reshape(-1, PARAMETERS[descriptor])
        quaternions = to_quaternions(descriptor, numbers)
        material = np.zeros(len(numbers) + FIRST, np.int64)
        material[VOID] = -1
        return Crystals(material, np.vstack([[1.0, 0, 0, 0], quaternions]), tuple(keys.get("*crysym", [])[:1]))


def to_quaternions(descriptor: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit quaternions w, x, y, z, crystal to sample, of Neper's orientations (N, parameters), in degrees.

    In Neper's passive convention, a rotation matrix maps the sample to the crystal. Axes, Rodrigues vectors and
    quaternions are those of the rotation that turns the sample's axes into the crystal's.
    """
    from scipy.spatial.transform import Rotation  # takes long to import

    match descriptor:
        case "rodrigues":
            rotation = Rotation.from_quat(np.column_stack([values, np.ones(len(values))]))
        case "euler-bunge":
            rotation = Rotation.from_euler("ZXZ", values, degrees=True)
        case "rotmat":
            rotation = Rotation.from_matrix(values.reshape(-1, 3, 3)).inv()
        case "axis-angle":
            axes = values[:, :3] / np.linalg.norm(values[:, :3], axis=1, keepdims=True)
            rotation = Rotation.from_rotvec(axes * np.radians(values[:, 3:]))
        case _:
            rotation = Rotation.from_quat(np.roll(values, -1, axis=1))
    return np.roll(rotation.as_quat(canonical=True), 1, axis=1)


@lru_cache(maxsize=1)
def _read_text(file: Path, start: int, voxels: int, _changed: int) -> NDArray[np.int64]:
    with naming(file), open(file, "rb") as opened:
        opened.seek(start)
        words = opened.read().split(None, voxels)[:voxels]
        if len(words) < voxels:
            raise ValueError(f"has {len(words)} voxels; must have {voxels}")
        return np.array(words).astype(np.int64)
