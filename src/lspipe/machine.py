"""What a computation runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cores() -> int:
    """Count the CPU cores that this process may use: by its affinity, its cgroup and its SLURM job."""
    from dask.system import CPU_COUNT  # affinity and cgroup

    # Some clusters bind a job to no cores: only these variables say how many it has.
    stated = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(CPU_COUNT, int(stated)) if stated.isdecimal() and int(stated) else CPU_COUNT


def processor() -> str:
    """Its name."""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text(encoding="utf-8").splitlines():
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
