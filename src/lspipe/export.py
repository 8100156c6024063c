"""Export of fields to VTK images (.vti), which ParaView opens, and to tables in the order of Abaqus.

A field is (nx, ny, nz), (6, nx, ny, nz) with the components xx, yy, zz, yz, xz, xy and tensor shear, as in the stores,
(3, nx, ny, nz), a vector, or (4, nx, ny, nz), a quaternion. Only ``reorder_components`` and ``list_voxels`` bring it
into other orders.
"""

from __future__ import annotations

import struct
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lspipe.cell.physics import CONDUCTION, ELASTICITY, find_von_mises
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.export_hdf5 import encode_dream3d, encode_fans
from lspipe.files import write_bytes, write_parts, write_text
from lspipe.store.cells import read_cells
from lspipe.store.layout import QUATERNIONS
from lspipe.store.shards import Store, open_pair

if TYPE_CHECKING:
    from lspipe.models.files import Model  # torch takes seconds, and only a model needs it

Field = NDArray[np.number]
# The components of a symmetric tensor, of a quaternion and of a vector, by their number. Abaqus names those of a tensor
# 11, 22, 33, 12, 13, 23.
STORED = {6: ELASTICITY.components, 4: QUATERNIONS, 3: CONDUCTION.components}
VTK = {6: ("xx", "yy", "zz", "xy", "yz", "xz"), 4: QUATERNIONS, 3: CONDUCTION.components}
ABAQUS = {6: ("xx", "yy", "zz", "xy", "xz", "yz"), 3: CONDUCTION.components}
Order = Mapping[int, tuple[str, ...]]


def reorder_components(field: Field, order: Order, shear: float = 1.0) -> Field:
    """Return the components of a field in another ``order``, with shear times ``shear``: 2 makes engineering strain."""
    stored = STORED[len(field)]
    return np.stack([field[stored.index(n)] * (1 if n[0] == n[-1] else shear) for n in order[len(field)]])


def list_voxels(field: Field) -> Field:
    """Return a row for each voxel, x fastest, then y: (nx·ny·nz,) or (nx·ny·nz, C)."""
    return field.T.reshape(-1, *field.shape[:-3])


def add_stress(phase: Field, problem: Problem, strain: Field) -> dict[str, Field]:
    """Return the strain (strains, nx, ny, nz), its stress and its von Mises stress by name.

    For conductors, these are the gradient and the flux along it. The first component alone, (1, nx, ny, nz), has no
    stress. A voxel has one stiffness, so its mean stress is that of its mean strain. In a void the stress is 0.
    """
    if len(strain) < len(problem.physics.components):
        return {f"{problem.physics.field_names[0]}_{problem.physics.components[0]}": strain[0]}
    stress = problem.compute_stress(phase, strain)
    fields = dict(zip(problem.physics.field_names, (strain, stress), strict=True))
    if problem.physics is not ELASTICITY:
        return fields
    return fields | {"von_mises": find_von_mises(stress)}


def collect_fields(phase: Field, problem: Problem, strain: Field) -> dict[str, Field]:
    """Return the fields of one microstructure by name, as an image shows them.

    Args:
        phase: Number of the phase, or of the grain, (nx, ny, nz).
        problem: The problem, with the grains of a polycrystal.
        strain: All components of the strain, or the first one alone, (strains, nx, ny, nz).
    """
    cell: dict[str, Field] = {"phase": phase}
    if grains := problem.grains:
        cell = {"phase": grains.material[phase], "grain": phase}
        cell["orientation"] = np.moveaxis(grains.orientation[phase], -1, 0)
    return cell | add_stress(phase, problem, strain)


def compare(phase: Field, problem: Problem, strain: Field, predicted: Solution) -> dict[str, Field]:
    """Return the predicted fields of one microstructure, and the ``error`` |strain − predicted| of each component that
    the model predicts."""
    prediction = predicted.strain[0]
    fields = add_stress(phase, problem, prediction)
    error = np.abs(strain[: len(prediction)] - prediction)
    return {f"predicted_{name}": field for name, field in fields.items()} | {
        "error": error if len(error) > 1 else error[0]
    }


