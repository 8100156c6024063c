"""Training of one network: the paper's loss, Adam, a cosine schedule, the best epoch kept."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lspipe import MODEL_VERSION
from lspipe.loader import Samples, Stream
from lspipe.models.files import save_model
from lspipe.models.localization import Domain
from lspipe.models.rln import RLN, build
from lspipe.progress import progress

METRICS = ("epoch", "step", "train_loss", "valid_loss", "valid_mase", "learning_rate", "seconds")


def loss_of(iterates: list[Tensor], y: Tensor) -> Tensor:
    """Mean over the passes of 100·√⟨(ŷ − y)²⟩/⟨y⟩, ⟨·⟩ over the batch (Kelly & Kalidindi 2021)."""
    return torch.stack([100 * (i - y).square().mean().sqrt() / y.mean() for i in iterates]).mean()


def train(
    out: Path,
    train_set: Samples | Stream,
    valid_set: Samples | Stream,
    domain: Domain,
    *,
    architecture: str,
    seed: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    device: str,
) -> None:
    """Trains ``architecture`` and writes model.safetensors, model.json and metrics.csv to ``out``.

    The same seed gives the same weights on the same device and number of threads. Interrupted, the
    same call goes on from its last finished epoch.
    """
    for name, value in (("epochs", epochs), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device = {device}: this PyTorch finds no CUDA device")
    torch.manual_seed(seed)
    network = build(architecture, len(domain.materials))
    network.to(torch.device(device)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    steps = -(-train_set.total // batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=1e-8)
    stateful: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    recipe = dict(architecture=architecture, seed=seed, epochs=epochs, batch=batch, learning_rate=learning_rate)

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    task = fingerprint(recipe, domain, train_set, valid_set)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if checkpoint.exists() and (saved := torch.load(checkpoint, weights_only=True))["task"] == task:
        history, best = saved["history"], saved["best"]
        for name, part in stateful.items():
            part.load_state_dict(saved[name])

    train_set, valid_set = train_set.to(device), valid_set.to(device)
    with progress(f"train {architecture} seed {seed}", epochs * steps, "step", initial=len(history) * steps) as bar:
        for epoch in range(len(history), epochs):
            began = time.perf_counter()
            losses = []
            for chosen in train_set.batches(batch, order=[seed, epoch]):
                phase, y = chosen.to(device)
                loss = loss_of(network(phase), y)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"loss {loss.item()} in epoch {epoch}: lower learning_rate")
                optimizer.zero_grad()
                loss.backward()
                clip_grad_norm_(network.parameters(), 2.0 * network.passes)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update()
            valid_loss, mase = validate(network, valid_set, batch, device)
            seconds = time.perf_counter() - began
            done = (
                epoch + 1,
                (epoch + 1) * steps,
                float(np.mean(losses)),
                valid_loss,
                mase,
                float(schedule.get_last_lr()[0]),
                seconds,
            )
            history.append(dict(zip(METRICS, done, strict=True)))
            if mase == min(h["valid_mase"] for h in history):
                best = {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}
            states = {name: part.state_dict() for name, part in stateful.items()}
            replace(checkpoint, {"task": task, "history": history, "best": best, **states})
            bar.set_postfix(mase=f"{mase:.2f}", refresh=False)

    network.load_state_dict(best)
    with open(out / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, METRICS)
        writer.writeheader()
        writer.writerows(history)
    spent = {"seconds": sum(h["seconds"] for h in history), "device": device, "torch": torch.__version__}
    save_model(
        out,
        architecture,
        network,
        domain,
        {"training": recipe, "valid_mase": min(h["valid_mase"] for h in history), **spent},
    )
    checkpoint.unlink()


@torch.inference_mode()
def validate(network: RLN, samples: Samples | Stream, batch: int, device: str) -> tuple[float, float]:
    """Mean loss and mean MASE over a set."""
    losses, mase = [], []
    for chosen in samples.batches(batch):
        phase, y = chosen.to(device)
        iterates = network(phase)
        losses.append(loss_of(iterates, y).item() * len(y))
        mase += (100 * (iterates[-1] - y).abs().mean(dim=(1, 2, 3))).tolist()
    return sum(losses) / len(mase), float(np.mean(mase))


def fingerprint(recipe: dict[str, Any], domain: Domain, *sets: Samples | Stream) -> str:
    """Names a training task, so that a checkpoint of another one is not continued."""
    task = [MODEL_VERSION, recipe, domain.to_json(), *(samples.digest() for samples in sets)]
    return hashlib.sha256(json.dumps(task).encode()).hexdigest()


def replace(path: Path, state: dict[str, Any]) -> None:
    """Saves a checkpoint whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
