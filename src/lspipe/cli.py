"""The command ``lspipe``: one thin subcommand for each rule of the workflow."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper
from itertools import product, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lspipe.files import parse, write_text
from lspipe.interrupt import Unfinished, deadline, explain, ignore_signals, stopping, stopping_at_once
from lspipe.machine import cores
from lspipe.versions import __version__

if TYPE_CHECKING:
    from lspipe.cell.material import Material

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.splitlines()[0]
)

# Each command imports what it needs when it runs: torch alone takes seconds.

GOES_ON = ": stopped; the shards that are done are saved, and the same call goes on"
MOST_THREADS = 999  # many more end PyTorch with a segmentation fault


def folder(path: str) -> Path:
    """Return the folder of a store or model, which may be named by the JSON file in it, as in the workflow."""
    return Path(path).parent if Path(path).name in ("zarr.json", "model.json") else Path(path)


Out = Annotated[Path, typer.Argument(parser=folder, metavar="OUT")]
Microstructures = Annotated[Path, typer.Argument(parser=folder, metavar="MICROSTRUCTURES")]
Fields = Annotated[Path, typer.Argument(parser=folder, metavar="FIELDS")]
Replace = Annotated[bool, typer.Option("--replace", help="remove shards of another store in this place")]
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
SamplesPerShard = Annotated[int, typer.Option(help="samples in a shard, which one task writes")]


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"lspipe {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=print_version, help="print the version")] = False,
) -> None:
    pass


@app.command()
def config(
    file: Annotated[Path | None, typer.Argument(help="YAML file")] = None,
    text: Annotated[str, typer.Option("--json", help="configuration as text, in place of FILE")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="print a table of every key")] = False,
) -> None:
    """Check a configuration and print it with all defaults."""
    import yaml

    from lspipe import config

    if schema:
        print(json.dumps(config.schema(), indent=1, ensure_ascii=False))
    elif reference:
        print(config.reference(), end="")
    elif not (file or text):
        raise ValueError("config: name a file, or give one of --json, --schema, --reference")
    else:
        raw = config.read_yaml(file, file.read_bytes()) if file else config.read_yaml("--json", text)
        print(
            yaml.safe_dump(
                config.parse_config(raw).model_dump(mode="json"),
                sort_keys=False,
                default_flow_style=None,
                allow_unicode=True,
            ),
            end="",
        )


@app.command()
def generate(
    out: Out,
    count: Annotated[int, typer.Option(help="number of microstructures")],
    n: Annotated[str, typer.Option(metavar="N or NX,NY,NZ", help="voxels along an edge, or along x, y and z")],
    generator: Annotated[
        str,
        typer.Option(metavar="MAPPING", help="kind of cells with its parameters, such as {kind: spheres, count: 20}"),
    ] = "{kind: gaussian}",
    spacing: Spacing = "1,1,1",
    seed: Annotated[int, typer.Option(help="root of the seeds of the samples")] = 0,
    split: Split = "train",
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Generate periodic microstructures and write them to the store OUT."""
    from lspipe.dataset import write_microstructures
    from lspipe.microstructure import read_generator

    write_microstructures(
        out,
        count=count,
        n=parse_shape(n),
        generator=parse_kind("--generator", generator, read_generator),
        spacing=parse_numbers("--spacing", spacing, (3,)),
        seed=seed,
        split=split,
        per_shard=samples_per_shard,
        replace=replace,
    )


