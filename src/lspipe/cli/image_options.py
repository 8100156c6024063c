"""The options with which commands read images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from lspipe.cli.options import parse_integers, parse_kind, parse_numbers


def read_options(
    dataset: Annotated[str, typer.Option(help="name of the array within the file, if it has several")] = "",
    axes: Annotated[
        str,
        typer.Option(
            help="a letter for each axis of the array in the file: x, y, z, n (images), c (one-hot channels); by "
            "default as the file states or as is usual in its format"
        ),
    ] = "",
    spacing: Annotated[
        str, typer.Option(metavar="HX,HY,HZ", help="edge lengths of a voxel; by default those of the file, or 1")
    ] = "",
    crop: Annotated[
        str,
        typer.Option(metavar="X:X,Y:Y,Z:Z", help="first voxel and end to keep along each axis, such as 0:512,:,10:"),
    ] = "",
    downsample: Annotated[int, typer.Option(help="number of voxels along each axis that become one")] = 1,
    threshold: Annotated[
        str, typer.Option(metavar="VALUE,...", help="ascending grey values at which the next phase begins")
    ] = "",
    blocks: Annotated[
        str, typer.Option(metavar="N or NX,NY,NZ", help="voxels of the cells into which each image is cut")
    ] = "",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="mirror cells along each axis, which makes them periodic")
    ] = False,
    raw: Annotated[
        str,
        typer.Option(
            metavar="MAPPING",
            help="shape and type of a file without header, such as {shape: [64, 64, 64], dtype: uint8}",
        ),
    ] = "",
) -> dict[str, Any]:
    """Return the options of ``read_images`` that differ from their defaults."""
    sizes = parse_integers("--blocks", blocks, (1, 3)) if blocks else None
    options: dict[str, Any] = {
        "dataset": dataset,
        "axes": axes,
        "spacing": parse_numbers("--spacing", spacing, (3,)) if spacing else None,
        "crop": parse_crop(crop) if crop else None,
        "downsample": downsample if downsample != 1 else None,
        "threshold": parse_numbers("--threshold", threshold) if threshold else None,
        "blocks": sizes[0] if sizes and len(sizes) == 1 else sizes,
        "mirror": mirror,
        "raw": parse_kind("--raw", raw, dict) if raw else None,
    }
    return {name: value for name, value in options.items() if value}


def takes_images(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of ``read_options`` to a command. Their result is its keyword argument ``options``."""
    own, shared = (inspect.signature(f).parameters for f in (command, read_options))
    hints = get_type_hints(command, include_extras=True) | get_type_hints(read_options, include_extras=True)

    @wraps(command)
    def with_options(**values: Any) -> None:
        command(options=read_options(**{k: values.pop(k) for k in shared}), **values)

    parameters = [p for p in (*own.values(), *shared.values()) if p.name != "options"]
    parameters.sort(key=lambda p: p.default is not p.empty)
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in parameters]
    )
    with_options.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return with_options


def parse_crop(text: str) -> list[tuple[int | None, int | None]]:
    """Return the first voxel and the end along x, y, z, None where the text is empty."""
    try:
        pairs = [tuple(int(word) if word.strip() else None for word in part.split(":")) for part in text.split(",")]
        x, y, z = [(first, end) for first, end in pairs]
    except ValueError:
        raise ValueError(f"--crop {text}: must be FIRST:END along x, y and z, such as 0:512,:,10:") from None
    return [x, y, z]
