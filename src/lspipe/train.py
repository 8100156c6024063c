"""Training of one network: the paper's loss, Adam, a cosine schedule, the best epoch kept."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lspipe.loader import Samples
from lspipe.models.files import save_model
from lspipe.models.localization import Domain
from lspipe.models.rln import ARCHITECTURES, RLN
from lspipe.progress import progress

METRICS = ("epoch", "step", "train_loss", "valid_loss", "valid_mase", "learning_rate", "seconds")


def loss_of(iterates: list[Tensor], y: Tensor) -> Tensor:
    """Mean over the passes of 100·√⟨(ŷ − y)²⟩/⟨y⟩, ⟨·⟩ over the batch (Kelly & Kalidindi 2021)."""
    return torch.stack([100 * (i - y).square().mean().sqrt() / y.mean() for i in iterates]).mean()


def train(
    out: Path,
    train_set: Samples,
    valid_set: Samples,
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
    torch.manual_seed(seed)
    network = RLN(phases=len(domain.materials), **ARCHITECTURES[architecture])
    network = network.to(torch.device(device), memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    steps = -(-len(train_set.y) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=1e-8)
    recipe = {
        "architecture": architecture,
        "seed": seed,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
    }

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    task = _fingerprint(recipe, domain, train_set, valid_set)
    history: list[dict[str, float]] = []
    best = {"mase": np.inf, "weights": network.state_dict()}
    if checkpoint.exists() and (saved := torch.load(checkpoint, weights_only=True))["task"] == task:
        history, best = saved["history"], saved["best"]
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])

    phase, y = (t.to(device) for t in train_set)
    with progress(f"train {architecture} seed {seed}", epochs * steps, "step") as bar:
        bar.update(len(history) * steps)
        for epoch in range(len(history), epochs):
            began = time.perf_counter()
            order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(y)))
            losses = []
            for chosen in order.split(batch):
                loss = loss_of(network(phase[chosen]), y[chosen])
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss became {loss.item()} in epoch {epoch}: lower learning_rate"
                    )
                optimizer.zero_grad()
                loss.backward()
                clip_grad_norm_(network.parameters(), 2.0 * network.passes)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update()
            valid_loss, mase = validate(network, valid_set, batch, device)
            seconds = time.perf_counter() - began
            row = (
                epoch,
                (epoch + 1) * steps,
                np.mean(losses),
                valid_loss,
                mase,
                schedule.get_last_lr()[0],
                seconds,
            )
            history.append(dict(zip(METRICS, map(float, row), strict=True)))
            bar.set_postfix(mase=f"{mase:.2f}")
            if mase < best["mase"]:
                best = {
                    "mase": mase,
                    "weights": {k: v.detach().cpu().clone() for k, v in network.state_dict().items()},
                }
            _save(
                checkpoint,
                task=task,
                history=history,
                best=best,
                network=network.state_dict(),
                optimizer=optimizer.state_dict(),
                schedule=schedule.state_dict(),
            )

    network.load_state_dict(best["weights"])
    with open(out / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, METRICS)
        writer.writeheader()
        writer.writerows(history)
    seconds = sum(h["seconds"] for h in history)
    save_model(
        out,
        network,
        domain,
        {
            "training": recipe,
            "valid_mase": best["mase"],
            "seconds": seconds,
            "device": device,
            "torch": torch.__version__,
        },
    )
    checkpoint.unlink()


@torch.inference_mode()
def validate(network: RLN, samples: Samples, batch: int, device: str) -> tuple[float, float]:
    """Mean loss and mean MASE over a set."""
    losses, mase = [], []
    for phase, y in zip(samples.phase.split(batch), samples.y.split(batch), strict=True):
        iterates = network(phase.to(device))
        target = y.to(device)
        losses.append(loss_of(iterates, target).item() * len(y))
        mase += (100 * (iterates[-1] - target).abs().mean(dim=(1, 2, 3))).tolist()
    return sum(losses) / len(mase), float(np.mean(mase))


def _fingerprint(recipe: dict, domain: Domain, *sets: Samples) -> str:
    """Names a training task, so that a checkpoint of another one is not continued."""
    digest = hashlib.sha256(json.dumps([recipe, domain.to_json()]).encode())
    for tensor in (t for s in sets for t in s):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _save(path: Path, **state: object) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