@app.command("import")
def import_(
    out: Out,
    images: Annotated[Path, typer.Argument(help=".npy or .npz file of integers (N, nx, ny, nz)")],
    count: Annotated[int, typer.Option(help="number of images to take")],
    first_image: Annotated[int, typer.Option(help="number of the first image to take")] = 0,
    labels: Annotated[
        str,
        typer.Option(
            metavar="LABEL,...",
            help="integers in the images that become phases 0, 1, …; by default those of the file in ascending order",
        ),
    ] = "",
    spacing: Spacing = "1,1,1",
    split: Split = "train",
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Import your own IMAGES of microstructures into the store OUT."""
    from lspipe.dataset import import_microstructures

    try:
        values = [int(word) for word in labels.split(",")] if labels else None
    except ValueError:
        raise ValueError(f"--labels {labels}: must be integers separated by commas") from None
    import_microstructures(
        out,
        images,
        first=first_image,
        count=count,
        labels=values,
        spacing=parse_numbers("--spacing", spacing, (3,)),
        split=split,
        per_shard=samples_per_shard,
        replace=replace,
    )


@app.command()
def allocate(
    out: Out,
    microstructures: Microstructures,
    material: Materials,
    strain: Annotated[
        str,
        typer.Option(
            metavar="XX,YY,ZZ,YZ,XZ,XY",
            show_default="xx of 1e-3, or free where only the stress is given",
            help="macroscopic strain with tensor shear, or macroscopic gradient X,Y,Z of conductors; leave a component "
            "empty where the stress is prescribed",
        ),
    ] = "",
    stress: Annotated[
        str,
        typer.Option(
            metavar="XX,YY,ZZ,YZ,XZ,XY", help="macroscopic stress in GPa; empty where the strain is prescribed"
        ),
    ] = "",
    temperature: Annotated[float, typer.Option(help="change of temperature in K, which drives expansion")] = 0,
    scheme: Annotated[str, typer.Option(help="bbar, full or reduced")] = "bbar",
    tol: Annotated[float, typer.Option(help="relative residual at which the solver stops")] = 1e-4,
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Create the empty field store OUT, which states the problem to solve for MICROSTRUCTURES."""
    from lspipe.cell.problem import Problem
    from lspipe.dataset import create_fields

    if not strain:
        strain = "," * stress.count(",") if stress else "1e-3,0,0,0,0,0"
    create_fields(
        out,
        microstructures,
        Problem(
            tuple(map(parse_material, material)),
            tuple(parse_load("--strain", strain)),
            tuple(parse_load("--stress", stress)) if stress else None,
            temperature=temperature,
            scheme=scheme,
        ),
        tol=tol,
        per_shard=samples_per_shard,
        replace=replace,
    )


@app.command()
def homogenize(
    microstructures: Microstructures,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file to write, with a row for each sample")],
    material: Materials,
    scheme: Annotated[str, typer.Option(help="bbar, full or reduced")] = "bbar",
    tol: Annotated[float, typer.Option(help="relative residual at which the solver stops")] = 1e-6,
    threads: Threads = 0,
) -> None:
    """Compute the effective stiffness (or conductivity) and thermal expansion of all MICROSTRUCTURES."""
    from lspipe.cell.problem import Problem
    from lspipe.homogenization import homogenize

    materials = tuple(map(parse_material, material))
    resources("cpu", threads)
    no_load = (0.0,) * len(materials[0].physics.components)
    frame = homogenize(microstructures, Problem(materials, no_load, scheme=scheme), tol=tol)
    write_text(out, frame.to_csv(index=False))
    print(frame.drop(columns="sample").describe().loc[["mean", "min", "max"]].T.to_string(float_format="{:.6g}".format))


@app.command()
def solve(
    microstructures: Microstructures,
    fields: Fields,
    workers: Workers,
    shards: Annotated[
        list[str] | None, typer.Argument(metavar="[SHARD]...", help="numbers or receipts of shards; by default all")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask cluster to use, tls://…")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda, cuda:1, …, which have one worker")] = "cpu",
) -> None:
    """Solve for the strain of MICROSTRUCTURES and write it to the store FIELDS, which `lspipe allocate` created.

    After an interruption, the same call goes on.
    """
    from lspipe.workers import start_fork_server

    if workers > 1 and scheduler is None and device == "cpu":
        start_fork_server()
    from lspipe.dataset import solve_fields
    from lspipe.store import Store

    with stopping_at_once(f"{fields}{GOES_ON}"):
        chosen = [*map(Store.open(fields).parse_shard, shards)] if shards else None
        solve_fields(fields, microstructures, chosen, workers=workers, scheduler=scheduler, device=device)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(parser=folder, metavar="STORE")],
    workers: Workers,
    again: Annotated[int, typer.Option(min=0, help="number of random samples to make again and compare")] = 4,
    repair: Annotated[bool, typer.Option("--repair", help="make broken shards again, and no others")] = False,
) -> None:
    """Check STORE, of microstructures or fields. The exit code is 1 if anything is wrong."""
    from lspipe import verify

    verdict = verify.verify(path, again)
    print(verdict.table())
    if verdict.faults and repair:
        with stopping_at_once(f"{path}{GOES_ON}"):
            verify.repair(verdict, workers=workers)
        verdict = verify.verify(path, again)
        print(verdict.table())
    if verdict.faults:
        where = f" in shards {', '.join(map(str, verdict.broken))}" if verdict.broken else ""
        raise ValueError(f"{path}: {len(verdict.faults)} faults{where}")


