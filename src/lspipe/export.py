"""Fields to images that ParaView opens (VTK's .vti), and to a table in the order of a finite-element user.

A field is (nx, ny, nz), (6, nx, ny, nz) with the components in the order xx, yy, zz, yz, xz, xy and tensor shear, as in
the stores, or (3, nx, ny, nz), a vector.
``convention`` and ``voxels`` bring it into the order of others, and nothing else does.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lspipe.cell.physics import CONDUCTION, ELASTICITY
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.files import write_parts, write_text
from lspipe.store.shards import open_pair

if TYPE_CHECKING:
    from lspipe.models.files import Model  # torch takes seconds, and only a model needs it

Field = NDArray[np.number]
# The components of a symmetric tensor and of a vector, by how many they are. Abaqus calls them 11, 22, 33, 12, 13, 23.
STORED = {6: ELASTICITY.components, 3: CONDUCTION.components}
VTK = {6: ("xx", "yy", "zz", "xy", "yz", "xz"), 3: CONDUCTION.components}
ABAQUS = {6: ("xx", "yy", "zz", "xy", "xz", "yz"), 3: CONDUCTION.components}
Order = Mapping[int, tuple[str, ...]]


def convention(field: Field, order: Order, shear: float = 1.0) -> Field:
    """The components of a field in another ``order``, and shear times ``shear``: 2 makes engineering strain."""
    stored = STORED[len(field)]
    return np.stack([field[stored.index(n)] * (1 if n[0] == n[-1] else shear) for n in order[len(field)]])


def voxels(field: Field) -> Field:
    """A row for each voxel, x fastest, then y: (nx·ny·nz,) of (nx, ny, nz), (nx·ny·nz, C) of (C, nx, ny, nz)."""
    return field.T.reshape(-1, *field.shape[:-3])


def mechanics(phase: Field, problem: Problem, strain: Field) -> dict[str, Field]:
    """The strain (strains, nx, ny, nz), and with it stress and von Mises stress (unit of the moduli); of conductors
    gradient and flux along it. As the stiffness is one in a voxel, the mean stress is that of the mean strain."""
    stress = problem.compute_stress(phase, strain)
    fields = dict(zip(problem.physics.fields, (strain, stress), strict=True))
    if problem.physics is not ELASTICITY:
        return fields
    xx, yy, zz, *shear = stress
    von_mises = np.sqrt(((xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2) / 2 + 3 * sum(s**2 for s in shear))
    return fields | {"von_mises": von_mises}


def comparison(phase: Field, problem: Problem, strain: Field, predicted: Solution) -> dict[str, Field]:
    """The fields of one predicted microstructure, and ``error``, |strain − predicted| of each component; of the
    first alone where the model gives no more."""
    found = predicted.strain[0]
    if len(predicted.components) == len(strain):
        fields = mechanics(phase, problem, found)
    else:
        strain, found = strain[0], found[0]
        fields = {f"{problem.physics.fields[0]}_{predicted.components[0]}": found}
    return {f"predicted_{name}": field for name, field in fields.items()} | {"error": np.abs(strain - found)}


def after_each_pass(model: Model, phase: Field, problem: Problem) -> Iterator[tuple[int, Solution]]:
    """Yield each number of passes of a model and its prediction."""
    for passes, _, solution in model.iterates(phase, problem):
        if 1 <= passes <= model.passes:
            yield passes, solution


def vti(fields: Mapping[str, Field], spacing: Sequence[float] = (1, 1, 1)) -> str:
    """A VTK image with these cell data, a cell for each voxel: floats in single precision, integers in 32 bits."""
    return b"".join(vti_parts(fields, spacing)).decode()


def vti_parts(fields: Mapping[str, Field], spacing: Sequence[float] = (1, 1, 1)) -> Iterator[bytes]:
    """The image of ``vti`` part by part."""
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
    stated = f'type="{kind}" Name="{name}" format="binary"'
    if field.ndim == 4:
        field, names = convention(field, VTK), VTK[len(field)]
        stated += f' NumberOfComponents="{len(names)}"'
        stated += "".join(f' ComponentName{c}="{n.upper()}"' for c, n in enumerate(names))
    data = voxels(field.astype(dtype)).tobytes()
    yield f"<DataArray {stated}>".encode()
    # The length and the data are one stream, which parts of a multiple of 3 bytes leave as it is.
    yield b64encode(struct.pack("<Q", len(data)) + data[:4])
    for i in range(4, len(data), 3 * 2**20):
        yield b64encode(data[i : i + 3 * 2**20])
    yield b"</DataArray>\n"


def pvd(files: Iterable[str]) -> str:
    """ParaView's list of a series of files, their times being 1, 2, …."""
    entries = "".join(f'<DataSet timestep="{k}" part="0" file="{file}"/>\n' for k, file in enumerate(files, 1))
    return f'<VTKFile type="Collection" version="0.1">\n<Collection>\n{entries}</Collection>\n</VTKFile>\n'


