"""Commands that look at images, and that predict the fields of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lspipe.cli.image_options import takes_images
from lspipe.cli.options import (
    Device,
    Labels,
    Materials,
    Strain,
    Stress,
    Temperature,
    Threads,
    app,
    folder,
    parse_labels,
    parse_loads,
    parse_material,
    resources,
)


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and texts in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


@app.command()
@takes_images
def inspect(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="files, or folders of slices, whose images follow each other"),
    ],
    options: dict[str, Any],
    figure: Annotated[Path | None, typer.Option(help="file to draw three slices to, such as slices.png")] = None,
) -> None:
    """Describe the arrays in FILE and the cells that `lspipe import` would make of them."""
    from lspipe.inspect_images import find_slices, inspect_images

    rows = inspect_images(images, **options)
    print_rows(rows)
    if figure:
        from lspipe.figures.image import draw_slices
        from lspipe.figures.style import save

        save(draw_slices(**find_slices(images, **options)), [figure])


ImageFile = Annotated[Path, typer.Argument(metavar="IMAGE", help="a file, or a folder of slices")]


@app.command()
@takes_images
def predict(
    image_file: ImageFile,
    material: Materials,
    options: dict[str, Any],
    strain: Strain = "",
    stress: Stress = "",
    temperature: Temperature = 0,
    scheme: Annotated[str, typer.Option(show_default="that of the model", help="element: bbar, full or reduced")] = "",
    model: Annotated[
        str,
        typer.Option(help="cg (the solver), a model of the package such as rln-cg, or the folder of a trained model"),
    ] = "cg",
    tol: Annotated[
        float | None,
        typer.Option(show_default="1e-4", help="relative residual at which the solver or RLN-CG stops"),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            show_default="all, of a network", help="passes of a network, or iterations of the solver, in place of --tol"
        ),
    ] = None,
    image: Annotated[int | None, typer.Option(help="number of the image or block, if there are several")] = None,
    labels: Labels = "",
    out: Annotated[Path | None, typer.Option(help="file .vti or store .zarr to write the fields to")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Predict strain and stress in every voxel of IMAGE, with a guaranteed error bound."""
    from lspipe.cell.problem import Problem
    from lspipe.images import read_images
    from lspipe.models.files import load_model
    from lspipe.predict_image import check_out, predict_image, tabulate_prediction, write_prediction

    if out:
        check_out(out)
    materials, loads = tuple(map(parse_material, material)), parse_loads(strain, stress)
    predictor = load_model(str(folder(model)), resources(device, threads))
    prediction = predict_image(
        read_images(image_file, **options),
        Problem(materials, *loads, temperature=temperature, scheme=scheme or predictor.scheme),
        predictor,
        image=image,
        labels=parse_labels(labels),
        tol=tol,
        passes=passes,
    )
    if out:
        write_prediction(out, prediction)
    print_rows(tabulate_prediction(prediction) + ([("fields", str(out))] if out else []))