def vti(fields: Mapping[str, Field], spacing: Sequence[float] = (1, 1, 1)) -> str:
    """Return a VTK image with fields as cell data: floats in single precision, integers in 32 bits."""
    return b"".join(vti_parts(fields, spacing)).decode()


def vti_parts(fields: Mapping[str, Field], spacing: Sequence[float] = (1, 1, 1)) -> Iterator[bytes]:
    """Yield the image of ``vti`` part by part."""
    extent = " ".join(f"0 {n}" for n in next(iter(fields.values())).shape[-3:])
    yield f"""<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<ImageData WholeExtent="{extent}" Origin="0 0 0" Spacing="{" ".join(map(str, spacing))}">
<Piece Extent="{extent}">
<CellData>
""".encode()
    for name, field in fields.items():
        yield from data_array(name, field)
    yield b"</CellData>\n</Piece>\n</ImageData>\n</VTKFile>\n"


def data_array(name: str, field: Field) -> Iterator[bytes]:
    kind, dtype = ("Float32", "<f4") if field.dtype.kind == "f" else ("Int32", "<i4")
    attributes = f'type="{kind}" Name="{name}" format="binary"'
    if field.ndim == 4:
        field, names = reorder_components(field, VTK), VTK[len(field)]
        attributes += f' NumberOfComponents="{len(names)}"'
        attributes += "".join(f' ComponentName{c}="{n.upper()}"' for c, n in enumerate(names))
    data = list_voxels(field.astype(dtype)).tobytes()
    yield f"<DataArray {attributes}>".encode()
    # Length and data are one base64 stream; parts of a multiple of 3 bytes need no padding within it.
    yield b64encode(struct.pack("<Q", len(data)) + data[:4])
    for i in range(4, len(data), 3 * 2**20):
        yield b64encode(data[i : i + 3 * 2**20])
    yield b"</DataArray>\n"


def pvd(files: Mapping[int, str]) -> str:
    """Return ParaView's list of a series of files by their times."""
    entries = "".join(f'<DataSet timestep="{k}" part="0" file="{file}"/>\n' for k, file in files.items())
    return f'<VTKFile type="Collection" version="0.1">\n<Collection>\n{entries}</Collection>\n</VTKFile>\n'


def table(phase: Field, strain: Field, stress: Field) -> pd.DataFrame:
    """Return a table with a row for each voxel, i fastest.

    The columns are i, j, k (from 0), phase, E11 … E23 with engineering shear, and S11 … S23. Conductors have
    GRADT1 … and the heat flux HFL1 … instead.
    """
    names, sign = (("E", "S"), 1) if len(strain) == 6 else (("GRADT", "HFL"), -1)
    numbers = ["".join(str("xyz".index(axis) + 1) for axis in name) for name in ABAQUS[len(strain)]]
    columns = {
        ("i", "j", "k"): np.indices(phase.shape),
        ("phase",): phase[None],
        tuple(f"{names[0]}{n}" for n in numbers): reorder_components(strain, ABAQUS, shear=2),
        tuple(f"{names[1]}{n}" for n in numbers): sign * reorder_components(stress, ABAQUS),
    }
    return pd.DataFrame(
        {
            name: values
            for names, field in columns.items()
            for name, values in zip(names, list_voxels(field).T, strict=True)
        }
    )


def csv_parts(phase: Field, strain: Field, stress: Field) -> Iterator[bytes]:
    """Yield the CSV file of ``table``, layer by layer."""
    for k in range(phase.shape[-1]):
        rows = table(*(field[..., k : k + 1] for field in (phase, strain, stress))).assign(k=k)
        yield rows.to_csv(index=False, header=k == 0, float_format="%.9g", na_rep="NaN").encode()


