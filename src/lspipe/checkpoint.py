"""Checkpoints of a training: files that are written whole or not at all, and whose damage is noticed."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lspipe.files import write_bytes


def resume(checkpoint: Path, finished: Path, task: str, epochs: int) -> dict[str, Any] | None:
    """Return the contents of the checkpoint from which training goes on, or None if there is none.

    A checkpoint of another training, or of more epochs than asked for, is renamed. Training then goes on from the
    finished one, if that belongs to it and has fewer epochs.
    """
    if checkpoint.exists():
        saved = read(checkpoint)
        if saved["task"] == task and saved["epochs"] <= epochs:
            return saved
        aside = checkpoint.replace(checkpoint.with_name(f"checkpoint-{saved['task'][:8]}-{saved['epochs']}.pt"))
        warnings.warn(f"{checkpoint}: belongs to another training; it was renamed to {aside.name}", stacklevel=3)
    if finished.exists():
        saved = read(finished)
        if saved["task"] == task and saved["epochs"] < epochs:
            return saved
    return None


def read(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint, or raise ValueError if it is damaged."""
    data = checkpoint.read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError(f"{checkpoint}: is damaged or has an earlier version; remove it to begin training anew")
    return torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all, with the SHA-256 of its bytes at its end, which torch does not check."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    write_bytes(path, buffer.getbuffer())


def every(seconds: float) -> Iterator[bool]:
    """Yield True once in so many seconds, False in between."""
    last = time.perf_counter()
    while True:
        is_due = time.perf_counter() > last + seconds
        if is_due:
            last = time.perf_counter()
        yield is_due
