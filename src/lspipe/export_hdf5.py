"""Export of fields to HDF5: in the layout of FANS's results, and on an image geometry of DREAM.3D.

The fields are those of ``export.collect_fields``. The functions ``to_mandel``, ``to_zyx`` and ``to_passive`` alone
bring them into the orders of the other programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem

Field = NDArray[np.number]
MANDEL = ("xx", "yy", "zz", "xy", "xz", "yz")  # 11, 22, 33, 12, 13, 23 with shear times √2
MICROSTRUCTURE = "/cell/ms"
STEP = f"{MICROSTRUCTURE}_results/lspipe/load0/time_step0"
CRYSTALS = {"cubic": 1, "hexagonal": 0}  # DREAM.3D's Laue classes m-3m and 6/mmm; 999 is unknown
UNKNOWN = 999
CELL, CELL_FEATURE, CELL_ENSEMBLE = 3, 7, 11  # types of DREAM.3D's attribute matrices
TYPES = {"float32": "float", "int32": "int32_t", "uint32": "uint32_t"}


def to_mandel(field: Field) -> Field:
    """Return a strain with tensor shear, or a stress, (6, …), in Mandel notation; a vector (3, …) stays as it is."""
    if len(field) == 3:
        return field
    stored = ELASTICITY.components
    return np.stack([field[stored.index(n)] * (1 if n[0] == n[1] else np.sqrt(2)) for n in MANDEL])


def to_zyx(field: Field) -> Field:
    """Return a field (nx, ny, nz) as (nz, ny, nx), and one of components (C, nx, ny, nz) as (nz, ny, nx, C)."""
    return field.T if field.ndim == 3 else np.moveaxis(field, 0, -1).transpose(2, 1, 0, 3)


def to_passive(orientation: Field) -> Field:
    """Return quaternions w, x, y, z, crystal to sample, as x, y, z, w, sample to crystal."""
    w, x, y, z = orientation.T
    return np.stack([-x, -y, -z, w], axis=-1)


def encode_fans(fields: Mapping[str, Field], spacing: Sequence[float]) -> memoryview:
    """Return the bytes of a file as FANS writes its results.

    The labels are ``/cell/ms``, which FANS itself can read: the grain in polycrystals, else the phase. The fields are
    in the group ``STEP`` under the names of FANS, ``strain`` and ``stress``, also for gradient and flux.
    """
    labels = fields.get("grain", fields["phase"])
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        lengths = [n * h for n, h in zip(labels.shape, spacing, strict=True)]
        dataset = file.create_dataset(MICROSTRUCTURE, data=to_zyx(labels).astype(np.uint16))
        dataset.attrs.update({"permute_order": "zyx", "L": lengths[::-1]})
        step = file.create_group(STEP)
        step["microstructure"] = to_zyx(labels).astype(np.uint16)[..., None]
        for name, field in zip(("strain", "stress"), select_tensors(fields), strict=True):
            values = to_mandel(field).astype(float)
            step[name] = to_zyx(values)
            step[f"{name}_average"] = values.mean(axis=(1, 2, 3))
    return buffer.getbuffer()


def select_tensors(fields: Mapping[str, Field]) -> tuple[Field, Field]:
    """Return strain and stress, or gradient and flux."""
    names = ("strain", "stress") if "strain" in fields else ("gradient", "flux")
    return fields[names[0]], fields[names[1]]


def encode_dream3d(fields: Mapping[str, Field], problem: Problem) -> memoryview:
    """Return the bytes of a DREAM.3D file, version 7.0, with all fields as cell data.

    ``Phases`` and, in polycrystals, ``FeatureIds`` begin with 1. Components keep the order xx, yy, zz, yz, xz, xy with
    tensor shear.
    """
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"FileVersion": np.bytes_("7.0"), "DREAM3D Version": np.bytes_("6.5.171")})
        file.create_group("Pipeline")
        container = file.create_group("DataContainers/ImageDataContainer")
        grid = fields["phase"].shape
        write_geometry(container, grid, problem.spacing)
        write_arrays(container, "CellData", CELL, grid, {n: to_zyx(f) for n, f in name_fields(fields).items()})
        if grains := problem.grains:
            table = {
                "Phases": grains.material + 1,
                "AvgQuats": to_passive(grains.orientation),
                "AvgEulerAngles": find_euler_angles(grains.orientation),
            }
            # Row 0 stands for voxels without a grain.
            rows = {name: np.concatenate([np.zeros_like(values[:1]), values]) for name, values in table.items()}
            write_arrays(container, "CellFeatureData", CELL_FEATURE, [len(grains.material) + 1], rows)
        structures = [UNKNOWN, *(CRYSTALS.get(material.kind, UNKNOWN) for material in problem.materials)]
        ensemble = {"CrystalStructures": np.array(structures, np.uint32)}
        write_arrays(container, "CellEnsembleData", CELL_ENSEMBLE, [len(structures)], ensemble)
    return buffer.getbuffer()


def name_fields(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Return the fields under the names that DREAM.3D's filters look for; phases and grains begin with 1."""
    named: dict[str, Field] = {"Phases": fields["phase"].astype(np.int32) + 1}
    if "grain" in fields:
        named["FeatureIds"] = fields["grain"].astype(np.int32) + 1
    rest = {name: field for name, field in fields.items() if name not in ("phase", "grain", "orientation")}
    return named | {"".join(word.capitalize() for word in name.split("_")): field for name, field in rest.items()}


