"""Commands that train and evaluate models."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lspipe.cli.options import Device, Fields, Microstructures, Out, Threads, app, folder, resources, split
from lspipe.interrupt import deadline, stopping

if TYPE_CHECKING:
    from lspipe.loader import Set  # torch takes seconds, and only these commands need it.
    from lspipe.models.domain import Domain


@app.command()
def train(
    out: Annotated[Path, typer.Argument(parser=folder, metavar="FOLDER")],
    train: Annotated[
        list[str],
        typer.Option(metavar="CELLS,FIELDS", help="stores to train on; repeat it for more cases or loads"),
    ],
    valid: Annotated[list[str], typer.Option(metavar="CELLS,FIELDS", help="stores that choose the best epoch")],
    architecture: Annotated[
        str, typer.Option(help="fln, rln-t, rln, rln-cg, fno, ifno, therino or module:Class, a class of your own")
    ],
    predict: Annotated[
        str,
        typer.Option(
            help="strain components to predict: first or all; networks that see the moduli always predict all"
        ),
    ] = "first",
    step: Annotated[
        list[int] | None,
        typer.Option(help="step of a load path to learn; give it once for each, by default all that are kept"),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of the initial weights and of the order of samples")] = 0,
    epochs: Annotated[
        int, typer.Option(help="passes through the training set; a larger number extends a finished training")
    ] = 8,
    batch: Annotated[int, typer.Option(help="microstructures in a step")] = 4,
    learning_rate: Annotated[
        float, typer.Option(help="learning rate of the first step; it decays to 1e-8 as a cosine")
    ] = 2e-3,
    optimizer: Annotated[str, typer.Option(help="adam, or soap, which needs fewer steps for the same error")] = "adam",
    precision: Annotated[
        str, typer.Option(help="precision of convolutions: float32, bf16 or, on CUDA, tf32; rln-cg always uses float32")
    ] = "float32",
    start: Annotated[
        str, typer.Option(help="folder of a model, or name of a shipped one, whose weights training starts from")
    ] = "",
    device: Device = "auto",
    threads: Threads = 0,
    memory: Annotated[
        float,
        typer.Option(
            min=0, help="GB for the training set; a larger set is read in each epoch; 0: a quarter of the memory"
        ),
    ] = 0,
    minutes: Annotated[
        float, typer.Option(min=0, help="time limit; training saves shortly before it and exits with 75; 0: no limit")
    ] = 0,
) -> None:
    """Train a network and write it to FOLDER.

    SIGTERM and Ctrl-C let the step in progress end, save, and exit with 75. The same command continues.
    """
    from lspipe import train as training
    from lspipe.loader import check_apart, check_labels, load_sets, quarter_of_memory
    from lspipe.models.architectures import SEE_MODULI
    from lspipe.models.processes import count_here, joined

    until = deadline(minutes)
    device = resources(device, -(-threads // count_here()))
    train_stores, valid_stores = (
        [(folder(a), folder(b)) for a, b in split(option, "CELLS,FIELDS", sets)]
        for option, sets in (("--train", train), ("--valid", valid))
    )
    check_labels(*(cells for cells, _ in [*train_stores, *valid_stores]))
    limit = (1e9 * memory or quarter_of_memory() / count_here()) / len(train_stores)
    components = "all" if architecture in SEE_MODULI else predict
    train_sets, valid_sets = (
        [loaded for pair in pairs for loaded in load_sets(*pair, limit, components, step)]
        for pairs in (train_stores, valid_stores)
    )
    for (cells, _), (unseen, _) in product(train_stores, valid_stores):
        check_apart(cells, unseen)
    valid_sets = select_trained(valid_sets, [domain for _, domain in train_sets])
    with joined(device) as device, stopping(until) as stop:
        training.train(
            out,
            train_sets,
            valid_sets,
            architecture=architecture,
            seed=seed,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            optimizer=optimizer,
            device=device,
            precision=precision,
            start=folder(start) if start else None,
            stop=stop,
        )


def select_trained(valid_sets: Sequence[Set], domains: Sequence[Domain]) -> list[Set]:
    """Return the validation sets of the problems that are trained on.

    A step of a load path that microstructures of only one of the two splits have reached causes a warning.

    Raises:
        ValueError: A set belongs to another problem.
    """
    validated = [domain for _, domain in valid_sets]
    for domain in validated:
        if domain in domains:
            continue
        if not domain.path or domain.path not in [d.path for d in domains]:
            raise ValueError(f"--valid: {domain}: must be one that is trained on, {', '.join(map(str, domains))}")
        text = f"--valid: left out step {domain.step}, which no training microstructure has reached"
        warnings.warn(text, stacklevel=2)
    for domain in domains:
        if domain.path and domain not in validated:
            text = f"--valid: no microstructure has reached step {domain.step}; the network will state no mase_90 there"
            warnings.warn(text, stacklevel=2)
    return [(samples, domain) for samples, domain in valid_sets if domain in domains]


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
    step: Annotated[int | None, typer.Option(help="step of a load path, one that the store has kept")] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="where no microstructure has reached the step, or the network has not learned it, write empty files",
        ),
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Compare the strain that a model predicts after each pass with the ground truth of a store."""
    from lspipe.evaluate import evaluate
    from lspipe.models.files import load_model
    from lspipe.products import write_errors, write_examples

    frame, fields_of_some = evaluate(
        load_model(str(folder(model)), resources(device, threads)), microstructures, fields, step, allow_empty
    )
    write_examples(examples, fields_of_some)
    write_errors(errors, frame)
