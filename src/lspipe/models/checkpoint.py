"""Published checkpoints of the paper → models. Nothing that such a file holds is called, imported or executed."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from lspipe.cell.material import Isotropic
from lspipe.models.domain import Domain
from lspipe.models.files import save_model, writing
from lspipe.models.rln import PAPER, RLN

# Our layers → those of the published V-Net.
LAYERS = {
    "begin_1.conv": "conv_begin_1.conv",
    "begin_1.activ": "conv_begin_1.activ",
    "begin_2.conv": "conv_begin_2.conv",
    "begin_2.activ": "conv_begin_2.activ",
    "down.conv": "down_block.convdown",
    "down.activ": "down_block.activ_down",
    "down_1.conv": "conv_down_1.conv",
    "down_1.activ": "conv_down_1.activ",
    "down_2.conv": "conv_down_2.conv",
    "down_2.activ": "conv_down_2.activ",
    "up.conv": "up_block.conv_up",
    "up.activ": "up_block.activ_up",
    "end_1.conv": "conv_end_1.conv",
    "end_1.activ": "conv_end_1.activ",
    "end_2": "conv_end_2.conv",
    "flat": "output_block.convflat",
}
# What makes a network one of the paper's, beside its passes and the shapes of its weights.
PUBLISHED = {
    "type": "rln.model_types.RecurrentLocalizationNet",
    "model_type": "rln.model_types.TinyVNet",
    "nprev": 2,
    "enforce_avg": True,
}
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
TENSOR = "torch._utils._rebuild_tensor_v2"
IGNORED = (
    "rln.model_types.",
    "torch.optim.",
    "torch.Size",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)


class RefusedError(ValueError):
    """The file can be read, but is none that is wanted here."""


@dataclass
class Storage:
    """The memory of a tensor: ``numel`` numbers, which the file holds outside its pickle."""

    dtype: torch.dtype
    numel: int
    data: bytes = b""

    def fill(self, data: bytes) -> None:
        if len(data) != self.numel * self.dtype.itemsize:
            raise ValueError(f"{len(data)} bytes for {self.numel} numbers of {self.dtype}")
        self.data = data


@dataclass
class Stored:
    """A tensor of the file: a strided view of a storage, not yet checked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """A copy. Raises ValueError if it would reach outside of its storage."""
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if min(self.offset, *self.stride) < 0 or last >= self.storage.numel:
            raise ValueError("a tensor that reaches outside of its storage")
        flat = torch.frombuffer(bytearray(self.storage.data), dtype=self.storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset).clone()


def import_published(
    file: Path, out: Path, *, contrast: float, young: float = 120.0, poisson: float = 0.3, architecture: str = ""
) -> None:
    """Writes the network of a published checkpoint to the folder ``out``, as ``load_model`` reads it.

    The file does not say what it was trained on: Young's modulus ``young`` of phase 0, ``contrast`` times that
    of phase 1, Poisson's ratio of both. Load and element are the paper's. Raises ValueError for what is no
    checkpoint of the paper (of this ``architecture``, if given), is damaged, or names anything that a checkpoint
    does not need; then nothing is written.
    """
    if not 0 < contrast < math.inf:
        raise ValueError(f"contrast = {contrast}: must be a number > 0")
    materials = (Isotropic(young, poisson), Isotropic(contrast * young, poisson))
    domain = Domain(materials, (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0))
    data = file.read_bytes()
    try:
        found, network = convert(read(data))
    except RefusedError as error:
        raise ValueError(f"{file}: {error}") from None
    except Exception as error:  # there is no end to the ways in which a damaged or hostile file is wrong
        raise ValueError(f"{file}: is damaged, or not written by torch.save ({error!r})") from None
    if architecture not in ("", found):
        raise ValueError(f"{file}: holds {found}, not {architecture}")
    source = {"file": os.fsencode(file.name).decode(errors="replace"), "sha256": hashlib.sha256(data).hexdigest()}
    with writing(out):
        save_model(out, found, network, [domain], {"imported": source})