@app.command()
def train(
    out: Annotated[Path, typer.Argument(parser=folder, metavar="FOLDER")],
    train: Annotated[
        list[str],
        typer.Option(metavar="CELLS,FIELDS", help="stores to train on; rln-cg takes several pairs"),
    ],
    valid: Annotated[list[str], typer.Option(metavar="CELLS,FIELDS", help="stores that choose the best epoch")],
    architecture: Annotated[str, typer.Option(help="fln, rln-t, rln, rln-cg or module:Class, a class of your own")],
    predict: Annotated[
        str, typer.Option(help="strain components to predict: first or all; rln-cg always predicts all")
    ] = "first",
    seed: Annotated[int, typer.Option(help="seed of the initial weights and of the order of samples")] = 0,
    epochs: Annotated[
        int, typer.Option(help="passes through the training set; a larger number extends a finished training")
    ] = 8,
    batch: Annotated[int, typer.Option(help="microstructures in a step")] = 4,
    learning_rate: Annotated[
        float, typer.Option(help="learning rate of the first step; it decays to 1e-8 as a cosine")
    ] = 2e-3,
    precision: Annotated[
        str, typer.Option(help="precision of convolutions: float32, bf16 or, on CUDA, tf32; rln-cg always uses float32")
    ] = "float32",
    device: Device = "auto",
    threads: Threads = 0,
    memory: Annotated[
        float,
        typer.Option(
            min=0, help="GB for the training set; a larger set is read in each epoch; 0: a quarter of the memory"
        ),
    ] = 0,
    minutes: Annotated[
        float, typer.Option(min=0, help="time limit: shortly before, save and exit with 75; 0: no limit")
    ] = 0,
) -> None:
    """Train a network and write it to FOLDER.

    SIGTERM and Ctrl-C let the step in progress end, save, and exit with 75. The same call goes on.
    """
    from lspipe import train as training
    from lspipe.loader import check_apart, check_labels, load, quarter_of_memory

    until = deadline(minutes)
    device = resources(device, threads)
    train_stores, valid_stores = ([(folder(a), folder(b)) for a, b in split(sets, 2)] for sets in (train, valid))
    check_labels(*(cells for cells, _ in [*train_stores, *valid_stores]))
    limit = (1e9 * memory or quarter_of_memory(device)) / len(train_stores)
    components = "all" if architecture == "rln-cg" else predict
    train_sets, valid_sets = ([load(*pair, limit, components) for pair in p] for p in (train_stores, valid_stores))
    for (cells, _), (unseen, _) in product(train_stores, valid_stores):
        check_apart(cells, unseen)
    domains = [domain for _, domain in train_sets]
    for (_, fields), (_, domain) in zip(valid_stores, valid_sets, strict=True):
        if domain not in domains:
            raise ValueError(
                f"{fields}: is of {domain}; must be one that is trained on, {', '.join(map(str, domains))}"
            )
    with stopping(until) as stop:
        training.train(
            out,
            train_sets,
            valid_sets,
            architecture=architecture,
            seed=seed,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            device=device,
            precision=precision,
            stop=stop,
        )


