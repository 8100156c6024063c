"""Commands that write tables, figures and files for other programs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lspipe.cli.options import Fields, Microstructures, app, folder, split
from lspipe.files import parse, write_text

if TYPE_CHECKING:
    import pandas as pd


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
    fans: Annotated[
        bool, typer.Option("--fans", help="also write FOLDER/SAMPLE.h5 in the layout of FANS's results")
    ] = False,
    dream3d: Annotated[
        bool, typer.Option("--dream3d", help="also write FOLDER/SAMPLE.dream3d for DREAM.3D 6 and NX")
    ] = False,
) -> None:
    """Write fields as images FOLDER/SAMPLE.vti, which ParaView opens, and as files of other programs."""
    from lspipe.export import export

    if passes and not model:
        raise ValueError("--passes: needs --model")
    predictor = None
    if model:
        from lspipe.models.files import load_model

        predictor = load_model(str(folder(model)))
    export(out, microstructures, fields, sample, predictor, passes=passes, csv=table, fans=fans, dream3d=dream3d)


@app.command()
def table(
    out: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".csv, .md, .html, or .txt for the conclusion")],
    input: Annotated[
        list[str],
        typer.Option(
            metavar="CASE,NAME,FILE", help="errors of `evaluate`; a name that is given again is another training seed"
        ),
    ],
) -> None:
    """Make the table of errors, with a row for each case and predictor."""
    from lspipe.conclusion import conclude
    from lspipe.products import read_errors
    from lspipe.tables import html, markdown, table

    forms = {
        ".csv": lambda rows: rows.to_csv(index=False),
        ".md": markdown,
        ".html": html,
        ".txt": lambda rows: f"{conclude(rows)}\n",
    }
    for file in out:
        if file.suffix not in forms:
            raise ValueError(f"{file}: must end in {', '.join(forms)}")
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for case, name, errors in split("--input", "CASE,NAME,FILE", input):
        frames.setdefault((case, name), []).append(read_errors(Path(errors)))
    rows = table(frames)
    for file in out:
        write_text(file, forms[file.suffix](rows))
    print(markdown(rows))


@app.command()
def curves(
    path: Annotated[Path, typer.Argument(parser=folder, metavar="STORE", help="store of load paths")],
    table: Annotated[
        Path | None, typer.Option(help="CSV file to write, with a row for each microstructure and step")
    ] = None,
) -> None:
    """Make the table of the stress–strain curves of a store of load paths, and print a summary of it."""
    from lspipe.curves import summarize_curves, tabulate_curves
    from lspipe.load_path import explain_unreached

    rows = tabulate_curves(path)
    if table:
        write_text(table, rows.to_csv(index=False))
    if not rows.loc[rows["sample"].notna(), "converged"].any():
        warnings.warn(explain_unreached(path, "any step"), stacklevel=2)
    print(summarize_curves(rows))


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

    from lspipe.read_config import parse_config
    from lspipe.summary import summary

    names: Any = {"dtype": {"case": str, "predictor": str}, "keep_default_na": False, "na_values": [""]}
    models, figures = (
        {name: Path(file) for name, file in split(option, form, files or [])}
        for option, form, files in (("--model", "NAME,FILE", model), ("--figure", "CAPTION,FILE", figure))
    )
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
    words: Annotated[
        list[str],
        typer.Argument(metavar="FIGURE FILE...", help="figure, and files to write; the suffix sets the format"),
    ],
    input: Annotated[
        list[str],
        typer.Option(metavar="NAME,FILE", help="name and output of a predictor; the order is kept"),
    ],
) -> None:
    """Draw figures from the output of `train`, `evaluate`, `homogenize` or `curves`.

    FIGURE FILE... may be given again for further figures. Each then reads the inputs of its kind.
    """
    from lspipe.figures import check_figure, draw, select_inputs
    from lspipe.report_figures import FIGURES

    figures: list[tuple[str, list[Path]]] = []
    for word in words:
        if not figures or word in FIGURES:
            figures.append((word, []))
        else:
            figures[-1][1].append(Path(word))
    for name, files in figures:
        check_figure(name, files)
        if not files:
            raise ValueError(f"figure {name!r}: needs a file to write, such as {name}.png")
    inputs = [(label, file) for label, file in split("--input", "NAME,FILE", input)]
    read = [select_inputs(name, inputs) if len(figures) > 1 else inputs for name, _ in figures]
    if unread := [pair for pair in inputs if not any(pair in pairs for pairs in read)]:
        raise ValueError(f"--input {','.join(unread[0])}: none of the figures is drawn from it")
    for (name, files), pairs in zip(figures, read, strict=True):
        draw(name, files, dict(pairs))
