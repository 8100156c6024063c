"""Training by several processes, each on a device of its own, as ``torchrun`` starts them.

The processes share each batch. Means over a batch are taken over all processes, and gradients are added up. So the loss
and the gradient are those of the whole batch. In a single process, the functions change nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

LOST = "closed by peer|reset by peer|broken pipe|timed out|Connection refused"  # messages of gloo


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process. Process 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def count_here() -> int:
    """Return the number of processes that ``torchrun`` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if dist.is_torchelastic_launched() else 1


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes that ``torchrun`` started, and give the device of this one.

    Raises:
        ConnectionError: Another process has ended.
    """
    if not dist.is_torchelastic_launched():
        yield device
        return
    backend = "gloo"
    if device == "cuda":
        device, backend = f"cuda:{os.environ['LOCAL_RANK']}", "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    me = rank()
    try:
        yield device
    except RuntimeError as error:
        if not re.search(LOST, str(error)):
            raise
        raise ConnectionError(f"process {me}: another process has ended; see its message") from None
    finally:
        dist.destroy_process_group()


def check_network(network: nn.Module) -> None:
    """Raise ValueError where several processes cannot train a network as one process does."""
    if count() > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        raise ValueError(
            "architecture: has batch normalization, which takes its means over the part of a process; train it in one "
            "process"
        )


def part(samples: int) -> slice:
    """Return the part of a batch that this process takes. Each one takes all of a batch that is too small to share."""
    if samples < count():
        return slice(None)
    return slice(rank() * samples // count(), (rank() + 1) * samples // count())


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is that of this process; ``add_gradients`` adds those of the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def average(mean: Tensor, samples: int) -> Tensor:
    """Return the mean over the samples of all processes from the mean over the samples of this one."""
    if count() == 1:
        return mean
    return _Sum.apply(samples * mean) / _Sum.apply(mean.new_tensor(float(samples)))


def add_gradients(network: nn.Module) -> None:
    """Replace the gradients of the weights by their sums over all processes."""
    if count() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    total = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(total)
    for gradient, values in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(values.view(gradient.shape))


def join_lists(values: list[float]) -> list[float]:
    """Return the values of all processes, one process after the other."""
    if count() == 1:
        return values
    lists: list[list[float]] = [[] for _ in range(count())]
    dist.all_gather_object(lists, values)
    return [value for each in lists for value in each]


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process. The device does not wait for the answer."""
    if count() == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def from_first(value: Any) -> Any:
    """Return the value of process 0."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]
