"""Training of one network: the paper's loss, Adam, a cosine schedule, the best epoch kept."""

from __future__ import annotations

import csv
import hashlib
import io
import json
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
from lspipe.models.files import save_model
from lspipe.models.rln import RLN
from lspipe.models.rln_cg import RLNCG
from lspipe.progress import progress

METRICS = ("epoch", "step", "train_loss", "valid_loss", "valid_mase", "learning_rate", "seconds", "seconds_of_steps")
PRECISIONS = ("float32", "bf16", "tf32")
PROGRESS = ("history", "best", "losses", "stepping", "seconds", "memory")  # what a checkpoint has of it
EACH = 60.0  # seconds from one checkpoint to the next
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
    """Trains ``architecture`` and writes model.safetensors, model.json and metrics.csv to ``out``.

    Each set is of one domain, as is each batch. Networks that do not see the moduli know one: ValueError for more.
    The same seed gives the same weights on the same device and number of threads. Killed, the same call goes on from
    the last checkpoint, which is at most a minute and a step old, as if nothing had happened; where ``stop`` says so
    between two steps, one is written and Unfinished raised. ``precision``: of the convolutions in training; weights,
    iterates and loss are float32.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} = {value}: must be at least {least}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate = {learning_rate}: must be a number > 0")
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
    if isinstance(network, RLN) and len(set(domains)) > 1:
        raise ValueError(
            f"architecture = {architecture!r}: must be rln-cg to learn {len(domains)} sets of fields at once"
        )
    network.to(torch.device(device)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=1e-8)
    stateful: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    recipe = dict(architecture=architecture, seed=seed, epochs=epochs, batch=batch, learning_rate=learning_rate)
    recipe |= dict(precision=precision)

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    task = fingerprint(recipe, train_sets, valid_sets)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    losses: list[float] = []  # of the epoch in progress, as are the seconds: of its steps, and with validation
    stepping = seconds = memory = 0.0
    if checkpoint.exists() and (saved := read(checkpoint))["task"] != task:
        aside = checkpoint.replace(out / f"checkpoint-{saved['task'][:8]}.pt")
        warnings.warn(f"{checkpoint}: was of another training, and is put aside as {aside.name}", stacklevel=2)
    elif checkpoint.exists():
        history, best, losses, stepping, seconds, memory = (saved[name] for name in PROGRESS)
        for name, part in stateful.items():
            part.load_state_dict(saved[name])
    written = time.perf_counter()
    began = written - seconds

    def keep() -> None:
        """Writes a checkpoint."""
        nonlocal written
        written = time.perf_counter()
        done = (history, best, losses, stepping, written - began, max(memory, peak(device)))
        state = {name: part.state_dict() for name, part in stateful.items()}
        save(checkpoint, {"task": task, **dict(zip(PROGRESS, done, strict=True)), **state})

    def pause() -> None:
        """Between two steps: a checkpoint once a minute, and before training is stopped."""
        if (stopped := stop()) or time.perf_counter() > written + EACH:
            keep()
        if stopped:
            count = f"{schedule.last_epoch} of {epochs * steps} steps"
            raise Unfinished(f"{out}: not finished, {count} are done and saved; the same call goes on")

    bf16 = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    label = f"train {architecture} seed {seed}"
    with progress(label, epochs * steps, "step", initial=schedule.last_epoch) as bar:
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
                    keep()
                    said = f"{out}: loss {loss.item()}, gradient norm {norm.item()} in epoch {epoch + 1}"
                    raise FloatingPointError(f"{said}: lower learning_rate")
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                stepping = time.perf_counter() - since
                pause()  # before the bar writes: what it writes to may have got the signal too, and be gone
                bar.update()
            valid_loss, error = validate(network, valid_sets, batch, device, pause)
            seconds = time.perf_counter() - began
            done = (
                epoch + 1,
                (epoch + 1) * steps,
                float(np.mean(losses)),
                valid_loss,
                error,
                float(schedule.get_last_lr()[0]),
                seconds,
                stepping,
            )
            history.append(dict(zip(METRICS, done, strict=True)))
            if error == min(h["valid_mase"] for h in history):
                best = {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}
            losses, stepping, began = [], 0.0, time.perf_counter()
            bar.set_postfix(mase=f"{error:.2f}", refresh=False)

    network.load_state_dict(best)
    with open(out / "metrics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, METRICS)
        writer.writeheader()
        writer.writerows(history)
    learned = epochs * sum(samples.total for samples, _ in train_sets)
    spent: dict[str, Any] = {
        "seconds": sum(h["seconds"] for h in history),
        "samples_per_second": learned / sum(h["seconds_of_steps"] for h in history),
        "device": device_name(device),
        "torch": torch.__version__,
    }
    if memory := max(memory, peak(device)):
        spent["gpu_gb"] = memory
    save_model(
        out,
        architecture,
        network,
        domains,
        {"training": recipe, "valid_mase": min(h["valid_mase"] for h in history), **spent},
    )
    checkpoint.unlink(missing_ok=True)


@torch.no_grad()
def validate(
    network: RLN | RLNCG,
    sets: Sequence[Set],
    batch: int,
    device: str,
    pause: Callable[[], None],
) -> tuple[float, float]:
    """Mean loss and mean MASE over all samples."""
    losses: list[float] = []
    errors: list[float] = []
    for chosen, domain in mixed(sets, batch):
        phase, y = chosen.to(device)
        loss, iterate = network.learn(phase, y, domain)
        losses.append(loss.item() * len(y))
        errors += mase(iterate, y, domain.physics).tolist()
        pause()
    return sum(losses) / len(errors), float(np.mean(errors))


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


def read(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # there is no end to the ways in which a damaged file is wrong
        raise ValueError(f"{checkpoint}: is damaged; remove it, and training begins anew ({error!r:.80})") from None


def save(path: Path, state: dict[str, Any]) -> None:
    """Saves a checkpoint whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer())