def table(phase: Field, strain: Field, stress: Field) -> pd.DataFrame:
    """A row for each voxel, i fastest: i, j, k (from 0), phase, E11 … E23 with engineering shear, S11 … S23; of
    conductors GRADT1 … and the heat flux HFL1 …."""
    names, sign = (("E", "S"), 1) if len(strain) == 6 else (("GRADT", "HFL"), -1)
    numbers = ["".join(str("xyz".index(axis) + 1) for axis in name) for name in ABAQUS[len(strain)]]
    columns = {
        ("i", "j", "k"): np.indices(phase.shape),
        ("phase",): phase[None],
        tuple(f"{names[0]}{n}" for n in numbers): convention(strain, ABAQUS, shear=2),
        tuple(f"{names[1]}{n}" for n in numbers): sign * convention(stress, ABAQUS),
    }
    return pd.DataFrame(
        {name: values for names, field in columns.items() for name, values in zip(names, voxels(field).T, strict=True)}
    )


def csv_parts(phase: Field, strain: Field, stress: Field) -> Iterator[bytes]:
    """The CSV file of ``table``, layer by layer."""
    for k in range(phase.shape[-1]):
        rows = table(*(field[..., k : k + 1] for field in (phase, strain, stress))).assign(k=k)
        yield rows.to_csv(index=False, header=k == 0, float_format="%.9g").encode()


def export(
    out: Path,
    microstructures: Path,
    fields: Path,
    samples: Sequence[int],
    model: Model | None = None,
    *,
    passes: bool = False,
    csv: bool = False,
) -> None:
    """Writes ``out``/3.vti of sample 3: phase, strain, stress, von_mises, and what ``model`` predicts (see comparison).

    ``passes``: also 3_pass1.vti, …, the same with the prediction after each pass of the model, and 3.pvd, their list.
    ``csv``: also 3.csv (see table). ValueError for samples that are not there or not whole, and where stores and model
    do not belong together.
    """
    cells, data = open_pair(microstructures, fields)
    if wrong := [i for i in samples if i not in range(cells.count)]:
        raise ValueError(f"sample = {wrong[0]}: {microstructures} has samples 0 to {cells.count - 1}")
    for store in cells, data:
        store.check_whole({i // store.attributes["samples_per_shard"] for i in samples})
    problem = data.problem
    if model:
        model.check_labels(cells.attributes.get("labels"))
    for i in samples:
        phase, strain = cells.arrays["phase"][i], data.arrays["strain"][i]
        truth = {"phase": phase, **mechanics(phase, problem, strain)}
        image = truth
        if model and not passes:
            image = truth | comparison(phase, problem, strain, model.predict_problem(phase, problem))
        elif model:
            names = []
            for k, solution in after_each_pass(model, phase, problem):
                image = truth | comparison(phase, problem, strain, solution)
                names.append(f"{i}_pass{k}.vti")
                write_parts(out / names[-1], vti_parts(image))
            write_text(out / f"{i}.pvd", pvd(names))
        write_parts(out / f"{i}.vti", vti_parts(image))
        if csv:
            write_parts(out / f"{i}.csv", csv_parts(phase, strain, truth[problem.physics.fields[1]]))