def convert(checkpoint: Any) -> tuple[str, RLN]:
    """Architecture and network of what a published file holds. Raises RefusedError if it is not the paper's."""
    for key in ("net_params", "model_state_dict"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
            raise RefusedError(f"has no {key}: is no checkpoint of the paper")
    described, weights = checkpoint["net_params"], checkpoint["model_state_dict"]
    for key, value in PUBLISHED.items():
        if described.get(key) != value:
            raise RefusedError(f"net_params.{key} = {shown(described.get(key))}: must be {value!r}")
    passes = described.get("npasses")
    tied = passes == 1 or described.get("reuse_net") is True
    named = [name for name, kind in PAPER.items() if kind == {"passes": passes, "tied": tied}]
    if not named:
        raise RefusedError(f"net_params.npasses = {shown(passes)}: must be 1 or 5")
    network = RLN(phases=2, **PAPER[named[0]])
    state = network.state_dict()
    theirs = {published(name, tied): name for name in state}
    if different := sorted(theirs.keys() ^ weights.keys(), key=str):
        what = "lacks the weights" if different[0] in theirs else "has weights of no layer,"
        raise RefusedError(f"{what} {shown(different[0])} ({named[0]}: {len(theirs)} expected, {len(weights)} there)")
    for name, ours in theirs.items():
        stored, shape = weights[name], tuple(state[ours].shape)
        if not isinstance(stored, Stored) or stored.size != shape or stored.storage.dtype != torch.float32:
            there = f"{stored.storage.dtype} {shown(stored.size)}" if isinstance(stored, Stored) else shown(stored)
            raise RefusedError(f"{name} is {there}: must be torch.float32 {shape}")
        state[ours] = from_zyx(stored.tensor())
        if not state[ours].isfinite().all():
            raise RefusedError(f"{name} holds NaN or infinity")
    network.load_state_dict(state)
    return named[0], network


def published(name: str, tied: bool) -> str:
    """The published name of our parameter nets.{pass}.{layer}.{weight or bias}."""
    _, net, rest = name.split(".", 2)
    layer, kind = rest.rsplit(".", 1)
    return f"{'model' if tied else f'modlist.{net}'}.{LAYERS[layer]}.{kind}"


def from_zyx(weight: Tensor) -> Tensor:
    """Published arrays are (z, y, x) with the load along x, ours (x, y, z): kernels are transposed likewise."""
    return weight.transpose(2, 4) if weight.ndim == 5 else weight


def shown(value: Any) -> str:
    """A value of the file in one short line. Of what is nested only the type: it can be of any length."""
    simple = isinstance(value, str | int | float | None)
    shape = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
    return f"{value!a:.80}" if simple or shape else type(value).__name__


def read(data: bytes) -> Any:
    """What torch.save wrote, in its zip or its legacy format. Raises RefusedError, or anything if it is damaged.

    A class or function is its name, a tensor is ``Stored``.
    """
    file = io.BytesIO(data)
    return read_zip(file) if data.startswith(b"PK") else read_legacy(file)


def read_zip(file: IO[bytes]) -> Any:
    """{name}/data.pkl, a pickle, and beside it the storages: data/{key}."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if sum(entry.file_size for entry in archive.infolist()) > file.seek(0, io.SEEK_END):
            raise ValueError("entries larger than the file: torch.save does not compress")
        (pickle,) = (name for name in names if name.endswith("/data.pkl"))
        root = pickle.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise RefusedError("holds numbers that are not little-endian")
        content, storages = unpickle(io.BytesIO(archive.read(pickle)))
        for key, storage in storages.items():
            storage.fill(archive.read(f"{root}data/{key}"))
    return content


def read_legacy(file: IO[bytes]) -> Any:
    """Five pickles (magic number, version, machine, content, keys of the storages), then for each key the
    number of its elements and these."""
    magic, _, machine = (unpickle(file)[0] for _ in range(3))
    if magic != MAGIC_NUMBER:
        raise ValueError("no magic number")
    if not machine["little_endian"]:
        raise RefusedError("holds numbers that are not little-endian")
    content, storages = unpickle(file)
    for key in unpickle(file)[0]:
        if not isinstance(key, str):
            raise ValueError("a storage without a name")
        (numel,) = struct.unpack("<q", file.read(8))
        storages[key].fill(file.read(numel * storages[key].dtype.itemsize))
    return content


def unpickle(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """What the pickle at the position of ``file`` holds, and the storages that it refers to, by key.

    A pickle is a program. This is its machine without the instruction to import, which leaves a name, and
    without that to call, of which only tensors and mappings come about; the standard library takes the program
    apart and runs nothing of it. Raises RefusedError for names that no checkpoint needs.
    """
    storages: dict[str, Storage] = {}
    memo: dict[int, Any] = {}
    stack: list[Any] = []
    marks: list[int] = []
    value: Any

    def since_mark() -> list[Any]:
        mark = marks.pop()
        items, stack[mark:] = stack[mark:], []
        return items

    for instruction, value, _ in pickletools.genops(file):
        match instruction.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(value)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                parts = int(name[-1])
                stack[-parts:] = [tuple(stack[-parts:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                key, item = stack.pop(-2), stack.pop()
                stack[-1].update(entries([key, item]))
            case "SETITEMS":
                items = since_mark()
                stack[-1].update(entries(items))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "GLOBAL":
                stack.append(known(value.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack[-2:] = [known(".".join(stack[-2:]))]
            case "BINPERSID":
                match stack.pop():
                    case ("storage", str() as kind, str() as key, _, int() as numel, *view) if not any(view):
                        stack.append(storages.setdefault(key, Storage(DTYPES[kind], numel)))
                    case ("module", name, *_):  # a class with its source, in the legacy format
                        stack.append(name)
                    case _:
                        raise ValueError("a reference to something else than a storage")
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack[-1] = made(stack[-1], arguments)
            case "BUILD":
                stack.pop()  # attributes of an object, such as _metadata of a state dict
            case name:
                raise ValueError(f"pickle instruction {name} {shown(value)}")
    return stack.pop(), storages


def entries(items: list[Any]) -> dict[str | int, Any]:
    """Keys and values in turn. Other keys than these could take for ever to hash."""
    keys = items[::2]
    if not all(isinstance(key, str | int) for key in keys):
        raise ValueError("a mapping with keys that are neither strings nor integers")
    return dict(zip(keys, items[1::2], strict=True))


def known(name: str) -> str:
    if name not in (*DTYPES, *MAPPINGS, TENSOR) and not name.startswith(IGNORED):
        raise RefusedError(f"holds {ascii(name)[1:-1]:.80}, which no checkpoint needs: refused")
    return name


def made(name: str, arguments: Any) -> Any:
    """What stands for the call of ``name``: a tensor, an empty mapping, or nothing."""
    if name == TENSOR:
        return Stored(*arguments[:4])
    return {} if name in MAPPINGS else None
