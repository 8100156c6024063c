"""Reader of DREAM.3D files: those of version 6 (FileVersion 7.0) and of simplnx (8.0)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lspipe.images.hdf5 import find_arrays, make_reader, open_file
from lspipe.images.source import Crystals, Source, naming

STRUCTURES = {
    **{0: "Hexagonal_High", 1: "Cubic_High", 2: "Hexagonal_Low", 3: "Cubic_Low", 4: "Triclinic", 5: "Monoclinic"},
    **{6: "Orthorhombic", 7: "Tetragonal_Low", 8: "Tetragonal_High", 9: "Trigonal_Low", 10: "Trigonal_High"},
}
ORIENTATIONS = {"AvgQuats": 4, "AvgEulerAngles": 3, "EulerAngles": 3}  # numbers of each grain


def find_sources(path: Path) -> list[Source]:
    """Return the arrays that have one number for each voxel of an image geometry.

    ``FeatureIds`` come with the orientations of the grains, if the file has them.

    Raises:
        ValueError: The file is damaged, or has no image geometry.
    """
    with naming(path), open_file(path) as file:
        sources = []
        geometries = list(_find_geometries(file))
        for image, grid, spacing in geometries:
            arrays = list(find_arrays(image, path))
            for array in arrays:
                if array.shape in (grid[::-1], (*grid[::-1], 1)):
                    read = make_reader(path, array.name, (0,) * (array.ndim - 3))
                    source = Source(
                        *(path, array.name, grid[::-1], array.dtype, "zyx", read),
                        stated=frozenset({"axes", "spacing"}),
                        spacing=spacing,
                    )
                    if array.name.endswith("/FeatureIds"):
                        source = replace(source, crystals=_read_crystals(image, arrays))
                    sources.append(source)
    if not geometries:
        raise ValueError(f"{path}: has no image geometry; must be a DREAM.3D file of an image of voxels")
    return sources


Geometry = tuple[h5py.Group, tuple[int, int, int], tuple[float, float, float]]


def _find_geometries(file: h5py.File) -> Iterator[Geometry]:
    """Yield the groups of images, with the numbers of voxels and their edge lengths along x, y, z."""
    groups: list[h5py.Group] = []
    file.visititems(lambda _, entry: groups.append(entry) if isinstance(entry, h5py.Group) else None)
    for group in groups:
        if "_DIMENSIONS" in group.attrs:
            yield _check_geometry(group, group.attrs["_DIMENSIONS"], group.attrs["_SPACING"])
        elif "_SIMPL_GEOMETRY/DIMENSIONS" in group:
            geometry = group["_SIMPL_GEOMETRY"]
            # Version 6.4 and earlier call the spacing resolution.
            edges = geometry["SPACING"] if "SPACING" in geometry else geometry["RESOLUTION"]
            yield _check_geometry(group, geometry["DIMENSIONS"], edges)


def _check_geometry(group: h5py.Group, dimensions: Any, edges: Any) -> Geometry:
    (nx, ny, nz), (dx, dy, dz) = (int(n) for n in dimensions[:]), (float(d) for d in edges[:])
    if min(nx, ny, nz) < 1 or not np.isfinite([dx, dy, dz]).all() or min(dx, dy, dz) <= 0:
        raise ValueError(f"{group.name}: dimensions {nx}, {ny}, {nz}, spacing {dx}, {dy}, {dz}")
    return group, (nx, ny, nz), (dx, dy, dz)


def _read_crystals(image: h5py.Group, arrays: list[h5py.Dataset]) -> Crystals | None:
    """Return the grains of an image; None where the file lacks the phases or the orientations of the grains."""
    for name, numbers in ORIENTATIONS.items():
        for array in arrays:
            table = array.parent
            if array.name.endswith(f"/{name}") and array.ndim == 2 and array.shape[1] == numbers and "Phases" in table:
                phases = table["Phases"][:].reshape(-1).astype(np.int64)
                values = array[:].astype(float)
                if len(phases) != len(values):
                    raise ValueError(f"{table.name}: {len(phases)} phases, {len(values)} orientations")
                # Row 0 of a table belongs to no grain, and phase 0 to no material.
                known = np.isfinite(values).all(axis=1) & ((numbers == 3) | values.any(axis=1))
                known[:1] = False
                values[~known] = (0, 0, 0, 1)[-numbers:] if numbers == 4 else 0
                return Crystals(np.where(known, phases - 1, -1), to_quaternions(values), _read_names(arrays))
    return None


def to_quaternions(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return unit quaternions w, x, y, z, crystal to sample.

    Args:
        values: Orientations as DREAM.3D states them, sample to crystal: quaternions x, y, z, w, (N, 4), or Bunge's
            Euler angles φ₁, Φ, φ₂ in radians, (N, 3).
    """
    from scipy.spatial.transform import Rotation  # takes long to import

    # Bunge's angles are those of the rotation Z X Z of the crystal to the sample.
    rotation = Rotation.from_quat(values).inv() if values.shape[1] == 4 else Rotation.from_euler("ZXZ", values)
    return np.roll(rotation.as_quat(canonical=True), 1, axis=1)


def _read_names(arrays: list[h5py.Dataset]) -> tuple[str, ...]:
    """Return the crystal structure and the name of each material; entry 0 of these lists belongs to none."""
    for array in arrays:
        if array.name.endswith("/CrystalStructures"):
            structures = [STRUCTURES.get(int(s), "Unknown") for s in array[:].reshape(-1)]
            names = [b""] * len(structures)
            if isinstance(texts := array.parent.get("MaterialName"), h5py.Dataset) and texts.size == len(structures):
                names = texts[:].reshape(-1).tolist()
            return tuple(
                f"{s} {n.decode(errors='replace') if isinstance(n, bytes) else n}".strip("\0 ")
                for s, n in zip(structures[1:], names[1:], strict=True)
            )
    return ()
