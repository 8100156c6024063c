"""A report on files of images, and on the cells that ``lspipe import`` would make of them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lspipe.images import Images, Source, find_sources, format_options, read_images
from lspipe.images.scan import LIKELY, Scan, count_grey_values, find_otsu, scan_voxels

BARS = 10  # bars of the histogram that is shown
MOST_SHOWN = 12  # labels
PAPER = 31  # voxels along an edge of the cells that the shipped networks were trained on

Rows = list[tuple[str, str]]


def list_arrays(files: Sequence[Path], dataset: str = "", **options: Any) -> tuple[Rows, bool]:
    """Return rows on the arrays of the files, and whether one array of each is chosen."""
    rows: Rows = []
    is_chosen = True
    for file in files:
        sources = find_sources(file, options.get("raw"))
        rows += [("file", str(file))]
        for source in sources:
            axes = f"axes {source.axes}" if source.axes else "axes to be stated"
            name = f"{source.dataset}: " if source.dataset else ""
            rows += [("array", f"{name}{tuple(source.shape)} {source.dtype}, {axes}")]
        if len(sources) > 1 and not dataset:
            rows += [("", "choose one array with --dataset, such as " + shlex.join(["--dataset", sources[0].dataset]))]
            is_chosen = False
        elif not (options.get("axes") or all(source.axes for source in sources)):
            rows += [("", "state the axes with --axes: a letter of x, y, z, n (images), c (channels) for each")]
            is_chosen = False
        if not sources:
            rows += [("", "holds no image; an image is an array of numbers of 2 to 5 axes")]
            is_chosen = False
    return rows, is_chosen


def open_inspected(files: Sequence[Path], **options: Any) -> tuple[Images, bool]:
    """Return the images, and whether they have grey values without a threshold, which ``read_images`` refuses."""
    sources = [s for file in files for s in find_sources(file, options.get("raw"))]
    dataset = options.get("dataset", "").strip("/")
    chosen = [s for s in sources if not dataset or s.dataset.strip("/") == dataset]
    is_grey = not options.get("threshold") and any(s.dtype.kind == "f" and "c" not in s.axes for s in chosen)
    return read_images(files, **options | ({"threshold": [0.0]} if is_grey else {})), is_grey


def inspect_images(files: Sequence[Path], **options: Any) -> Rows:
    """Return rows, a name and a text, on the files and on the cells that these options make of them.

    Args:
        files: The files.
        **options: The options of ``read_images``.

    Raises:
        ValueError: A file is damaged or its format is unknown, or an option does not fit.
    """
    rows, is_chosen = list_arrays(files, **options)
    if not is_chosen:
        return rows
    images, is_grey = open_inspected(files, **options)
    rows += describe_source(images.sources[0], options)
    scan = scan_voxels(images, is_grey)
    is_grey = is_grey or (not scan.counts and images.crystals is None)
    if is_grey:
        return rows + describe_grey_values(images, scan, files, options)
    rows += describe_grains(images, scan) if images.crystals else describe_labels(images, scan)
    rows += describe_periodicity(images, scan) + describe_cells(images, scan)
    phases = int(images.crystals.material.max()) + 1 if images.crystals else len(scan.counts)
    return rows + suggest_commands(files, options, phases, len(images))


def find_slices(files: Sequence[Path], **options: Any) -> dict[str, Any]:
    """Return the arguments of ``draw_slices``, with middle slices of the first image before it is cut into blocks."""
    images, is_grey = open_inspected(files, **options)
    source, slices = images.sources[0], {}
    for axis, name in enumerate("xyz"):
        middle = images.grid[axis] // 2
        layer = images.read_layers(0, axis, middle, middle + 1, is_grey=is_grey)
        slices[f"layer {middle} along {name}"] = layer.squeeze(axis)
    kind = "grain" if images.crystals else "grey value" if is_grey else "phase" if options.get("threshold") else "label"
    is_scaled = bool(source.stated & {"spacing"} or options.get("spacing"))
    return {
        "slices": slices,
        "spacing": images.spacing,
        "unit": source.unit if is_scaled else "voxel",
        "block": images.block if images.is_cut else None,
        "kind": kind,
    }


def describe_source(source: Source, options: dict[str, Any]) -> Rows:
    """Return rows on axes and spacing, which the file, the user or a convention states."""

    def origin(name: str, default: str) -> str:
        return "as you state" if options.get(name) else "as the file states" if name in source.stated else default

    unit = f" {source.unit}" if source.unit else ""
    default = "the default, because the file states none; see --spacing"
    lengths = [n * h for n, h in zip(source.grid, source.spacing, strict=True)]
    return [
        ("images", f"{source.count} of {join(source.grid)} voxels along x, y, z"),
        ("axes", f"{source.axes}, {origin('axes', 'as is usual in this format')}"),
        ("spacing", f"{join(source.spacing)}{unit}, {origin('spacing', default)}"),
        ("size", f"{join(lengths)}{unit}"),
    ]


def join(numbers: Sequence[float]) -> str:
    return " × ".join(f"{x:.6g}" for x in numbers)


def describe_labels(images: Images, scan: Scan) -> Rows:
    """Return rows on the phases and their volume fractions."""
    total = sum(scan.counts.values())
    rows: Rows = [("phases", str(len(scan.counts)))]
    grey = images.threshold
    for p, (label, voxels) in enumerate(sorted(scan.counts.items())[:MOST_SHOWN]):
        name = f"label {label}"
        if len(grey):
            name = f"values below {grey[0]:g}" if label == 0 else f"values from {grey[label - 1]:g} on"
        rows.append((f"  phase {p}", f"{name}: {voxels / total:.2%} of the voxels"))
    if len(scan.counts) > MOST_SHOWN:
        rows.append(("", f"and {len(scan.counts) - MOST_SHOWN} more"))
    if len(scan.counts) < 2:
        rows.append(("", "one value is no microstructure: lspipe import needs --labels, or a --threshold"))
    return rows


def describe_grains(images: Images, scan: Scan) -> Rows:
    """Return rows on the grains and their crystals."""
    crystals = images.crystals
    assert crystals is not None
    total = sum(scan.counts.values())
    voxels: dict[int, int] = {}
    for label, count in scan.counts.items():
        material = int(crystals.material[label]) if 0 <= label < len(crystals.material) else -1
        voxels[material] = voxels.get(material, 0) + count
    rows: Rows = [("grains", str(len(scan.counts)))]
    for material, count in sorted(voxels.items()):
        name = "voxels without a grain" if material < 0 else f"crystal {material}"
        if 0 <= material < len(crystals.names):
            name = crystals.names[material]
        rows.append((f"  {name}", f"{count / total:.2%} of the voxels"))
    if -1 in voxels:
        rows.append(("", "lspipe import refuses voxels without a grain: assign each to a grain, or --crop"))
    return rows


def describe_grey_values(images: Images, scan: Scan, files: Sequence[Path], options: dict[str, Any]) -> Rows:
    """Return rows with a histogram of grey values, Otsu's threshold and the commands that use it."""
    text = f"{scan.lowest:g} to {scan.highest:g}, more than {LIKELY} different ones: taken for grey values, not phases"
    rows: Rows = [("values", text)]
    if not scan.lowest < scan.highest:
        return rows
    histogram, edges = count_grey_values(images, scan.lowest, scan.highest)
    bars = histogram.reshape(BARS, -1).sum(axis=1)
    for start, voxels in zip(edges[:: len(histogram) // BARS], bars, strict=False):
        rows.append(
            (f"  from {start:.4g}", f"{voxels / bars.sum():7.2%} {'█' * round(40 * voxels / bars.max())}".rstrip())
        )
    threshold = find_otsu(histogram, edges)
    above = histogram[edges[:-1] >= threshold].sum() / histogram.sum()
    rows.append(("Otsu's threshold", f"{threshold:.4g}, with {above:.2%} of the voxels from there on"))
    return rows + suggest_commands(files, options | {"threshold": [f"{threshold:.4g}"]}, 2, len(images))


def describe_periodicity(images: Images, scan: Scan) -> Rows:
    """Return rows that compare the changes across the faces with the changes from a layer to the next."""
    if images.mirror:
        return [("periodic", "yes, for cells are mirrored")]
    cells = len(images)
    rows: Rows = []
    for axis, changes, jumps in zip("xyz", scan.changes, scan.jumps, strict=True):
        if len(changes) > 1:
            text = f"{changes[0] / cells:.1%} of voxels change across the faces, "
            text += f"{changes[1:].mean() / cells:.1%} from layer to layer"
            verdict = f"; not periodic in {jumps} of {cells} cells" if jumps else ""
            rows.append((f"periodic along {axis}", text + verdict))
    if any(scan.jumps):
        rows.append(("", "--mirror makes cells periodic; without it, errors near the faces are larger"))
    return rows


def describe_cells(images: Images, scan: Scan) -> Rows:
    """Return rows on the cells that ``lspipe import`` would make."""
    cells = len(images)
    rows: Rows = [("cells", f"{cells} of {join(images.shape)} voxels, with spacing {join(images.spacing)}")]
    if images.is_cut:
        used = math.prod(images.block) * math.prod(images.layout) / math.prod(images.grid)
        rows.append(("blocks", f"{join(images.layout)} of each image; {1 - used:.2%} of its voxels are left over"))
        rows.append(("", f"{cells - scan.cells} blocks equal earlier ones and are dropped"))
    elif scan.cells < cells:
        rows.append(("", f"{cells - scan.cells} images equal earlier ones: lspipe import refuses them"))
    elif cells == 1 and min(n for n in images.grid if n > 1) >= 2 * PAPER:
        count = math.prod(max(1, n // PAPER) for n in images.grid)
        rows.append(("", f"one cell: networks need hundreds; --blocks {PAPER} cuts it into {count}"))
    return rows


def suggest_commands(files: Sequence[Path], options: dict[str, Any], phases: int, cells: int) -> Rows:
    """Return rows with the commands to type next."""
    chosen = format_options(options)
    more = ["--image", "0"] if cells > 1 else []
    predict = " ".join([shlex.join([str(files[0]), *chosen, *more]), *["--material …"] * phases])
    words = shlex.join([*map(str, files), *chosen])
    return [("next", f"lspipe import cells.zarr {words}"), ("", f"lspipe predict {predict}")]
