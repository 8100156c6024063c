"""What a computation runs on."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Its name."""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Of the card, or of the processor with the number of threads that PyTorch uses of it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def peak(device: str) -> float:
    """GB of a card's memory that tensors of this process took at their most; on the CPU 0."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e9 if device.startswith("cuda") else 0.0
