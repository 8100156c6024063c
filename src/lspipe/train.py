"""Training of one network: the paper's loss, a cosine decay of the learning rate, the best epoch kept."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lspipe.cell.arguments import check_device
from lspipe.checkpoint import every, resume, save
from lspipe.interrupt import Unfinished
from lspipe.loader import Set, copy_to, mixed, move_to
from lspipe.machine import device_name, has_bf16, peak
from lspipe.models import processes
from lspipe.models.architectures import build, source_file
from lspipe.models.conformal import conformal_quantile
from lspipe.models.domain import check_learnable, load_scale
from lspipe.models.errors import mase
from lspipe.models.files import save_model, writing
from lspipe.models.network import Network
from lspipe.models.start import start_from
from lspipe.optimizer import OPTIMIZERS, cosine
from lspipe.progress import progress
from lspipe.versions import MODEL_VERSION

# The rows of metrics.csv. Only the last row of an epoch has the columns of the validation and the times.
METRICS = ("epoch", "step", "train_loss", "valid_loss", "valid_mase", "learning_rate", "seconds", "seconds_of_steps")
PRECISIONS = ("float32", "bf16", "tf32")
ROW_STEPS = 32  # The least number of steps that a row of metrics.csv describes. The progress shows their mean loss.
CHECKPOINT_INTERVAL = 60.0  # seconds

T = TypeVar("T")


@dataclass
class State:
    """The progress of a training. A checkpoint holds it beside the states of the network and the optimizer."""

    task: str  # see ``fingerprint``
    epochs: int  # number of planned epochs
    extended: list[tuple[int, int]] = field(default_factory=list)  # steps done and epochs planned before an extension
    history: list[dict[str, float]] = field(default_factory=list)  # the rows of metrics.csv
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the epoch with the least MASE
    best_errors: list[float] = field(default_factory=list)  # MASE of each validation microstructure after this epoch
    # The epoch in progress:
    losses: list[float] = field(default_factory=list)  # losses of its steps
    scores: list[tuple[float, list[float]]] = field(
        default_factory=list
    )  # sum of losses, MASE of each validation batch
    seconds_of_steps: float = 0.0
    seconds_of_validation: float = 0.0
    memory: float = 0.0  # peak memory of a GPU in GB

    @property
    def finished(self) -> list[dict[str, float]]:
        """The rows of metrics.csv at the end of each epoch."""
        return [row for row in self.history if "valid_mase" in row]


def train(
    out: Path,
    train_sets: Sequence[Set],
    valid_sets: Sequence[Set],
    *,
    architecture: str,
    seed: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    device: str,
    optimizer: str = "adam",
    precision: str = "float32",
    start: str | Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train a network and write model.safetensors, model.json and metrics.csv to the folder ``out``.

    The same seed gives the same weights on the same CPU and number of threads. After a kill, the same call continues
    from the last checkpoint, which is at most a minute and a step old, as if nothing had happened. A finished training
    continues if more ``epochs`` are asked for; with as many, it begins anew. Several processes share each batch; see
    ``processes``.

    Args:
        out: The folder of the model. One process at a time can train into it.
        train_sets: The sets to learn. Each set has one problem, as has each batch. See ``check_learnable`` for the
            problems that a network can learn together.
        valid_sets: The sets that choose the best epoch.
        architecture: One of ARCHITECTURES, or ``module:Class``.
        seed: It decides the first weights and the order of the samples.
        epochs: The number of passes through the training sets, over which the learning rate decays.
        batch: The number of microstructures in a step.
        learning_rate: The learning rate of the first step.
        device: ``cpu`` or a CUDA device.
        optimizer: One of OPTIMIZERS.
        precision: One of PRECISIONS, for the convolutions in training. Weights, iterates and loss are float32. A device
            without instructions for bf16 takes float32, with a warning.
        start: The folder of a model, or the name of one of the package, whose weights training starts from.
        stop: Called after each step and each batch of the validation; True stops the training.

    Raises:
        ValueError: An argument is wrong, a checkpoint is damaged, or another process trains into the folder.
        FloatingPointError: Training diverged.
        Unfinished: ``stop`` returned True. A checkpoint was written.
    """
    check_settings(epochs, batch, seed, learning_rate, optimizer, precision, device)
    cuda = device.startswith("cuda")
    if precision == "bf16" and not has_bf16(device):
        warnings.warn(f"precision = 'bf16': {device} has no instructions for it; float32 is used", stacklevel=2)
        precision = "float32"

    # Network and optimizer
    if cuda:
        torch.backends.cudnn.deterministic = True
        # cuDNN takes the algorithm that is fastest here, unless the caller wants the same bits in each run.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.manual_seed(seed)
    (samples, domain), domains = train_sets[0], [domain for _, domain in train_sets]
    check_learnable(architecture, samples.channels, domains, any(s.has_grains for s, _ in train_sets))
    network = build(architecture, len(domain.materials), samples.channels, domain.physics)
    if isinstance(network, Network):
        for some, _ in train_sets:
            network.check(next(some.batches(1)).phase, len({d.strain for d in domains}))
    recipe: dict[str, Any] = dict(architecture=architecture, seed=seed, batch=batch, learning_rate=learning_rate)
    recipe |= dict(optimizer=optimizer, precision=precision)
    if start:
        recipe["start_sha256"] = start_from(start, network, architecture, domain)
    processes.check_network(network)
    network.load_state_dict(processes.from_first(network.state_dict()))
    network.to(torch.device(device))
    stepper = OPTIMIZERS[optimizer](network.parameters(), lr=learning_rate)
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    steps, validation_batches = (sum(-(-s.total // batch) for s, _ in sets) for sets in (train_sets, valid_sets))

    is_first = processes.rank() == 0
    with writing(out) if is_first else nullcontext():
        # Go on where an earlier call stopped
        checkpoint, finished = out / "checkpoint.pt", out / "finished.pt"
        state = State(fingerprint(recipe, train_sets, valid_sets), epochs)

        def done() -> int:
            return len(state.finished) * steps + len(state.losses) + len(unread)

        unread: list[Tensor] = []  # loss and gradient norm of the last steps, which a GPU may still compute
        saved = processes.from_first(resume(checkpoint, finished, state.task, epochs) if is_first else None)
        if saved:
            network.load_state_dict(saved.pop("network"))
            stepper.load_state_dict(saved.pop("optimizer"))
            state = State(**saved)
            if state.epochs != epochs:
                state.extended.append((done(), state.epochs))
                state.epochs = epochs
        train_sets, valid_sets = ([(move_to(device, s), d) for s, d in sets] for sets in (train_sets, valid_sets))
        due = every(CHECKPOINT_INTERVAL)

        def keep() -> None:
            read()
            state.memory = max(state.memory, peak(device))
            if is_first:
                save(checkpoint, vars(state) | {"network": network.state_dict(), "optimizer": stepper.state_dict()})

        def read() -> None:
            """Wait for the losses of the last steps. If one is not finite on a GPU, the last checkpoint is kept."""
            values = torch.stack(unread).tolist() if unread else []
            unread.clear()
            for loss, norm in values:
                check_finite({"loss": loss, "gradient norm": norm}, is_intact=steps_at_once(device) == 1)
                state.losses.append(loss)

        def pause() -> None:
            """Between two batches, write a checkpoint once a minute and before training is stopped."""
            if (stopped := processes.any_process(stop())) or next(due):
                keep()
            if stopped and not is_first:
                raise Unfinished  # Process 0 states the reason.
            if stopped:
                validated = f", and {len(state.scores)} of {validation_batches} batches of the validation"
                raise Unfinished(
                    f"{out}: not finished, {done()} of {epochs * steps} steps are done and saved"
                    f"{validated if state.scores else ''}; the same command continues"
                )

        def check_finite(values: dict[str, float], is_intact: bool = True) -> None:
            if not all(map(math.isfinite, values.values())):
                if is_intact:
                    keep()
                named = ", ".join(f"{name} {value}" for name, value in values.items())
                raise FloatingPointError(f"{out}: {named} in epoch {len(state.finished) + 1}; lower learning_rate")

        def describe_progress() -> dict[str, str]:
            """Return the mean loss of the last steps of this epoch, and the MASE of the last epoch."""
            last = state.history[-1] if state.history else {}  # the last row of an epoch, which has its MASE
            loss = float(np.mean(state.losses[-ROW_STEPS:])) if state.losses else last.get("train_loss")
            values = {"loss": loss, "mase": last.get("valid_mase")}
            return {name: f"{value:.3g}" for name, value in values.items() if value is not None}

        label = f"train {architecture} seed {seed}"
        with progress(label, epochs * steps, "step", initial=done(), is_shown=is_first) as bar:
            for epoch in range(len(state.finished), epochs):
                # Learn each batch once, in an order of this epoch
                network.train()
                batches = skip(mixed(train_sets, batch, [seed, epoch]), len(state.losses))
                began = time.perf_counter() - state.seconds_of_steps
                for chosen, domain in batches:
                    mine = chosen.each(itemgetter(processes.part(chosen.total)))
                    phase, problem = mine.join(domain)
                    with autocast:
                        loss, _ = network.learn(copy_to(device, phase), copy_to(device, mine.y), problem)
                    stepper.zero_grad()
                    loss.backward()
                    processes.add_gradients(network)
                    norm = clip_grad_norm_(network.parameters(), 2.0 * network.passes)
                    for group in stepper.param_groups:
                        group["lr"] = cosine(learning_rate, done() / (epochs * steps))
                    unread.append(torch.stack([loss.detach().double(), norm.double()]))
                    if len(unread) == steps_at_once(device):
                        read()
                    stepper.step()
                    state.seconds_of_steps = time.perf_counter() - began
                    pause()  # before the bar is drawn: after a signal there may be nothing to draw it on
                    bar.set_postfix(describe_progress(), refresh=False)
                    bar.update()
                read()
                state.seconds_of_steps = time.perf_counter() - began

                # Validate
                network.eval()
                batches = skip(mixed(valid_sets, batch), len(state.scores))
                began = time.perf_counter() - state.seconds_of_validation
                for chosen, domain in batches:
                    mine = chosen.each(itemgetter(processes.part(chosen.total)))
                    phase, problem = mine.join(domain)
                    y = copy_to(device, mine.y)
                    with torch.no_grad():
                        loss, iterate = network.learn(copy_to(device, phase), y, problem)
                    errors = processes.join_lists(mase(iterate, y, domain, load_scale(domain)).tolist())
                    state.scores.append((loss.item() * chosen.total, errors[: chosen.total]))
                    state.seconds_of_validation = time.perf_counter() - began
                    pause()
                errors = [error for _, batch_errors in state.scores for error in batch_errors]
                valid_loss, error = sum(loss for loss, _ in state.scores) / len(errors), float(np.mean(errors))
                check_finite({"validation loss": valid_loss, "MASE": error})

                # Keep the best weights, and begin a new epoch
                *within, last = summarize_losses(state.losses, epoch, learning_rate, epochs)
                times = {"seconds": state.seconds_of_steps + state.seconds_of_validation}
                times["seconds_of_steps"] = state.seconds_of_steps
                state.history += [*within, last | {"valid_loss": valid_loss, "valid_mase": error} | times]
                if error == min(row["valid_mase"] for row in state.finished):
                    state.best = {name: w.detach().cpu().clone() for name, w in network.state_dict().items()}
                    state.best_errors = errors
                state.losses, state.scores, state.seconds_of_steps, state.seconds_of_validation = [], [], 0.0, 0.0
                bar.set_postfix(describe_progress(), refresh=False)

        # Write the model
        keep()  # more epochs go on from here
        if not is_first:
            return
        network.load_state_dict(state.best)
        metrics = pd.DataFrame(state.history, columns=METRICS)
        validated = [domain for samples, domain in valid_sets for _ in range(samples.total)]
        record: dict[str, Any] = {
            "training": recipe
            | {"epochs": epochs, "extended": state.extended}
            | ({"start": str(start)} if start else {}),
            "valid_mase": metrics["valid_mase"].min(),
            "mase_90": [
                conformal_quantile([e for d, e in zip(validated, state.best_errors, strict=True) if d == domain])
                for domain in domains
            ],
            "valid_grids": [list(grid) for grid in {tuple(samples.grid) for samples, _ in valid_sets}],
            "seconds": metrics["seconds"].sum(),
            "samples_per_second": epochs * sum(s.total for s, _ in train_sets) / metrics["seconds_of_steps"].sum(),
            "device": device_name(device) if processes.count() == 1 else f"{processes.count()} × {device_name(device)}",
            "torch": torch.__version__,
        }
        if state.memory:
            record["gpu_gb"] = state.memory
        save_model(out, architecture, network, domains, record, metrics=metrics.to_csv(index=False))
        checkpoint.replace(finished)


def check_settings(
    epochs: int, batch: int, seed: int, learning_rate: float, optimizer: str, precision: str, device: str
) -> None:
    """Raise ValueError for a setting of a training that is not allowed."""
    for name, value, least in (("epochs", epochs, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} = {value}: must be at least {least}")
    if not 0 < learning_rate <= 1:
        raise ValueError(f"learning_rate = {learning_rate}: must be a number > 0, at most 1")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer = {optimizer!r}: must be one of {', '.join(OPTIMIZERS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}: must be one of {', '.join(PRECISIONS)}")
    check_device(device)
    if precision == "tf32" and not device.startswith("cuda"):
        raise ValueError(f"precision = 'tf32': needs a CUDA device, not {device}; use float32 or bf16")


def skip(batches: Iterator[T], count: int) -> Iterator[T]:
    """Skip some batches now, not when the next one is taken: the time of a step does not include it."""
    next(islice(batches, count, count), None)
    return batches


def summarize_losses(losses: Sequence[float], epoch: int, learning_rate: float, epochs: int) -> list[dict[str, float]]:
    """Return the rows of metrics.csv for the steps of an epoch: at most ten, each of ROW_STEPS or more.

    Args:
        losses: The loss of each step of the epoch.
        epoch: The number of epochs before.
        learning_rate: The learning rate of the first step of the training.
        epochs: The number of epochs of the training.
    """
    steps, rows = len(losses), []
    for first, end in pairwise(np.linspace(0, steps, min(max(steps // ROW_STEPS, 1), 10) + 1, dtype=int).tolist()):
        done = epoch + end / steps
        row = {"epoch": done, "step": epoch * steps + end, "train_loss": float(np.mean(losses[first:end]))}
        rows.append(row | {"learning_rate": cosine(learning_rate, done / epochs)})
    return rows


def steps_at_once(device: str) -> int:
    """Return the number of steps after which losses are read. Reading makes the CPU wait for a GPU."""
    return 20 if device.startswith("cuda") else 1


def fingerprint(recipe: dict[str, Any], *splits: Sequence[Set]) -> str:
    """Return a name for a training task, so that a checkpoint of another task is not continued.

    It depends on the settings, the samples, the file of a user's network, and the form of a checkpoint.
    """
    sets = [[(samples.channels, samples.digest(), domain.to_json()) for samples, domain in sets] for sets in splits]
    source = source_file(recipe["architecture"])
    code = hashlib.sha256(source.read_bytes()).hexdigest() if source else ""
    task = [MODEL_VERSION, METRICS, [f.name for f in fields(State)], recipe, code, sets]
    return hashlib.sha256(json.dumps(task).encode()).hexdigest()
