"""From an image to the fields of one of its cells."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lspipe.cell.arguments import check_spacing
from lspipe.cell.physics import ELASTICITY, find_von_mises
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Solution
from lspipe.export import Field, collect_fields, vti_parts
from lspipe.files import write_parts
from lspipe.images import Images
from lspipe.images.cells import make_cell
from lspipe.images.labels import MOST, check_labels, count_values, describe
from lspipe.images.scan import LIKELY
from lspipe.models.files import Model
from lspipe.models.localization import LocalizationModel
from lspipe.store.creation import check_new, save_new
from lspipe.store.layout import QUATERNIONS

TOL = 1e-4  # relative residual of a prediction by default
SOLVER_BYTES, NETWORK_BYTES = 500, 1000  # for each voxel; measured at 80³ and 128³ voxels
SUFFIXES = (".vti", ".zarr")


@dataclass(frozen=True)
class Prediction:
    """The fields of one cell of an image.

    Attributes:
        phase: Number of the phase, or of the grain, of each voxel, (nx, ny, nz).
        problem: What was solved, with the spacing of the image and the grains of a polycrystal.
        solution: The fields of this one microstructure.
        names: Names of the phases or of the crystals, one for each material.
        seconds: Time of the prediction.
    """

    phase: NDArray[np.unsignedinteger]
    problem: Problem
    solution: Solution
    names: Sequence[str]
    seconds: float

    @property
    def fields(self) -> dict[str, Field]:
        """The fields by name, as ``lspipe export`` writes them."""
        return collect_fields(self.phase, self.problem, self.solution.strain[0])


def predict_image(
    images: Images,
    problem: Problem,
    model: Model,
    *,
    image: int | None = None,
    labels: Sequence[int] | None = None,
    tol: float | None = None,
    passes: int | None = None,
) -> Prediction:
    """Predict the fields of one cell.

    Args:
        images: The cells.
        problem: Materials, load and element; the spacing is that of the images.
        model: The solver or a network.
        image: Number of the cell; it may be left out where there is one.
        labels: The integers of phases 0, 1, …; by default those of the files in ascending order.
        tol: Relative residual at which the solver or RLN-CG stops, by default 1e-4.
        passes: Number of passes of a network, or of iterations of the solver, in place of ``tol``.

    Raises:
        ValueError: Cell, labels, materials or model do not fit each other, or the memory is too small.
    """
    name = images.sources[0].name
    if image is None and len(images) > 1:
        raise ValueError(f"{name}: makes {len(images)} cells; choose one with --image 0 to {len(images) - 1}")
    k = image or 0
    if k not in range(len(images)):
        allowed = f"0 to {len(images) - 1}, a cell" if len(images) > 1 else "0, the only cell"
        raise ValueError(f"--image {k}: must be {allowed} of {name}")
    if passes is not None and tol is not None:
        raise ValueError("--tol and --passes: give one of the two")
    is_network = isinstance(model, LocalizationModel)
    if is_network and tol is not None:
        raise ValueError(f"--tol {tol:g}: this network has no residual; leave --tol out, or use --model rln-cg or cg")
    check_memory(images, NETWORK_BYTES if model.parameters else SOLVER_BYTES)
    if images.crystals is None:
        labels = check_labels(images, labels)
        model.check_labels(labels)
    names = name_phases(images, k, labels, len(problem.materials))
    cell = make_cell(images, k, labels or ())
    problem = replace(problem, spacing=check_spacing(images.spacing))
    problem.check_storable()
    if cell.orientation is not None:
        assert cell.material is not None
        problem = problem.with_grains(cell.material, cell.orientation)
    if not problem.stiffnesses[np.unique(cell.phase)].any():
        raise ValueError(f"{name}: cell {k} has no solid voxel; it must have one")
    until: dict[str, Any] = {"passes": passes}
    if passes is None and not is_network:
        until = {"tol": TOL if tol is None else tol}
    began = time.perf_counter()
    solution = model.predict_problem(cell.phase, problem, **until)
    return Prediction(cell.phase, problem, solution, names, time.perf_counter() - began)


def check_memory(images: Images, bytes_per_voxel: float) -> None:
    """Raise ValueError for a cell whose prediction takes more than the memory."""
    from distributed.system import MEMORY_LIMIT  # The import takes a second.

    size, limit = bytes_per_voxel * math.prod(images.shape), MEMORY_LIMIT or math.inf
    if size > limit:
        raise ValueError(
            f"{images.sources[0].name}: a cell of {format_grid(images.shape)} voxels takes about {size / 1e9:.0f} GB: "
            f"must take at most {limit / 1e9:.0f} GB, the memory; use --crop, --blocks or --downsample"
        )


def name_phases(images: Images, k: int, labels: Sequence[int] | None, materials: int) -> list[str]:
    """Return the names of the phases, or of the crystals, which must be as many as ``materials``."""
    name, given = images.sources[0].name, f"{materials} material{'s' * (materials != 1)}"
    if crystals := images.crystals:
        count = int(crystals.material.max()) + 1
        names = [*crystals.names[:count], *(f"crystal {p}" for p in range(len(crystals.names), count))]
        if count != materials:
            raise ValueError(
                f"{given}: {name} has {count} kinds of crystals, {', '.join(names)}; give --material "
                "once for each, in this order"
            )
        return names
    assert labels is not None
    if len(labels) != materials:
        counts = count_values(images[k], MOST + 1)
        voxels = np.array([[counts.get(label, 0) for label in labels]])
        if len(labels) > LIKELY:
            raise ValueError(
                f"{given}: {name} has {len(labels)} different values; for grey values, give --threshold, "
                "which lspipe inspect proposes"
            )
        raise ValueError(
            f"{given}: {name} has {len(labels)} phases, {describe(labels, voxels)}; give --material once "
            "for each, in this order, or state other --labels"
        )
    if len(grey := images.threshold):
        return [f"phase 0, below {grey[0]:g}", *(f"phase {p}, from {x:g} on" for p, x in enumerate(grey, 1))]
    return [f"phase {p}, label {label}" for p, label in enumerate(labels)]


def format_grid(numbers: Sequence[float]) -> str:
    return " × ".join(f"{x:g}" for x in numbers)


def tabulate_prediction(prediction: Prediction) -> list[tuple[str, str]]:
    """Return the rows of the report: a name and a text."""
    phase, problem, solution = prediction.phase, prediction.problem, prediction.solution
    physics, fields = problem.physics, prediction.fields
    unit, modulus = ("GPa", "GPa") if physics is ELASTICITY else ("W/m²", "W/(m K)")
    strain_name, stress_name = physics.field_names
    rows = [("grid", f"{format_grid(phase.shape)} voxels of {format_grid(problem.spacing)}")]
    fractions = np.bincount(fields["phase"].ravel(), minlength=len(prediction.names)) / phase.size
    for name, fraction, material in zip(prediction.names, fractions, problem.materials, strict=True):
        rows.append((name, f"{fraction:.2%} of the voxels, {material}"))
    if problem.grains:
        rows.append(("grains", str(len(np.unique(phase)))))
    prescribed = [x or 0.0 for x in problem.strain]
    mean = np.asarray(prescribed) if solution.mean_strain is None else solution.mean_strain[0]
    rows.append((f"mean {strain_name}", format_components(physics.components, mean)))
    c = find_loaded_component(problem)
    component = physics.components[c]
    if stress_name in fields:
        mean_stress = fields[stress_name].mean(axis=(1, 2, 3))
        rows.append((f"mean {stress_name}", f"{format_components(physics.components, mean_stress)} {unit}"))
        rows.append((f"largest {strain_name} {component}", format_largest(fields[strain_name][c], fields["phase"])))
        if physics is ELASTICITY:
            equivalent = 2 / 3 * find_von_mises(fields[strain_name])
            rows.append(("largest von Mises strain", format_largest(equivalent, fields["phase"])))
        if mean[c] and not problem.temperature:
            ratio = f"⟨{stress_name} {component}⟩ / ⟨{strain_name} {component}⟩"
            response = f"{ratio} = {mean_stress[c] / mean[c]:.6g} {modulus}"
            rows.append(("effective response", response))
    else:
        first = f"{strain_name}_{physics.components[0]}"
        rows.append((f"largest {first.replace('_', ' ')}", format_largest(fields[first], fields["phase"])))
        rows.append(("stress, response", f"none: this network predicts {physics.components[0]} alone"))
    return rows + tabulate_accuracy(solution) + [("seconds", f"{prediction.seconds:.3g}")]


def tabulate_accuracy(solution: Solution) -> list[tuple[str, str]]:
    """Return the rows of the report that tell how far the fields can be trusted."""
    energy = "none; use --model rln-cg or cg to get a bound"
    if solution.bound is not None:
        bound = f"at most {100 * solution.bound[0]:.2g}% of the field, in the energy norm"
        energy = bound if np.isfinite(solution.bound[0]) else "none: there are voids"
    rows = [("guaranteed error", energy)]
    if solution.mase_90 is not None:
        like = "microstructures that are drawn like those of the training"
        rows.append(("likely MASE", f"at most {solution.mase_90[0]:.3g}% for 90 % of the {like}"))
    if solution.residual is not None:
        rows.append(("relative residual", f"{solution.residual[0]:.2g}"))
    if solution.iterations is not None:
        rows.append(("iterations", str(solution.iterations[0])))
    return rows


def find_loaded_component(problem: Problem) -> int:
    """Return the component of the largest prescribed stress, or without one, of the largest prescribed strain."""
    stress, strain = ([abs(x or 0.0) for x in load or ()] for load in (problem.stress, problem.strain))
    return int(np.argmax(stress if any(stress) else strain))


def format_components(names: Sequence[str], values: Sequence[float] | NDArray[np.floating]) -> str:
    least = 1e-9 * np.abs(values).max()  # Smaller values are rounding.
    return ", ".join(f"{n} {x if abs(x) > least else 0:.4g}" for n, x in zip(names, values, strict=True))


def format_largest(field: Field, phase: Field) -> str:
    """Return the value of largest magnitude, its voxel and its phase. Voids do not count."""
    voxel = np.unravel_index(np.nanargmax(np.abs(field)), field.shape)
    return f"{field[voxel]:.4g} in voxel ({', '.join(map(str, voxel))}) of phase {phase[voxel]}"


def check_out(out: Path) -> None:
    """Raise ValueError where ``write_prediction`` could not write, before anything is computed."""
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out}: must end in {' or '.join(SUFFIXES)}")
    if out.suffix == ".zarr":
        check_new(out)


def write_prediction(out: Path, prediction: Prediction) -> None:
    """Write the fields as an image .vti, or as a store .zarr that xarray opens, whole or not at all."""
    if out.suffix == ".vti":
        write_parts(out, vti_parts(prediction.fields, prediction.problem.spacing))
    else:
        save_new(out, make_dataset(prediction))


def make_dataset(prediction: Prediction) -> xr.Dataset:
    """Return the fields in single precision with named components; the attributes state the problem."""
    components, space = list(prediction.problem.physics.components), ("x", "y", "z")
    first = {len(components): "component", len(QUATERNIONS): "quaternion"}
    arrays = {
        name: ((first[len(field)], *space) if field.ndim == 4 else space, _shrink(field))
        for name, field in prediction.fields.items()
    }
    attributes = {**prediction.problem.to_json(), "spacing": prediction.problem.spacing, "phases": prediction.names}
    coordinates: dict[str, Any] = {"component": components}
    if prediction.problem.grains:
        coordinates["quaternion"] = list(QUATERNIONS)
    return xr.Dataset(arrays, coordinates, attributes)


def _shrink(field: Field) -> Field:
    return field.astype(np.float32 if field.dtype.kind == "f" else np.uint16)