def find_euler_angles(orientation: Field) -> Field:
    """Return Bunge's angles in radians, (grains, 3), from 0 to 2π."""
    from scipy.spatial.transform import Rotation  # takes long to import, and only polycrystals need it

    return Rotation.from_quat(orientation, scalar_first=True).as_euler("ZXZ") % (2 * np.pi)


def write_geometry(container: h5py.Group, grid: Sequence[int], spacing: Sequence[float]) -> None:
    """Write the image geometry, whose numbers are in the order x, y, z."""
    group = container.create_group("_SIMPL_GEOMETRY")
    group["DIMENSIONS"], group["SPACING"] = np.array(grid, np.int64), np.array(spacing, np.float32)
    group["ORIGIN"] = np.zeros(3, np.float32)
    names = {name: np.bytes_("ImageGeometry") for name in ("GeometryName", "GeometryTypeName")}
    sizes = {"GeometryType": 0, "UnitDimensionality": 3, "SpatialDimensionality": 3}
    group.attrs.update(names | {name: np.array([n], np.uint32) for name, n in sizes.items()})


def write_arrays(
    container: h5py.Group, name: str, kind: int, tuples: Sequence[int], arrays: Mapping[str, Field]
) -> None:
    """Write an attribute matrix: arrays with a tuple of components for each voxel, grain or phase.

    Args:
        container: The data container.
        name: Name of the matrix.
        kind: Its type, such as ``CELL``.
        tuples: Number of tuples along x, y, z, or their number.
        arrays: Arrays by name, whose last axis is that of the components, if they have any.
    """
    group = container.create_group(name)
    group.attrs.update(
        {"AttributeMatrixType": np.array([kind], np.uint32), "TupleDimensions": np.array(tuples, np.uint64)}
    )
    axes = ",".join(f"{axis}={n}" for axis, n in zip("xyz", tuples, strict=False))
    for array_name, array in arrays.items():
        values = array.reshape(*tuples[::-1], -1)
        values = values.astype({"f": np.float32, "u": np.uint32}.get(values.dtype.kind, np.int32))
        attributes: dict[str, Any] = {
            "ObjectType": np.bytes_(f"DataArray<{TYPES[values.dtype.name]}>"),
            "DataArrayVersion": np.array([2], np.int32),
            "TupleDimensions": np.array(tuples, np.uint64),
            "ComponentDimensions": np.array(values.shape[-1:], np.uint64),
            "Tuple Axis Dimensions": np.bytes_(axes),
        }
        group.create_dataset(array_name, data=values).attrs.update(attributes)
