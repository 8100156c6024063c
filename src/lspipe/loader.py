"""Batches of phases and strains for training, from memory or from the disk shard by shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lspipe.models.domain import Domain
from lspipe.store import Store
from lspipe.store.shards import open_pair


class Samples(NamedTuple):
    """A set in memory: ``phase`` (N, nx, ny, nz) uint8, and ``y`` (N, channels, nx, ny, nz) float32, ε/ε̄_xx."""

    phase: Tensor
    y: Tensor

    @property
    def total(self) -> int:
        return len(self.y)

    @property
    def channels(self) -> int:
        return self.y.shape[1]

    def to(self, device: str) -> Samples:
        return Samples(self.phase.to(device), self.y.to(device))

    def batches(self, size: int, order: Sequence[int] | None = None) -> Iterator[Samples]:
        """Yield all samples in batches, shuffled by the seed ``order`` if given. The last batch may be smaller."""
        if order is None:
            yield from map(Samples, self.phase.split(size), self.y.split(size))
        else:
            for chosen in torch.from_numpy(np.random.default_rng(order).permutation(self.total)).split(size):
                yield Samples(self.phase[chosen], self.y[chosen])

    def digest(self) -> str:
        """Return the SHA-256 of the samples."""
        digest = hashlib.sha256()
        for tensor in self:
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Stream:
    """A set on the disk. The shard in use and the next one are in memory."""

    cells: Store
    fields: Store
    channels: int = 1

    @property
    def total(self) -> int:
        return self.fields.count

    def batches(self, size: int, order: Sequence[int] | None = None) -> Iterator[Samples]:
        """Yield batches as ``Samples`` does. Shards are shuffled, and samples within each shard."""
        rng = np.random.default_rng(order)
        shards = self.fields.shards if order is None else rng.permutation(self.fields.shards)
        rest = None
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self.read, int(shards[0]))
            for after in [*map(int, shards[1:]), None]:
                phase, y = following.result()
                if after is not None:
                    following = reader.submit(self.read, after)
                if order is not None:
                    mixed = torch.from_numpy(rng.permutation(len(y)))
                    phase, y = phase[mixed], y[mixed]
                if rest is not None:
                    phase, y = torch.cat([rest.phase, phase]), torch.cat([rest.y, y])
                *full, rest = map(Samples, phase.split(size), y.split(size))
                yield from full
                if after is None or len(rest.y) == size:
                    yield rest
                    rest = None

    def read(self, shard: int) -> Samples:
        """Read the samples of one shard. Raises ValueError where they are not written."""
        samples = slice(*self.fields.samples(shard))
        y = self.fields.arrays["strain"][samples, : self.channels] / np.float32(
            self.fields.attributes["macroscopic_strain"][0]
        )
        if (unwritten := np.flatnonzero(np.isnan(y).any(axis=(1, 2, 3, 4)))).size:
            raise ValueError(f"{self.fields.path}: samples {(samples.start + unwritten).tolist()} are not written")
        return Samples(torch.from_numpy(self.cells.arrays["phase"][samples]), torch.from_numpy(y))

    def digest(self) -> str:
        """Return the SHA-256 of the checksums in the receipts."""
        sums = [store.receipt(shard)["sha256"] for store in (self.cells, self.fields) for shard in store.shards]
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def load(
    microstructures: Path, fields: Path, memory: float = np.inf, components: str = "first"
) -> tuple[Samples | Stream, Domain]:
    """Load a set of samples and the domain that it belongs to.

    Args:
        microstructures: The microstructure store.
        fields: The field store.
        memory: The set is kept in memory if it takes at most so many bytes, and else read shard by shard.
        components: 'first' or 'all' components of the strain.

    Raises:
        ValueError: A shard is not whole.
    """
    if components not in ("first", "all"):
        raise ValueError(f"components = {components!r}: must be first or all")
    cells, data = open_pair(microstructures, fields)
    channels = 1 if components == "first" else data.arrays["strain"].shape[1]
    stream = Stream(cells, data, channels)
    for store in (cells, data):
        store.check_whole()  # a flipped bit would be learned
    domain = Domain.from_json(data.problem.to_json() | {"labels": cells.attributes.get("labels")})
    count, *grid = cells.arrays["phase"].shape
    if count * np.prod(grid, dtype=float) * (1 + 4 * channels) > memory:  # bytes of a phase and of each component
        return stream, domain
    whole = Samples(torch.empty(count, *grid, dtype=torch.uint8), torch.empty(count, channels, *grid))
    for shard in data.shards:
        part, samples = stream.read(shard), slice(*data.samples(shard))
        whole.phase[samples], whole.y[samples] = part
    return whole, domain


def check_apart(train: Path, valid: Path) -> None:
    """Raise ValueError where two microstructure stores share a sample."""
    stores = [Store.open(path) for path in (train, valid)]
    if wrong := [str(store.path) for store in stores if "seed" not in store.arrays]:
        raise ValueError(f"{wrong[0]}: must be a store of microstructures")
    seeds = [store.arrays["seed"][:] for store in stores]
    if (shared := np.intersect1d(*seeds)).size:
        raise ValueError(f"{train}, {valid}: share {shared.size} samples; choose another split or seed for one")


def check_labels(*microstructures: Path) -> None:
    """Raise ValueError where stores of images have different labels for their phases."""
    labels = {path: Store.open(path).attributes.get("labels") for path in microstructures}
    stated = [path for path in labels if labels[path]]
    if other := [path for path in stated if labels[path] != labels[stated[0]]]:
        raise ValueError(
            f"{stated[0]}, {other[0]}: have the labels {labels[stated[0]]} and {labels[other[0]]}: must have the same; "
            "import both with the same --labels (in the workflow microstructures.labels)"
        )


def quarter_of_memory(device: str) -> float:
    """Return a quarter of the memory of the machine (or of its cgroup) and of the device, in bytes."""
    from distributed.system import MEMORY_LIMIT  # a second to import

    limits = [float(MEMORY_LIMIT or np.inf)]
    if device.startswith("cuda") and torch.cuda.is_available():
        limits.append(torch.cuda.get_device_properties(device).total_memory)
    return min(limits) / 4