@app.command()
def import_published(
    file: Annotated[
        Path, typer.Argument(help="file of weights as the paper's authors publish them; it is not trusted")
    ],
    out: Out,
    contrast: Annotated[
        float, typer.Option(help="Young's modulus of phase 1 over that of phase 0, which FILE does not state")
    ],
    young: Annotated[float, typer.Option(help="Young's modulus of phase 0, GPa")] = 120.0,
    poisson: Annotated[float, typer.Option(help="Poisson's ratio of both phases")] = 0.3,
    architecture: Annotated[str, typer.Option(help="fln, rln-t or rln; another one in FILE is refused")] = "",
) -> None:
    """Import published weights of FLN, RLN-t or RLN into the model folder OUT. Nothing in FILE is executed."""
    from lspipe.models.published import import_published

    import_published(file, out, contrast=contrast, young=young, poisson=poisson, architecture=architecture)


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="folder of a model, or the name of a shipped one (rln-cg, …), or cg: the solver stopped early"
        ),
    ],
    microstructures: Microstructures,
    fields: Fields,
    errors: Annotated[Path, typer.Option(help="parquet file to write, with a row for each microstructure and pass")],
    examples: Annotated[
        Path, typer.Option(parser=folder, help="store to write, with the fields of some microstructures")
    ],
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Compare the strain that a model predicts after each pass with the ground truth of a store."""
    from lspipe.evaluate import evaluate
    from lspipe.models.files import load_model
    from lspipe.products import write_errors, write_examples

    frame, fields_of_some = evaluate(
        load_model(str(folder(model)), resources(device, threads)), microstructures, fields
    )
    write_examples(examples, fields_of_some)
    write_errors(errors, frame)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="FOLDER")],
    microstructures: Microstructures,
    fields: Fields,
    sample: Annotated[list[int], typer.Option(help="number of a sample; give it once for each")],
    model: Annotated[str, typer.Option(help="model whose prediction to add: a folder, rln-cg, …, or cg")] = "",
    passes: Annotated[
        bool, typer.Option("--passes", help="also write the prediction after each pass, as a series")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="also write a CSV file with a row for each voxel, in Abaqus's order")
    ] = False,
) -> None:
    """Write fields as images FOLDER/SAMPLE.vti, which ParaView opens."""
    from lspipe.export import export

    if passes and not model:
        raise ValueError("--passes: needs --model")
    predictor = None
    if model:
        from lspipe.models.files import load_model

        predictor = load_model(str(folder(model)))
    export(out, microstructures, fields, sample, predictor, passes=passes, csv=table)


@app.command()
def table(
    out: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".csv, .md or .html")],
    input: Annotated[
        list[str],
        typer.Option(
            metavar="CASE,NAME,FILE", help="errors of `evaluate`; a name that is given again is another training seed"
        ),
    ],
) -> None:
    """Make the table of errors, with a row for each case and predictor."""
    import pandas as pd

    from lspipe.products import read_errors
    from lspipe.tables import html, markdown, table

    forms = {".csv": lambda rows: rows.to_csv(index=False), ".md": markdown, ".html": html}
    for file in out:
        if file.suffix not in forms:
            raise ValueError(f"{file}: must end in {', '.join(forms)}")
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for case, name, errors in split(input, 3):
        frames.setdefault((case, name), []).append(read_errors(Path(errors)))
    rows = table(frames)
    for file in out:
        write_text(file, forms[file.suffix](rows))
    print(markdown(rows))


@app.command()
def summary(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="HTML file to write")],
    config: Annotated[str, typer.Option(help="configuration as JSON")],
    table: Annotated[Path, typer.Option(help="CSV file of `table`")],
    figure: Annotated[
        list[str], typer.Option(metavar="CAPTION,FILE", help="PNG file with its caption; the order is kept")
    ],
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME,FILE", help="model.json of a network; give it once for each")
    ] = None,
) -> None:
    """Make the first page of the report."""
    import pandas as pd

    from lspipe.config import parse_config
    from lspipe.summary import summary

    names: Any = {"dtype": {"case": str, "predictor": str}, "keep_default_na": False, "na_values": [""]}
    models, figures = ({name: Path(file) for name, file in split(files or [], 2)} for files in (model, figure))
    write_text(
        out,
        summary(
            parse_config(parse("--config", dict[str, Any], config.encode())),
            pd.read_csv(table, **names),
            models,
            figures,
        ),
    )


@app.command()
def figure(
    kind: Annotated[str, typer.Argument(metavar="FIGURE", help="name of the figure")],
    out: Annotated[list[Path], typer.Argument(metavar="FILE...", help="files to write; the suffix sets the format")],
    input: Annotated[
        list[str], typer.Option(metavar="NAME,FILE", help="name and output of a predictor; the order is kept")
    ],
) -> None:
    """Draw a figure from the output of `train` or `evaluate`."""
    from lspipe.figures import draw

    draw(kind, out, dict(split(input, 2)))


def resources(device: str, threads: int) -> str:
    """Set the number of CPU threads, at most one per core where ``threads`` is 0, and return the device."""
    import numba
    import torch

    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    numba.set_num_threads(min(threads or cores(), numba.get_num_threads()))
    return device.replace("auto", "cuda" if torch.cuda.is_available() else "cpu")


def split(values: list[str], parts: int) -> list[list[str]]:
    """Split each value at its commas; a word that holds a comma is quoted as in a CSV file.

    Raises:
        ValueError: A value has not as many words as ``parts``.
    """
    rows = []
    for value in values:
        try:
            (row,) = csv.reader([value], strict=True)
        except csv.Error:
            row = []
        if len(row) != parts:
            raise ValueError(f'{value!r}: must be {parts} words separated by commas; write "a,b" for one with a comma')
        rows.append(row)
    return rows


def parse_numbers(option: str, text: str, counts: tuple[int, ...]) -> list[float]:
    """Return numbers separated by commas. Raises ValueError unless there are as many as one of ``counts``."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise ValueError(f"{option} {text}: must be {' or '.join(map(str, counts))} numbers separated by commas")
    return values


