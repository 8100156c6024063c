"""Training of one network: the paper's loss, Adam, a cosine schedule, the best epoch kept."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lspipe import MODEL_VERSION
from lspipe.cell.arguments import check_device
from lspipe.files import write_bytes
from lspipe.interrupt import Unfinished
from lspipe.loader import Samples, Stream
from lspipe.machine import device_name, peak
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.errors import mase
from lspipe.models.files import save_model, writing
from lspipe.models.network import Network
from lspipe.models.rln_cg import RLNCG
from lspipe.models.user_network import UserNetwork
from lspipe.progress import progress

METRICS = ("epoch", "step", "train_loss", "valid_loss", "valid_mase", "learning_rate", "seconds", "seconds_of_steps")
PRECISIONS = ("float32", "bf16", "tf32")
# Fields of the training progress that a checkpoint stores.
PROGRESS = ("epochs", "extended", "history", "best", "losses", "scores", "stepping", "seconds", "memory")
EACH = 60.0  # seconds from one checkpoint to the next
LAST_RATE = 1e-8  # at which the cosine decay of the learning rate ends
Set = tuple[Samples | Stream, Domain]


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
    precision: str = "float32",
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train a network and write model.safetensors, model.json and metrics.csv to the folder ``out``.

    The same seed gives the same weights on the same device and number of threads. After a kill, the same call goes on
    from the last checkpoint, which is at most a minute and a step old, as if nothing had happened. A training that has
    finished goes on if more ``epochs`` are asked for; with as many, it begins anew.

    Args:
        out: The folder of the model. One process at a time can train into it.
        train_sets: The sets to learn. Each set has one domain, as has each batch.
        valid_sets: The sets that choose the best epoch.
        architecture: One of ARCHITECTURES. Networks that do not see the moduli learn one domain.
        seed: It decides the first weights and the order of the samples.
        epochs: Passes through the training sets, over which the learning rate decays.
        batch: Microstructures of a step.
        learning_rate: The learning rate of the first step.
        device: ``cpu`` or a CUDA device.
        precision: One of PRECISIONS, for the convolutions in training. Weights, iterates and loss are float32.
        stop: It is asked after each step and after each batch of validation whether to stop.

    Raises:
        ValueError: An argument makes no sense, a checkpoint is damaged, or another process trains into the folder.
        FloatingPointError: Training diverged.
        Unfinished: ``stop`` returned True. A checkpoint was written.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} = {value}: must be at least {least}")
    if not 0 < learning_rate <= 1:
        raise ValueError(f"learning_rate = {learning_rate}: must be a number > 0, at most 1")
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}: must be one of {', '.join(PRECISIONS)}")
    cuda = device.startswith("cuda")
    check_device(device)
    if precision == "tf32" and not cuda:
        raise ValueError(f"precision = 'tf32': needs a CUDA device, not {device}; use float32 or bf16")
    if cuda:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    domains = [domain for _, domain in train_sets]
    (first, domain), steps = train_sets[0], sum(-(-samples.total // batch) for samples, _ in train_sets)
    torch.manual_seed(seed)
    network = build(architecture, len(domain.materials), domain.relative(first.channels), domain.physics)
    if isinstance(network, Network) and len(set(domains)) > 1:
        raise ValueError(
            f"architecture = {architecture!r}: must be rln-cg to learn {len(domains)} sets of fields at once"
        )
    if isinstance(network, UserNetwork):
        network.check(next(first.batches(1)).phase)
    network.to(torch.device(device)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    stateful: dict[str, Any] = {"network": network, "optimizer": optimizer}
    recipe = dict(architecture=architecture, seed=seed, batch=batch, learning_rate=learning_rate, precision=precision)
    task = fingerprint(recipe, train_sets, valid_sets)
    checks = sum(-(-samples.total // batch) for samples, _ in valid_sets)  # batches of a validation

    with writing(out):
        checkpoint, finished = out / "checkpoint.pt", out / "finished.pt"
        extended: list[tuple[int, int]] = []  # steps that were done, and the epochs that were planned until then
        history: list[dict[str, float]] = []
        best: dict[str, Tensor] = {}
        losses: list[float] = []  # of the epoch in progress, as are the seconds: of its steps, and with validation
        scores: list[tuple[float, list[float]]] = []  # of its validation, see ``validate``
        stepping = seconds = memory = 0.0

        def done() -> int:
            """Returns the number of steps that are done."""
            return len(history) * steps + len(losses)

        if saved := resume(checkpoint, finished, task, epochs):
            planned, extended, history, best, losses, scores, stepping, seconds, memory = (saved[k] for k in PROGRESS)
            for name, part in stateful.items():
                part.load_state_dict(saved[name])
            if planned != epochs:
                extended.append((done(), planned))
        written = time.perf_counter()
        began = written - seconds

        def keep() -> None:
            """Writes a checkpoint."""
            nonlocal written
            written = time.perf_counter()
            times = (stepping, written - began, max(memory, peak(device)))
            progress = (epochs, extended, history, best, losses, scores, *times)
            state = {name: part.state_dict() for name, part in stateful.items()}
            save(checkpoint, {"task": task, **dict(zip(PROGRESS, progress, strict=True)), **state})

        def pause() -> None:
            """Between two batches: a checkpoint once a minute, and before training is stopped."""
            if (stopped := stop()) or time.perf_counter() > written + EACH:
                keep()
            if stopped:
                validated = f", and {len(scores)} of {checks} batches of the validation" if scores else ""
                count = f"{done()} of {epochs * steps} steps are done and saved{validated}"
                raise Unfinished(f"{out}: not finished, {count}; the same call goes on")

        def diverged(what: str) -> FloatingPointError:
            keep()
            return FloatingPointError(f"{out}: {what} in epoch {len(history) + 1}: lower learning_rate")

        bf16 = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
        label = f"train {architecture} seed {seed}"
        with progress(label, epochs * steps, "step", initial=done()) as bar:
            for epoch in range(len(history), epochs):
                since = time.perf_counter() - stepping
                for chosen, domain in islice(mixed(train_sets, batch, [seed, epoch]), len(losses), None):
                    phase, y = chosen.to(device)
                    with bf16:
                        loss, _ = network.learn(phase, y, domain)
                    optimizer.zero_grad()
                    loss.backward()
                    norm = clip_grad_norm_(network.parameters(), 2.0 * network.passes)
                    if not torch.isfinite(loss + norm):
                        raise diverged(f"loss {loss.item()}, gradient norm {norm.item()}")
                    optimizer.param_groups[0]["lr"] = cosine(learning_rate, done() / (epochs * steps))
                    optimizer.step()
                    losses.append(loss.item())
                    stepping = time.perf_counter() - since
                    pause()  # before the bar writes: what it writes to may have got the signal too, and be gone
                    bar.update()
                valid_loss, error = validate(network, valid_sets, batch, device, scores, pause)
                if not math.isfinite(valid_loss + error):
                    raise diverged(f"validation loss {valid_loss}, MASE {error}")
                seconds = time.perf_counter() - began
                row = (
                    epoch + 1,
                    done(),
                    float(np.mean(losses)),
                    valid_loss,
                    error,
                    cosine(learning_rate, done() / (epochs * steps)),
                    seconds,
                    stepping,
                )
                history.append(dict(zip(METRICS, row, strict=True)))
                if error == min(h["valid_mase"] for h in history):
                    best = {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}
                losses, scores, stepping, began = [], [], 0.0, time.perf_counter()
                bar.set_postfix(mase=f"{error:.2f}", refresh=False)

        keep()  # more epochs go on from here
        network.load_state_dict(best)
        learned = epochs * sum(samples.total for samples, _ in train_sets)
        spent: dict[str, Any] = {
            "seconds": sum(h["seconds"] for h in history),
            "samples_per_second": learned / sum(h["seconds_of_steps"] for h in history),
            "device": device_name(device),
            "torch": torch.__version__,
        }
        if memory := max(memory, peak(device)):
            spent["gpu_gb"] = memory
        settings = recipe | {"epochs": epochs, "extended": extended}
        record = {"training": settings, "valid_mase": min(h["valid_mase"] for h in history), **spent}
        save_model(out, architecture, network, domains, record, metrics=table(history))
        checkpoint.replace(finished)


def cosine(learning_rate: float, done: float) -> float:
    """Return the learning rate after a part of the steps, from 0 to 1."""
    return LAST_RATE + (learning_rate - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def validate(
    network: Network | RLNCG,
    sets: Sequence[Set],
    batch: int,
    device: str,
    scores: list[tuple[float, list[float]]],
    pause: Callable[[], None],
) -> tuple[float, float]:
    """Return the mean loss and the mean MASE over all samples. ``scores`` has the sum of the losses and the errors of
    each batch that is done; those of the other batches are added."""
    for chosen, domain in islice(mixed(sets, batch), len(scores), None):
        phase, y = chosen.to(device)
        loss, iterate = network.learn(phase, y, domain)
        scores.append((loss.item() * len(y), mase(iterate, y, domain.physics).tolist()))
        pause()
    errors = [error for _, batch_errors in scores for error in batch_errors]
    return sum(loss for loss, _ in scores) / len(errors), float(np.mean(errors))


def mixed(sets: Sequence[Set], size: int, order: Sequence[int] | None = None) -> Iterator[tuple[Samples, Domain]]:
    """The batches of all sets, shuffled by the seed ``order``; without it, set after set."""
    batches = [samples.batches(size, order) for samples, _ in sets]
    turns = np.repeat(np.arange(len(sets)), [-(-samples.total // size) for samples, _ in sets])
    if order is not None:
        turns = np.random.default_rng(order).permutation(turns)
    for turn in turns.tolist():
        yield next(batches[turn]), sets[turn][1]


def fingerprint(recipe: dict[str, Any], *splits: Sequence[Set]) -> str:
    """Names a training task, so that a checkpoint of another one is not continued."""
    stated = [[(samples.channels, samples.digest(), domain.to_json()) for samples, domain in sets] for sets in splits]
    task = [MODEL_VERSION, METRICS, PROGRESS, recipe, stated]
    return hashlib.sha256(json.dumps(task).encode()).hexdigest()


def resume(checkpoint: Path, finished: Path, task: str, epochs: int) -> dict[str, Any] | None:
    """Return the state that training goes on from, if there is one. A checkpoint of another training, or of more epochs
    than asked for, is put aside."""
    if checkpoint.exists():
        saved = read(checkpoint)
        if saved["task"] == task and saved["epochs"] <= epochs:
            return saved
        aside = checkpoint.replace(checkpoint.with_name(f"checkpoint-{saved['task'][:8]}.pt"))
        warnings.warn(f"{checkpoint}: was of another training, and is put aside as {aside.name}", stacklevel=3)
    elif finished.exists():
        saved = read(finished)
        if saved["task"] == task and len(saved["history"]) < epochs:
            return saved
    return None


def read(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint. ValueError if it is damaged."""
    data = checkpoint.read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError(f"{checkpoint}: is damaged, or of an earlier version; remove it, and training begins anew")
    return torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint whole or not at all, with the SHA-256 of its bytes at its end. torch checks no sum of them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    write_bytes(path, buffer.getbuffer())


def table(history: Sequence[dict[str, float]]) -> str:
    """Return the text of metrics.csv."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, METRICS)
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