def export(
    out: Path,
    microstructures: Path,
    fields: Path,
    samples: Sequence[int],
    model: Model | None = None,
    *,
    passes: bool = False,
    csv: bool = False,
    fans: bool = False,
    dream3d: bool = False,
) -> None:
    """Write images of samples: ``out``/3.vti of sample 3, with phase, strain, stress and von_mises.

    For polycrystals, ``phase`` is the number of the material, and ``grain`` that of the grain, whose ``orientation`` is
    a unit quaternion w, x, y, z. A load path has an image 3_step9.vti for each kept step that the sample has reached.
    These images also hold the accumulated plastic strain, and 3.pvd lists them.

    Args:
        out: The folder to write to.
        microstructures: The microstructure store.
        fields: The field store, or the store of load paths, which has no other options.
        samples: Numbers of samples.
        model: A model whose prediction and error are added; see ``compare``.
        passes: Whether to write the prediction after each pass too, as 3_pass1.vti, …, and their list 3.pvd.
        csv: Whether to write 3.csv too; see ``table``.
        fans: Whether to write 3.h5 too, without prediction; see ``encode_fans``.
        dream3d: Whether to write 3.dream3d too; see ``encode_dream3d``.

    Raises:
        ValueError: A sample does not exist, is not whole or has reached no kept step, or stores and model do not belong
            together.
    """
    cells, data = open_pair(microstructures, fields)
    if wrong := [i for i in samples if i not in range(cells.count)]:
        raise ValueError(f"sample = {wrong[0]}: {microstructures} has samples 0 to {cells.count - 1}")
    for store in cells, data:
        store.check_whole({i // store.attributes["samples_per_shard"] for i in samples})
    if data.has_paths:
        if model or csv or fans or dream3d:
            raise ValueError(f"{fields}: holds load paths; must be exported as images alone, without a model")
        for i in samples:
            export_path(out, cells, data, i)
        return
    if model:
        model.check_labels(cells.attributes.get("labels"))
    for i in samples:
        one, strain = slice(i, i + 1), data.arrays["strain"][i]
        (phase,), problem = read_cells(cells, one, data.problem)
        image = truth = collect_fields(phase, problem, strain)
        if model and not passes:
            image = truth | compare(phase, problem, strain, model.predict_problem(phase, problem))
        elif model:
            names = {}
            for k, _, solution in model.iterates(phase, problem):
                if 1 <= k <= model.passes:
                    image = truth | compare(phase, problem, strain, solution)
                    names[k] = f"{i}_pass{k}.vti"
                    write_parts(out / names[k], vti_parts(image, cells.spacing))
            write_text(out / f"{i}.pvd", pvd(names))
        write_parts(out / f"{i}.vti", vti_parts(image, cells.spacing))
        if csv:
            write_parts(out / f"{i}.csv", csv_parts(truth["phase"], strain, truth[problem.physics.field_names[1]]))
        if fans:
            write_bytes(out / f"{i}.h5", encode_fans(truth, cells.spacing))
        if dream3d:
            write_bytes(out / f"{i}.dream3d", encode_dream3d(image, problem))


def export_path(out: Path, cells: Store, data: Store, i: int) -> None:
    """Write the images of the kept steps that one sample has reached, and their list; remove those of other steps.

    Raises:
        ValueError: The sample has reached no kept step.
    """
    phase, kept = cells.arrays["phase"][i], data.attributes["kept"]
    names = {step: f"{i}_step{step}.vti" for step in kept if data.arrays["converged"][i, step]}
    if not names:
        raise ValueError(f"{data.path}: sample {i} has reached no kept step; choose another sample")
    if missing := [step for step in kept if step not in names]:
        text = f"{data.path}: sample {i} has no images of the steps {missing}, which it has not reached"
        warnings.warn(text, stacklevel=2)
    for step, name in names.items():
        image, k = {"phase": phase}, kept.index(step)
        image |= {name: data.arrays[name][i, k] for name in ("strain", "stress", "accumulated_plastic_strain")}
        image["von_mises"] = find_von_mises(image["stress"])
        write_parts(out / name, vti_parts(image, cells.spacing))
    write_text(out / f"{i}.pvd", pvd(names))
    for old in {*out.glob(f"{i}_step*.vti")} - {out / name for name in names.values()}:
        old.unlink()
