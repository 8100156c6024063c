"""Commands that make and check data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lspipe.cli.image_options import takes_images
from lspipe.cli.options import (
    Fields,
    Labels,
    Materials,
    Microstructures,
    Out,
    Replace,
    SamplesPerShard,
    Scheme,
    Spacing,
    Split,
    Strain,
    Stress,
    Temperature,
    Workers,
    app,
    folder,
    parse_integers,
    parse_kind,
    parse_labels,
    parse_loads,
    parse_material,
    parse_numbers,
)
from lspipe.files import write_text
from lspipe.interrupt import stopping_at_once

# Each command imports what it needs when it runs: torch alone takes seconds.

GOES_ON = ": stopped; the shards that are done are saved, and the same command continues"


@app.command()
def config(
    file: Annotated[Path | None, typer.Argument(help="YAML file")] = None,
    text: Annotated[str, typer.Option("--json", help="configuration as text, in place of FILE")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="print a table of every key")] = False,
) -> None:
    """Check a configuration and print it with all defaults."""
    import yaml

    from lspipe import read_config

    if schema:
        print(json.dumps(read_config.schema(), indent=1, ensure_ascii=False))
    elif reference:
        print(read_config.reference(), end="")
    elif not (file or text):
        raise ValueError("config: name a file, or give one of --json, --schema, --reference")
    else:
        raw = read_config.read_yaml(file, file.read_bytes()) if file else read_config.read_yaml("--json", text)
        print(
            yaml.safe_dump(
                read_config.parse_config(raw).model_dump(mode="json"),
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
        n=sizes[0] if len(sizes := parse_integers("--n", n, (1, 3))) == 1 else sizes,
        generator=parse_kind("--generator", generator, read_generator),
        spacing=parse_numbers("--spacing", spacing, (3,)),
        seed=seed,
        split=split,
        per_shard=samples_per_shard,
        replace=replace,
    )


@app.command("import")
@takes_images
def import_(
    out: Out,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="files, or folders of slices, whose images follow each other"),
    ],
    options: dict[str, Any],
    count: Annotated[int, typer.Option(help="number of images or blocks to take; 0: all")] = 0,
    first_image: Annotated[int, typer.Option(help="number of the first image or block to take")] = 0,
    apart_from: Annotated[
        list[Path] | None,
        typer.Option(
            parser=folder,
            metavar="STORE",
            help="store of other blocks of the same image; they and their neighbours are left out",
        ),
    ] = None,
    labels: Labels = "",
    split: Split = "train",
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Import your own images of microstructures into the store OUT."""
    from lspipe.dataset import import_microstructures

    import_microstructures(
        out,
        images,
        first=first_image,
        count=count or None,
        apart_from=apart_from or (),
        labels=parse_labels(labels),
        split=split,
        per_shard=samples_per_shard,
        replace=replace,
        **options,
    )


@app.command()
def allocate(
    out: Out,
    microstructures: Microstructures,
    material: Materials,
    strain: Strain = "",
    stress: Stress = "",
    temperature: Temperature = 0,
    scheme: Scheme = "bbar",
    tol: Annotated[float, typer.Option(help="relative residual at which the solver stops")] = 1e-4,
    load: Annotated[
        str,
        typer.Option(
            metavar="MAPPING",
            help="load path for inelastic materials in place of a strain, as in the configuration, such as "
            "{steps: [{strain: [0.01, 0, 0, 0, 0, 0], increments: 5}], keep: [1, -1]}",
        ),
    ] = "",
    truth: Annotated[
        list[Path] | None,
        typer.Option(help="file of published strain that stands in for the solver's; give one for each file of images"),
    ] = None,
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Create the empty field store OUT, which states the problem, or the load path, to solve for MICROSTRUCTURES."""
    from lspipe.cell.path_problem import PathProblem
    from lspipe.cell.problem import Problem
    from lspipe.dataset import create_fields, create_paths
    from lspipe.read_config import read_load

    materials = tuple(map(parse_material, material))
    options: Any = {"tol": tol, "per_shard": samples_per_shard, "replace": replace}
    if load:
        others = {"strain": strain, "stress": stress, "temperature": temperature, "truth": truth}
        if given := [f"--{name}" for name, value in others.items() if value]:
            raise ValueError(f"{', '.join(given)}: must be left out beside --load")
        steps, kept = parse_kind("--load", load, read_load).divide()
        create_paths(out, microstructures, PathProblem(materials, tuple(steps), scheme), keep=kept, **options)
        return
    problem = Problem(materials, *parse_loads(strain, stress), temperature=temperature, scheme=scheme)
    create_fields(out, microstructures, problem, truth=truth or (), **options)


@app.command()
def homogenize(
    microstructures: Microstructures,
    out: Out,
    material: Materials,
    workers: Workers,
    scheme: Scheme = "bbar",
    tol: Annotated[float, typer.Option(help="guaranteed relative gap between the bounds of the stiffness")] = 1e-3,
    table: Annotated[Path | None, typer.Option(help="CSV file to write, with a row for each microstructure")] = None,
    samples_per_shard: SamplesPerShard = 64,
    replace: Replace = False,
) -> None:
    """Compute effective properties of all MICROSTRUCTURES between guaranteed bounds and write them to the store OUT.

    After an interruption, the same command continues.
    """
    from lspipe.workers import start_fork_server

    if workers > 1:
        start_fork_server()
    from lspipe.cell.problem import Problem
    from lspipe.dataset import create_effective, solve_fields
    from lspipe.homogenization import tabulate_effective

    materials = tuple(map(parse_material, material))
    problem = Problem(materials, (0.0,) * len(materials[0].physics.components), scheme=scheme)
    create_effective(out, microstructures, problem, tol=tol, per_shard=samples_per_shard, replace=replace)
    with stopping_at_once(f"{out}{GOES_ON}"):
        solve_fields(out, microstructures, workers=workers)
    rows = tabulate_effective(out)
    if table:
        write_text(table, rows.to_csv(index=False))
    shown = rows.filter(regex=r"^([fKGka]\d*|anisotropy|gap|iterations|seconds)$")
    print(shown.describe().loc[["mean", "min", "max"]].T.to_string(float_format="{:.6g}".format))


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

    After an interruption, the same command continues.
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
    """Check STORE, of microstructures, fields or effective properties. The exit code is 1 if anything is wrong."""
    from lspipe import verify

    verdict = verify.verify(path, again)
    print(verdict.table())
    if verdict.faults and repair:
        with stopping_at_once(f"{path}{GOES_ON}"):
            verify.repair(verdict, workers=workers)
        verdict = verify.verify(path, again)
        print(verdict.table())
    if verdict.faults:
        count, shards = len(verdict.faults), verdict.broken
        where = f" in shard{'s' * (len(shards) > 1)} {', '.join(map(str, shards))}" if shards else ""
        raise ValueError(f"{path}: {count} fault{'s' * (count > 1)}{where}")
