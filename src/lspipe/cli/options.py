"""The options that several commands share, and how their text is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lspipe.machine import cores

if TYPE_CHECKING:
    from lspipe.cell.material import Material

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make data sets, solve, train, predict and evaluate for periodic microstructures.",
)

MOST_THREADS = 999  # A much larger number ends PyTorch with a segmentation fault.


def folder(path: str) -> Path:
    """Return the folder of a store or model, which may be named by the JSON file in it, as in the workflow."""
    return Path(path).parent if Path(path).name in ("zarr.json", "model.json") else Path(path)


Out = Annotated[Path, typer.Argument(parser=folder, metavar="OUT")]
Microstructures = Annotated[Path, typer.Argument(parser=folder, metavar="MICROSTRUCTURES")]
Fields = Annotated[Path, typer.Argument(parser=folder, metavar="FIELDS")]
Replace = Annotated[bool, typer.Option("--replace", help="remove the shards of an existing store with other settings")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a CUDA device if there is one")]
Threads = Annotated[int, typer.Option(min=0, max=MOST_THREADS, help="CPU threads; 0: as many as cores")]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        default_factory=cores,
        show_default="number of cores",
        help="processes, each of one thread",
    ),
]
Split = Annotated[str, typer.Option(help="train, valid or test")]
Spacing = Annotated[str, typer.Option(metavar="HX,HY,HZ", help="edge lengths of a voxel")]
Materials = Annotated[
    list[str],
    typer.Option(
        metavar="MATERIAL",
        help="YOUNG,POISSON (GPa), CONDUCTIVITY (W/(m K)), or a mapping as in the configuration, such as "
        "{kind: cubic, c11: 168.4, c12: 121.4, c44: 75.4}; give it once for each phase",
    ),
]
Strain = Annotated[
    str,
    typer.Option(
        metavar="XX,YY,ZZ,YZ,XZ,XY",
        show_default="xx of 1e-3, or free where only the stress is given",
        help="macroscopic strain with tensor shear, or macroscopic gradient X,Y,Z of conductors; leave a component "
        "empty where the stress is prescribed",
    ),
]
Stress = Annotated[
    str,
    typer.Option(metavar="XX,YY,ZZ,YZ,XZ,XY", help="macroscopic stress in GPa; empty where the strain is prescribed"),
]
Temperature = Annotated[float, typer.Option(help="change of temperature in K, which drives expansion")]
Scheme = Annotated[str, typer.Option(help="bbar, full or reduced")]
Labels = Annotated[
    str,
    typer.Option(
        metavar="LABEL,...",
        help="integers in the images that become phases 0, 1, …; by default those of the files in ascending order",
    ),
]
SamplesPerShard = Annotated[int, typer.Option(help="samples in a shard, which one task writes")]


def resources(device: str, threads: int) -> str:
    """Set the number of CPU threads, at most one per core where ``threads`` is 0, and return the device."""
    import numba
    import torch

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    numba.set_num_threads(min(threads or cores(), numba.get_num_threads()))
    return device.replace("auto", "cuda" if torch.cuda.is_available() else "cpu")


def split(option: str, form: str, values: list[str]) -> list[list[str]]:
    """Split each value of an option at its commas; a word that holds a comma is quoted as in a CSV file.

    Raises:
        ValueError: A value has not as many words as ``form``.
    """
    rows, parts = [], form.count(",") + 1
    for value in values:
        try:
            (row,) = csv.reader([value], strict=True)
        except csv.Error:
            row = []
        if len(row) != parts:
            raise ValueError(f'{option} {value}: must be {form}; write "a,b" for a name with a comma')
        rows.append(row)
    return rows


def parse_numbers(option: str, text: str, counts: tuple[int, ...] = ()) -> list[float]:
    """Return numbers separated by commas, as many as one of ``counts``, or any number of them.

    Raises:
        ValueError: The text is something else.
    """
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if not values or (counts and len(values) not in counts):
        number = f"{' or '.join(map(str, counts))} " if counts else ""
        raise ValueError(f"{option} {text}: must be {number}numbers separated by commas")
    return values


def parse_integers(option: str, text: str, counts: tuple[int, ...]) -> list[int]:
    """Return positive integers separated by commas. Raises ValueError unless there are as many as one of ``counts``."""
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if len(numbers) not in counts or 0 in numbers:
        raise ValueError(
            f"{option} {text}: must be {' or '.join(map(str, counts))} positive integers separated by commas"
        )
    return numbers


def parse_load(option: str, text: str) -> list[float | None]:
    """Return the components of a load, None where the text between two commas is empty."""
    try:
        return [float(word) if word.strip() else None for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text}: must be numbers separated by commas, empty where not prescribed") from None


def parse_loads(strain: str, stress: str) -> tuple[tuple[float | None, ...], tuple[float | None, ...] | None]:
    """Return the macroscopic strain and stress. By default xx is 1e-3, or free where the stress is given."""
    if not strain:
        strain = "," * stress.count(",") if stress else "1e-3,0,0,0,0,0"
    return tuple(parse_load("--strain", strain)), tuple(parse_load("--stress", stress)) if stress else None


def parse_labels(text: str) -> list[int] | None:
    """Return the labels of phases, or None where they are not stated."""
    try:
        return [int(word) for word in text.split(",")] if text else None
    except ValueError:
        raise ValueError(f"--labels {text}: must be integers separated by commas") from None


def parse_kind(option: str, text: str, read: Callable[[dict[str, Any]], Any]) -> Any:
    """Return what ``read`` makes of a mapping that is written as in the configuration."""
    from lspipe.read_config import read_yaml
    from lspipe.sections import convert_numbers

    values = convert_numbers(read_yaml(option, text))
    if not isinstance(values, dict):
        raise ValueError(f"{option} {text}: must be a mapping in braces, such as {{kind: …}}")
    try:
        return read(values)
    except ValueError as error:
        raise ValueError(f"{option} {text}: {error}") from None


def parse_material(text: str) -> Material:
    """Return the material of numbers or of a mapping."""
    from lspipe.cell.kinds import read_material

    if "{" not in text:
        numbers = parse_numbers("--material", text, (1, 2))
        names = ("young", "poisson") if len(numbers) == 2 else ("conductivity",)
        text = json.dumps(dict(zip(names, numbers, strict=True)))
    return parse_kind("--material", text, read_material)
