"""Batches of phases and strains for training, from memory or from the disk shard by shard."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lspipe.cell.problem import Problem
from lspipe.load_path import explain_unreached
from lspipe.models.domain import Domain, load_scale
from lspipe.store import Store
from lspipe.store.shards import open_pair


class Samples(NamedTuple):
    """A set in memory.

    Attributes:
        phase: Phase of each voxel, uint8, or number of its grain, uint16, (N, nx, ny, nz).
        y: First components of the strain over ``load_scale``, 0 in voids, (N, channels, nx, ny, nz) float32.
        material: Number of the material of each grain, (N, G) uint16; None where there are no grains.
        orientation: Unit quaternion w, x, y, z of each grain, (N, G, 4) float64; None where there are no grains.
    """

    phase: Tensor
    y: Tensor
    material: Tensor | None = None
    orientation: Tensor | None = None

    @property
    def total(self) -> int:
        return len(self.y)

    @property
    def channels(self) -> int:
        return self.y.shape[1]

    @property
    def grid(self) -> list[int]:
        """The number of voxels along x, y and z."""
        return list(self.phase.shape[1:])

    @property
    def has_grains(self) -> bool:
        return self.material is not None

    def each(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """Return the samples with every tensor changed by a function."""
        return Samples(*[tensor if tensor is None else change(tensor) for tensor in self])  # type: ignore[arg-type]

    def join(self, problem: Problem) -> tuple[Tensor, Problem]:
        """Return ``phase`` and the problem that it refers to; see ``Problem.join_grains``."""
        if self.material is None or self.orientation is None:
            return self.phase, problem
        phase, joined = problem.join_grains(self.phase.numpy(), self.material.numpy(), self.orientation.numpy())
        return torch.from_numpy(phase), joined

    def batches(self, size: int, order: Sequence[int] | None = None) -> Iterator[Samples]:
        """Yield all samples in batches, shuffled by the seed ``order`` if given. The last batch may be smaller."""
        numbers = np.arange(self.total) if order is None else np.random.default_rng(order).permutation(self.total)
        for chosen in torch.from_numpy(numbers).split(size):
            yield self.each(itemgetter(chosen))

    def digest(self) -> str:
        """Return the SHA-256 of the samples."""
        digest = hashlib.sha256()
        for tensor in self:
            if tensor is not None:
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Stream:
    """A set on the disk. The shard in use and the next one are in memory.

    The set of a load path has the samples that have reached one ``step``.
    """

    cells: Store
    fields: Store
    channels: int = 1
    step: int | None = None

    @cached_property
    def reached(self) -> NDArray[np.integer]:
        """The numbers of the samples of the set in the store."""
        return find_reached(self.fields, self.step)

    @cached_property
    def shards(self) -> list[int]:
        """The shards that hold a sample of the set."""
        return np.unique(self.reached // self.fields.attributes["samples_per_shard"]).tolist()

    @property
    def total(self) -> int:
        return len(self.reached)

    @property
    def grid(self) -> list[int]:
        """The number of voxels along x, y and z."""
        return list(self.cells.arrays["phase"].shape[1:])

    @property
    def has_grains(self) -> bool:
        return "orientation" in self.cells.arrays

    @cached_property
    def domain(self) -> Domain:
        """The domain of the set."""
        return read_domain(self.cells, self.fields, self.step)

    def batches(self, size: int, order: Sequence[int] | None = None) -> Iterator[Samples]:
        """Yield batches as ``Samples`` does. Shards are shuffled, and samples within each shard."""
        rng = np.random.default_rng(order)
        shards = self.shards if order is None else rng.permutation(self.shards)
        rest = None
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self.read, int(shards[0]))
            for after in [*map(int, shards[1:]), None]:
                part = following.result()
                if after is not None:
                    following = reader.submit(self.read, after)
                if order is not None:
                    part = part.each(itemgetter(torch.from_numpy(rng.permutation(part.total))))
                *full, rest = (part if rest is None else concatenate(rest, part)).batches(size)
                yield from full
                if after is None or rest.total == size:
                    yield rest
                    rest = None

    def read(self, shard: int) -> Samples:
        """Read the samples of one shard. Raises ValueError where they are not written."""
        samples, problem = slice(*self.fields.samples(shard)), self.domain
        kept = () if self.step is None else (self.fields.attributes["kept"].index(self.step),)
        y = self.fields.arrays["strain"][(samples, *kept, slice(self.channels))] / np.float32(load_scale(problem))
        names = [name for name in ("phase", "material", "orientation") if name in self.cells.arrays]
        read = Samples(y=y, **{name: self.cells.arrays[name][samples] for name in names}).each(torch.from_numpy)
        phase, joined = read.join(problem)
        filled = read._replace(y=joined.fill_voids(phase, read.y))
        chosen = np.intersect1d(self.reached, np.arange(samples.start, samples.stop)) - samples.start
        filled = filled.each(itemgetter(torch.from_numpy(chosen))) if len(chosen) < filled.total else filled
        if (unwritten := filled.y.isnan().any(dim=(1, 2, 3, 4)).nonzero()).numel():
            numbers = (samples.start + chosen[unwritten[:, 0]]).tolist()
            raise ValueError(f"{self.fields.path}: samples {numbers} are not written")
        return filled

    def whole(self) -> Samples:
        """Read all samples into memory."""
        parts = map(self.read, self.shards)
        whole = (first := next(parts)).each(lambda tensor: tensor.new_empty((self.total, *tensor.shape[1:])))
        end = 0
        for part in chain([first], parts):
            begin, end = end, end + part.total
            for target, tensor in zip(whole, part, strict=True):
                if target is not None and tensor is not None:
                    target[begin:end] = tensor
        return whole

    def digest(self) -> str:
        """Return the SHA-256 of the checksums in the receipts."""
        sums = [store.receipt(shard)["sha256"] for store in (self.cells, self.fields) for shard in store.shards]
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


Set = tuple[Samples | Stream, Domain]


def mixed(sets: Sequence[Set], size: int, order: Sequence[int] | None = None) -> Iterator[tuple[Samples, Domain]]:
    """Yield the batches of all sets, shuffled by the seed ``order``; without it, set after set."""
    batches = [samples.batches(size, order) for samples, _ in sets]
    turns = np.repeat(np.arange(len(sets)), [-(-samples.total // size) for samples, _ in sets])
    if order is not None:
        turns = np.random.default_rng(order).permutation(turns)
    for turn in turns.tolist():
        yield next(batches[turn]), sets[turn][1]


def load(
    microstructures: Path, fields: Path, memory: float = np.inf, components: str = "first", step: int | None = None
) -> Set:
    """Load a set of samples and the domain that it belongs to.

    Args:
        microstructures: The microstructure store.
        fields: The field store.
        memory: The set is kept in memory if it takes at most so many bytes, and else read shard by shard.
        components: 'first' or 'all' components of the strain.
        step: The step of a load path, one of those that the store has kept.

    Raises:
        ValueError: A shard is not whole, the store has not kept the step, or no sample has reached the step.
    """
    (loaded,) = load_sets(microstructures, fields, memory, components, [step])
    return loaded


def load_sets(
    microstructures: Path,
    fields: Path,
    memory: float = np.inf,
    components: str = "first",
    steps: Sequence[int | None] | None = None,
) -> list[Set]:
    """Load the set of a store. A store of load paths has a set for each of ``steps``, by default for all kept steps.

    The sets share the ``memory`` and the phases. The other arguments are those of ``load``. Samples that have not
    reached a step are left out with a warning, and so is a step that no sample has reached.

    Raises:
        ValueError: A shard is not whole, the store has not kept a step, or no sample has reached any of the steps.
    """
    if components not in ("first", "all"):
        raise ValueError(f"components = {components!r}: must be first or all")
    cells, data = open_pair(microstructures, fields)
    channels = 1 if components == "first" else len(data.attributes["components"])
    for store in (cells, data):
        store.check_whole()  # a flipped bit would be learned
    steps = steps or data.attributes.get("kept", [None])
    streams = [Stream(cells, data, channels, step) for step in steps]
    domains = [stream.domain for stream in streams]
    for stream in streams:
        if lost := data.count - stream.total:
            text = f"{fields}: left out {lost} of {data.count} samples, which have not reached step {stream.step}"
            warnings.warn(text, stacklevel=2)
    phase = cells.arrays["phase"]
    size = phase.size * (phase.dtype.itemsize + 4.0 * channels * len(steps))  # bytes of the phases and all components
    sets: list[Set] = []
    shared: dict[bytes, Samples] = {}  # Steps with the same samples share the phases.
    for stream, domain in zip(streams, domains, strict=True):
        if stream.total and size <= memory:
            samples = stream.whole()
            first = shared.setdefault(stream.reached.tobytes(), samples)
            sets.append((first._replace(y=samples.y), domain))
        elif stream.total:
            sets.append((stream, domain))
    if not sets:
        raise ValueError(explain_unreached(fields, f"step {' or '.join(map(str, steps))}"))
    return sets


def read_domain(cells: Store, fields: Store, step: int | None = None) -> Domain:
    """Return the domain of the fields of a store, or of one step of its load path.

    Raises:
        ValueError: The store of a load path has not kept the step, or there is a step without a path.
    """
    kept, labels = fields.attributes.get("kept"), cells.attributes.get("labels")
    if step not in (kept or [None]):
        allowed = f"one of the kept steps {kept}" if kept else "left out, for there is no load path"
        raise ValueError(f"{fields.path}: step {'is missing' if step is None else f'= {step}'}: must be {allowed}")
    if step is not None:
        return Domain.of_step(fields.path_problem, step, labels)
    return Domain.from_json(fields.problem.to_json() | {"labels": labels})


def find_reached(fields: Store, step: int | None) -> NDArray[np.integer]:
    """Return the numbers of the samples that have a field at a step of a load path; all without a path."""
    return np.arange(fields.count) if step is None else np.flatnonzero(fields.arrays["converged"][:, step])


def concatenate(*parts: Samples) -> Samples:
    """Return the samples of all parts, one after the other."""
    joined: list[Any] = [None if tensors[0] is None else torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    return Samples(*joined)


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


def quarter_of_memory() -> float:
    """Return a quarter of the memory of the machine, or of its cgroup, in bytes."""
    from distributed.system import MEMORY_LIMIT  # The import takes a second.

    return float(MEMORY_LIMIT or np.inf) / 4


def move_to(device: str, samples: Samples | Stream) -> Samples | Stream:
    """Return a set on a GPU if it takes at most a quarter of the free memory there; otherwise the set as it is.

    Polycrystals stay where they are: ``Samples.join`` numbers their grains on the CPU.
    """
    if not device.startswith("cuda") or isinstance(samples, Stream) or samples.has_grains:
        return samples
    size, (free, _) = samples.phase.nbytes + samples.y.nbytes, torch.cuda.mem_get_info(device)
    return samples.each(lambda tensor: tensor.to(device)) if size <= free / 4 else samples


def copy_to(device: str, tensor: Tensor) -> Tensor:
    """Return a tensor on a device. A copy from the CPU to a GPU does not wait for what the GPU computes."""
    if device.startswith("cuda") and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
