"""The data of a run: microstructures and their strain fields, written to stores shard by shard.

A shard that is done, by its receipt and its checksums, is not computed again. So a call after an interruption goes on
with the first shard that is missing.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace as change
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lspipe import workers as pool
from lspipe.cell.arguments import check_device, check_keep, check_spacing, check_tol
from lspipe.cell.numbers import SINGLE, check_numbers
from lspipe.cell.path_problem import PathProblem
from lspipe.cell.physics import ELASTICITY
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import NotConverged
from lspipe.files import locked
from lspipe.images import read_images
from lspipe.images.cells import make_cell, make_cells, stack
from lspipe.images.labels import check_different, check_labels, describe, find_jumps, warn_of_channels, warn_of_jumps
from lspipe.microstructure import Generator, generate, read_generator
from lspipe.microstructure.samples import PAPER
from lspipe.progress import progress
from lspipe.solving import solve_shard
from lspipe.store import Store
from lspipe.store.cells import find_materials, open_images
from lspipe.store.creation import create_store
from lspipe.store.layout import EFFECTIVE, FIELDS, PATHS, QUATERNIONS, EffectiveAttributes, lay_out_cells
from lspipe.store.shards import SOLVED, compute_checksum, open_pair, relative_path


def write_microstructures(
    path: Path,
    *,
    count: int,
    n: int | Sequence[int],
    seed: int,
    split: str,
    per_shard: int,
    generator: Generator = PAPER,
    spacing: Sequence[float] = (1, 1, 1),
    replace: bool = False,
) -> None:
    """Generate a split into a microstructure store.

    Shards that an earlier store of the same microstructures has already are kept.

    Args:
        path: The store, ``NAME.zarr``.
        count: Number of microstructures.
        n: Voxels along x, y and z, or one number for all three.
        seed: Root of the seeds of the samples.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        generator: Description of the microstructures.
        spacing: Edge lengths of a voxel along x, y, z.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: An argument is not allowed, or ``path`` cannot be replaced.
    """
    # Generating no cell refuses bad arguments before anything is written, and gives the shapes of all arrays.
    made = generate(0, n, seed, split, generator=generator, spacing=spacing)
    sizes = dict(zip("xyz", made.phase.shape[1:], strict=True)) | {"sample": count}
    sizes |= {"material": generator.phases, "crystal": generator.phases, "parameter": len(generator.parameters)}
    source: dict[str, Any] = {"root_seed": seed}
    if generator != PAPER:
        source["generator"] = generator.to_dict()
    attributes = {"split": split, "source": source}
    if generator.parameters:
        attributes["parameters"] = list(generator.parameters)
    if made.orientation is not None:
        sizes |= {"grain": made.orientation.shape[1], "quaternion": len(QUATERNIONS)}
        attributes |= {"quaternions": QUATERNIONS, "rotation": "crystal to sample"}
    _write_new_cells(path, sizes, spacing, attributes, per_shard=per_shard, replace=replace)


def import_microstructures(
    path: Path,
    files: Path | Sequence[Path],
    *,
    split: str,
    per_shard: int,
    count: int | None = None,
    first: int = 0,
    apart_from: Sequence[Path] = (),
    labels: Sequence[int] | None = None,
    replace: bool = False,
    **options: Any,
) -> None:
    """Import images into a microstructure store.

    Shards whose images are unchanged are kept. Images that do not look periodic, or that look as if they had an axis
    of channels, give a warning.

    Args:
        path: The store, ``NAME.zarr``.
        files: The file or files; see ``read_images``.
        split: 'train', 'valid' or 'test'.
        per_shard: Samples in a shard.
        count: Number of images, or of blocks, to import; by default all.
        first: Number of the first one to import.
        apart_from: Stores of blocks of the same images. Blocks that they hold, equal ones, and their neighbours are
            left out, so that no network is tested on a block that it has learned, or next to one.
        labels: The integers in the images that become phases 0, 1, …. By default those of the file in ascending order.
        replace: Whether shards of another store may be removed.
        **options: Further options of ``read_images``.

    Raises:
        ValueError: ``read_images`` refuses a file, there are fewer images or other labels, or ``path`` cannot be
            replaced.
    """
    generate(0, 1, 0, split)  # refuses an unknown split
    files = [files] if isinstance(files, Path) else files
    images = read_images(files, **options)
    name = ", ".join(map(str, files))
    end = len(images) if count is None else first + count
    if not 0 <= first < end <= len(images):
        things = "blocks" if images.is_cut else "images"
        raise ValueError(f"first = {first}, count = {count}: {name} has {len(images)} {things}")
    others = [Store.open(store).attributes for store in apart_from]
    if wrong := [store for store, other in zip(apart_from, others, strict=True) if "image_numbers" not in other]:
        raise ValueError(f"{wrong[0]}: must be a store of blocks that lspipe import made")
    taken = images.find_near(k for other in others for k in other["image_numbers"])
    try:
        if images.crystals is None:
            labels = check_labels(images, labels)
        elif labels is not None:
            raise ValueError(f"labels = {list(labels)}: must be left out, for the file describes grains")
        # Whole images are compared with all images of the files, also with those of other data sets.
        numbers = range(first, len(images)) if images.is_cut else range(len(images))
        repeated = {digest for other in others for digest in other["images"]}
        made = make_cells(images, (k for k in numbers if k not in taken), labels or (), repeated)
        digests, grains, jumps = {}, 0, []
        for k, cell in islice(made, count if images.is_cut else None):
            digests[k] = cell.digest
            if first <= k < end or images.is_cut:
                grains = max(grains, 0 if cell.material is None else len(cell.material))
                jumps += [(k, *jump) for jump in find_jumps(cell.phase)]
        if not images.is_cut:
            check_different([*digests.values()])
            digests = {k: digest for k, digest in digests.items() if first <= k < end}
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if not str(error).startswith(str(files[0])) else str(error)) from None
    if len(digests) < (count or 1):
        where = f"count = {count}: {name}" if count else name
        remedy = "must be at most that" if count else "lower --first-image, or leave out a store of --apart-from"
        raise ValueError(
            f"{where} has {len(digests)} blocks from number {first} on that differ from each other and are not next to "
            f"a block of another data set; {remedy}"
        )
    warn_of_channels(images)
    warn_of_jumps(jumps, len(digests))
    sizes = dict(zip(("sample", "x", "y", "z"), (len(digests), *images.shape), strict=True))
    attributes: dict[str, Any] = {
        "split": split,
        "source": {"first": first},
        "images": [*digests.values()],
        "images_path": [relative_path(path, file) for file in files],
        "images_options": options,
        "image_numbers": [*digests],
    }
    if images.crystals is None:
        assert labels
        attributes["labels"], sizes["material"] = labels, len(labels)
    else:
        sizes |= {"grain": grains, "crystal": int(images.crystals.material.max()) + 1, "quaternion": len(QUATERNIONS)}
        attributes |= {"quaternions": QUATERNIONS, "rotation": "crystal to sample"}
    _write_new_cells(path, sizes, images.spacing, attributes, per_shard=per_shard, replace=replace)


def _write_new_cells(
    path: Path, sizes: Mapping[str, int], spacing: Sequence[float], attributes: dict[str, Any], **options: Any
) -> None:
    if sizes["sample"] < 1:
        raise ValueError(f"count = {sizes['sample']}: must be at least 1")
    attributes["axes"] = "x, y, z in array order"
    if (checked := check_spacing(spacing)) != (1, 1, 1):
        attributes["spacing"] = list(checked)
    create_store(path, lay_out_cells(attributes), sizes, attributes=attributes, **options)
    write_cells(path)


def write_cells(path: Path, shards: Sequence[int] | None = None) -> None:
    """Write the given shards of a microstructure store (default: all), except those that are done."""
    cells = Store.open(path)
    cells.check_receipts()
    shards = cells.shards if shards is None else shards
    bar = progress(f"microstructures {path}", count_samples(cells, shards), "sample")
    with locked(cells.path, shared=True), bar:
        for shard in shards:
            began = time.perf_counter()
            first, last = cells.samples(shard)
            if not cells.is_done(shard):
                arrays = read_or_generate(cells, first, last)
                cells.write(shard, arrays, {"seconds": round(time.perf_counter() - began, 3)})
            bar.update(last - first)


def read_or_generate(cells: Store, first: int, last: int) -> dict[str, np.ndarray]:
    """Return the arrays of samples first … last − 1 of a microstructure store, from the generator or the images."""
    source = cells.attributes["source"]
    if "root_seed" in source:
        grid, split = cells.arrays["phase"].shape[1:], cells.attributes["split"]
        options: Any = {"generator": read_generator(source.get("generator", {})), "spacing": cells.spacing}
        made = generate(last - first, grid, source["root_seed"], split, first, **options)
        arrays = {name: getattr(made, name) for name in cells.arrays if name != "volume_fraction"}
    else:
        images = open_images(cells)
        numbers = cells.attributes["image_numbers"][first:last]
        some = [make_cell(images, k, cells.attributes.get("labels", ())) for k in numbers]
        digests = [cell.digest for cell in some]
        if digests != cells.attributes["images"][first:last]:
            raise ValueError(
                f"{images.sources[0].name}: holds other images than those that the store was made of; run lspipe "
                "import to make it again"
            )
        grains = cells.arrays["material"].shape[1] if "material" in cells.arrays else 0
        arrays = stack(some, grains) | {"seed": np.array([int(name, 16) for name in digests], np.uint64)}
    materials = cells.arrays["volume_fraction"].shape[1]
    return arrays | {"volume_fraction": volume_fractions(find_materials(arrays), materials)}


def create_fields(
    path: Path,
    microstructures: Path,
    problem: Problem,
    *,
    tol: float,
    per_shard: int,
    truth: Sequence[Path] = (),
    replace: bool = False,
) -> None:
    """Create a field store that states which problem ``solve_fields`` solves for which microstructures.

    Shards that an earlier store of the same fields has already are kept.

    Args:
        path: The store, ``NAME.zarr``.
        microstructures: The microstructure store.
        problem: The problem. Its voxels are those of the microstructures.
        tol: Relative residual at which the solver stops.
        per_shard: Samples in a shard.
        truth: Files of published strain fields of the images, which stand in for the solver's; see ``read_strain``.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: The problem cannot be stored or does not fit the microstructures, or ``path`` cannot be replaced.
    """
    problem.check_storable()
    problem, sizes, attributes = describe_solved(path, microstructures, problem, tol)
    values = problem.to_json()
    attributes["macroscopic_strain"] = values.pop("strain")
    attributes |= values | dict(problem.physics.store_attributes)
    if truth:
        if "images" not in attributes:
            raise ValueError(f"truth: {microstructures} must be a store of images")
        attributes["truth"] = [compute_checksum(file) for file in truth]
        attributes["truth_path"] = [relative_path(path, file) for file in truth]
    create_store(path, FIELDS, sizes, per_shard, attributes, replace=replace)


def create_paths(
    path: Path,
    microstructures: Path,
    problem: PathProblem,
    *,
    keep: Sequence[int] = (-1,),
    tol: float,
    per_shard: int,
    replace: bool = False,
) -> None:
    """Create a store that states which load path ``solve_fields`` follows for which microstructures.

    Args:
        path: The store, ``NAME.zarr``.
        microstructures: The microstructure store, of cells of phases.
        problem: The load path. Its voxels are those of the microstructures.
        keep: Numbers of the steps whose fields are stored; negative ones count from the last step.
        tol: Relative residual at which the iteration of a step stops.
        per_shard: Samples in a shard.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: The problem cannot be stored or does not fit the microstructures, or ``path`` cannot be replaced.
    """
    kept = check_keep(keep, len(problem.steps))
    check_numbers("stiffness", problem.elastic.stiffnesses, SINGLE)
    for t, load in enumerate(problem.steps):
        check_numbers(f"step {t}", [x for part in load for x in part or () if x is not None], SINGLE)
    elastic, sizes, attributes = describe_solved(path, microstructures, problem.elastic, tol)
    if "orientation" in Store.open(microstructures).arrays:
        raise ValueError(f"{microstructures}: holds polycrystals; load paths need cells of phases")
    sizes |= {"step": len(problem.steps), "kept": len(kept)}
    attributes |= change(problem, spacing=elastic.spacing).to_json() | {"kept": kept}
    create_store(path, PATHS, sizes, per_shard, attributes | dict(ELASTICITY.store_attributes), replace=replace)
    problem.warn_of_large_strains()


def create_effective(
    path: Path, microstructures: Path, problem: Problem, *, tol: float, per_shard: int, replace: bool = False
) -> None:
    """Create a store of effective properties, which ``solve_fields`` fills.

    Args:
        path: The store, ``NAME.zarr``.
        microstructures: The microstructure store.
        problem: Materials and element. The load is not used, and the voxels are those of the microstructures.
        tol: Guaranteed relative gap; see ``homogenize``.
        per_shard: Samples in a shard.
        replace: Whether shards of another store may be removed.

    Raises:
        ValueError: The problem does not fit the microstructures, or ``path`` cannot be replaced.
    """
    problem, sizes, attributes = describe_solved(path, microstructures, problem, tol)
    values = {name: value for name, value in problem.to_json().items() if name in EffectiveAttributes.model_fields}
    sizes["column"] = sizes["component"]
    create_store(path, EFFECTIVE, sizes, per_shard, attributes | values, replace=replace)


def describe_solved(
    path: Path, microstructures: Path, problem: Problem, tol: float
) -> tuple[Problem, dict[str, int], dict[str, Any]]:
    """Return the problem with the voxels of the microstructures, and sizes and attributes of a store of its solutions.

    Raises:
        ValueError: The problem does not fit the microstructures.
    """
    if not check_tol(tol):
        raise ValueError("tol = 0.0: must lie in (0, 1), or no solution would reach it")
    cells = Store.open(microstructures)
    if "phase" not in cells.arrays:
        raise ValueError(f"{microstructures}: must be a store of microstructures")
    cells.check_version()
    if problem.spacing not in ((1, 1, 1), cells.spacing):
        raise ValueError(f"spacing = {problem.spacing}: {microstructures} has voxels of {cells.spacing}; leave it out")
    problem = change(problem, spacing=cells.spacing)
    sizes = dict(zip(("sample", "x", "y", "z"), cells.arrays["phase"].shape, strict=True))
    sizes["material"] = cells.arrays["volume_fraction"].shape[1]
    sizes["component"] = len(problem.physics.components)
    if (count := len(problem.materials)) != sizes["material"]:
        cells.check_whole()
        raise ValueError(f"{count} material{'s' * (count != 1)}: {microstructures} has {describe_phases(cells)}")
    solid = [material.stiffness.any() for material in problem.materials]
    if (hollow := np.flatnonzero(cells.arrays["volume_fraction"][:][:, solid].sum(axis=1) == 0)).size:
        raise ValueError(f"{microstructures}: samples {hollow[:20].tolist()} have no solid voxel; each must have one")
    attributes = {
        "microstructures": cells.identity,
        "microstructures_path": relative_path(path, microstructures),
        "components": problem.physics.components,
        "tol": tol,
    }
    if "images" in cells.attributes:
        attributes["images"] = cells.attributes["images"]
    return problem, sizes, attributes


def describe_phases(cells: Store) -> str:
    """Describe the number of phases of a microstructure store and, for images, the label and voxels of each."""
    fractions = cells.arrays["volume_fraction"][:]
    phases = f"{fractions.shape[1]} phases"
    if "labels" not in cells.attributes:
        return phases
    voxels = np.rint(np.nan_to_num(fractions) * math.prod(cells.arrays["phase"].shape[1:])).astype(int)
    return f"{phases}, {describe(cells.attributes['labels'], voxels, cells.attributes['image_numbers'])}"


def solve_fields(
    path: Path,
    microstructures: Path,
    shards: Sequence[int] | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Solve shards of a store of fields, load paths or effective properties, except those that are done.

    A worker solves and writes one shard at a time. Samples that miss the tolerance are stored; the receipt and a
    warning name them. A sample that fails on its load path keeps its earlier steps, and the later ones are NaN.

    Args:
        path: The store that ``create_fields``, ``create_paths`` or ``create_effective`` created.
        microstructures: The microstructure store.
        shards: Numbers of shards; by default all.
        workers: Processes of one thread each. A CUDA device has one.
        scheduler: Address of a Dask cluster, whose workers are used instead.
        device: 'cpu', 'cuda', 'cuda:1', ….

    Returns:
        The receipts of the shards.

    Raises:
        ValueError: The store does not have a shard, or the machine does not have the device.
    """
    if device != "cpu" and scheduler is None:
        check_device(device)
        workers = 1  # more would only share the device
    cells, data = open_pair(microstructures, path, SOLVED)
    data.check_receipts()
    shards = data.shards if shards is None else shards
    if wrong := [k for k in shards if k not in data.shards]:
        raise ValueError(f"shard = {wrong[0]}: {path} has shards 0 to {data.shards[-1]}")
    task = partial(solve_shard, data.path, cells.path, device)
    with locked(data.path, shared=True), progress(f"solve {path}", count_samples(data, shards), "sample") as bar:
        receipts = pool.run(task, shards, bar, workers=workers, scheduler=scheduler)
    if failures := [f for receipt in receipts for f in receipt.get("failures", ())]:
        names = [f"sample {f['sample']} in step {f['step']} (residual {f['residual'] or np.nan:.1e})" for f in failures]
        more = f", … ({len(failures)} in all)" if len(failures) > 5 else ""
        warnings.warn(f"{path}: the path ends early: {', '.join(names[:5])}{more}", NotConverged, stacklevel=2)
    elif late := [i for receipt in receipts for i in receipt["not_converged"]]:
        tol = data.attributes["tol"]
        warnings.warn(f"{path}: samples {late} did not reach tol = {tol}", NotConverged, stacklevel=2)
    return receipts


def count_samples(data: Store, shards: Sequence[int]) -> int:
    """Return the number of samples in these shards."""
    return sum(last - first for first, last in map(data.samples, shards))