def parse_shape(text: str) -> int | list[int]:
    """Return a number of voxels, or three."""
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if len(numbers) not in (1, 3) or 0 in numbers:
        raise ValueError(f"--n {text}: must be 1 or 3 positive integers separated by commas")
    return numbers if len(numbers) == 3 else numbers[0]


def parse_load(option: str, text: str) -> list[float | None]:
    """Return the components of a load, None where the text between two commas is empty."""
    try:
        return [float(word) if word.strip() else None for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text}: must be numbers separated by commas, empty where not prescribed") from None


def parse_kind(option: str, text: str, read: Callable[[dict[str, Any]], Any]) -> Any:
    """Return what ``read`` makes of a mapping that is written as in the configuration."""
    from lspipe.config import convert_numbers, read_yaml

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


def settle() -> None:
    """Start the command again in a clean environment, in UTF-8, where the shell's settings would disturb Python.

    Such settings are a locale of another encoding, a closed standard stream, and variables for programmers.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "PYTHONWARNINGS")}
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        if not re.fullmatch(r"[1-9]\d{0,2}(,\d+)*", environment.get(name, "1")):
            del environment[name]  # an empty value, 0 or 100000 ends PyTorch or Numba
    closed = None in (sys.stdin, sys.stdout, sys.stderr)
    utf8 = sys.getfilesystemencoding() == "utf-8" or environment.get("PYTHONUTF8") == "1"  # python -X utf8=0 stays so
    if environment == os.environ and not closed and utf8:
        return
    while (stream := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(stream, True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment | {"PYTHONUTF8": "1"})


RENAMED = {
    "import-checkpoint": "import-published",
    "--components": "--predict",
    "--first": "--first-image",
    "--of": "--input",
}  # of earlier versions


def main() -> None:
    if not sys.flags.ignore_environment:
        settle()
    # Threads of PyTorch that wait would occupy cores. On a busy machine that makes a training two to ten times as slow;
    # on an idle one, waiting without a core costs a tenth. The user's own value is kept.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for i, word in enumerate(takewhile(lambda word: word != "--", sys.argv[1:])):
        new = RENAMED.get(word.partition("=")[0])
        if new and (i == 0 or word.startswith("-")):
            sys.exit(f"lspipe: {word} is now called {new}")
    # Names of files may hold any bytes. Line buffering lets a full disk fail at the line that does not fit.
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        app()
    except Unfinished as error:
        ignore_signals()
        print(f"lspipe: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except Exception as error:
        if (line := explain(error)) is None:
            raise
        sys.exit(f"lspipe: {line}")
