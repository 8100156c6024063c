"""The processor, its cores and the graphics card."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cores() -> int:
    """Count the CPU cores that the affinity, the cgroup and the SLURM job of this process allow."""
    from dask.system import CPU_COUNT  # It respects the affinity and the cgroup.

    # Where SLURM does not bind a job to cores, only these variables tell its number of cores.
    granted = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(CPU_COUNT, int(granted)) if granted.isdecimal() and int(granted) else CPU_COUNT


def _describe_cpu(key: str) -> str:
    """Return an entry of Linux's description of the processor, or an empty text."""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def processor() -> str:
    """Return the name of the processor."""
    return _describe_cpu("model name") or platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Return the name of the graphics card, or of the processor with the number of threads that PyTorch uses."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def has_bf16(device: str) -> bool:
    """Return whether the device has instructions for bfloat16. Without them, a step takes many times as long."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The key is "flags" for x86 and "Features" for ARM.
    instructions = f"{_describe_cpu('flags')} {_describe_cpu('Features')}"
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(instructions.split())


def peak(device: str) -> float:
    """Return the peak memory in GB that tensors of this process took on a graphics card; 0 for the CPU."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e9 if device.startswith("cuda") else 0.0
