"""Makes models of the weights that the paper's authors publish.

A published file is not trusted: nothing that it holds is called, imported or executed.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from lspipe.cell.material import Isotropic
from lspipe.models.architectures import PAPER
from lspipe.models.domain import Domain
from lspipe.models.files import save_model, writing
from lspipe.models.rln import RLN

# The name of each of our layers in the published V-Net.
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
# Settings that all networks of the paper share.
SETTINGS = {
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
# The authors' files also name these classes and functions. They are not needed, so they are not imported.
IGNORED = (
    "rln.model_types.",
    "torch.optim.",
    "torch.Size",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)


# The instructions in torch.save's pickles, beside those that Unpickler has itself.
INSTRUCTIONS = """
    PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL BINPERSID
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
"""


class RefusedError(ValueError):
    """The file can be read, but does not hold weights that can be used here."""


@dataclass
class Storage:
    """The memory of a tensor: ``numel`` numbers, which the file holds outside of its pickle."""

    dtype: torch.dtype
    numel: int
    data: bytes = b""

    def fill(self, data: bytes) -> None:
        if len(data) != self.numel * self.dtype.itemsize:
            raise ValueError(f"an array has {len(data)} bytes; must hold {self.numel} numbers of {self.dtype}")
        self.data = data


@dataclass
class Stored:
    """A tensor of the file: a strided view of a storage, which is not checked yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return a copy, or raise ValueError if the tensor reaches outside of its storage."""
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if min(self.offset, *self.stride) < 0 or last >= self.storage.numel:
            raise ValueError("a tensor that reaches outside of its storage")
        flat = torch.frombuffer(bytearray(self.storage.data), dtype=self.storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset).clone()


def import_published(
    file: Path, out: Path, *, contrast: float, young: float = 120.0, poisson: float = 0.3, architecture: str = ""
) -> None:
    """Write the network of a published file as a model, which ``load_model`` reads.

    The file does not say what the network was trained on. The load and the element are those of the paper.

    Args:
        file: The file that the paper's authors publish.
        out: The folder of the model.
        contrast: Young's modulus of phase 1 over that of phase 0.
        young: Young's modulus of phase 0 in GPa.
        poisson: Poisson's ratio of both phases.
        architecture: The architecture that the file must hold: ``fln``, ``rln-t``, ``rln``, or any if empty.

    Raises:
        ValueError: The file is damaged, holds another network, or names anything that the weights do not need. Then
            nothing is written.
    """
    if not 0 < contrast < math.inf:
        raise ValueError(f"contrast = {contrast}: must be a number > 0")
    materials = (Isotropic(young, poisson), Isotropic(contrast * young, poisson))
    domain = Domain(materials, (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0))
    data = file.read_bytes()
    try:
        published, network = convert(read(data))
    except RefusedError as error:
        raise ValueError(f"{file}: {error}") from None
    except Exception as error:  # A damaged or hostile file may raise any error.
        raise ValueError(f"{file}: is damaged or was not written by torch.save ({error!r})") from None
    if architecture not in ("", published):
        raise ValueError(f"{file}: holds the architecture {published}; must hold {architecture}")
    source = {"file": os.fsencode(file.name).decode(errors="replace"), "sha256": hashlib.sha256(data).hexdigest()}
    with writing(out):
        save_model(out, published, network, [domain], {"imported": source})


def convert(content: Any) -> tuple[str, RLN]:
    """Return the architecture and the network of a published file's content, or raise RefusedError."""
    for key in ("net_params", "model_state_dict"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise RefusedError(f"has no {key}; must be a file that the paper's authors publish")
    described, weights = content["net_params"], content["model_state_dict"]
    for key, value in SETTINGS.items():
        if described.get(key) != value:
            raise RefusedError(f"net_params.{key} = {shown(described.get(key))}: must be {value!r}")
    passes = described.get("npasses")
    tied = passes == 1 or described.get("reuse_net") is True
    architecture = next((name for name, kind in PAPER.items() if kind == (passes, tied)), None)
    if architecture is None:
        raise RefusedError(f"net_params.npasses = {shown(passes)}: must be 1 or 5")
    network = RLN(2, 1, passes, tied)
    state = network.state_dict()
    names = {published_name(name, tied): name for name in state}
    if different := sorted(names.keys() ^ weights.keys(), key=str):
        what = "lacks the weights" if different[0] in names else "has weights of no layer,"
        raise RefusedError(
            f"{what} {shown(different[0])}; {architecture} has {len(names)} weights, and the file has {len(weights)}"
        )
    for published, name in names.items():
        stored, shape = weights[published], tuple(state[name].shape)
        if not isinstance(stored, Stored) or stored.size != shape or stored.storage.dtype != torch.float32:
            given = f"{stored.storage.dtype} {shown(stored.size)}" if isinstance(stored, Stored) else shown(stored)
            raise RefusedError(f"{published} is {given}: must be torch.float32 {shape}")
        state[name] = from_zyx(stored.tensor())
        if not state[name].isfinite().all():
            raise RefusedError(f"{published} holds NaN or infinity")
    network.load_state_dict(state)
    return architecture, network


def published_name(name: str, tied: bool) -> str:
    """Return the published name of our parameter nets.{pass}.{layer}.{weight or bias}."""
    _, net, rest = name.split(".", 2)
    layer, kind = rest.rsplit(".", 1)
    return f"{'model' if tied else f'modlist.{net}'}.{LAYERS[layer]}.{kind}"


def from_zyx(weight: Tensor) -> Tensor:
    """Transpose a kernel from the published order of axes (z, y, x) to (x, y, z). The load is along x in both."""
    return weight.transpose(2, 4) if weight.ndim == 5 else weight


def shown(value: Any) -> str:
    """Return a value of the file in one short line, or its type if it is nested: it can be of any length."""
    simple = isinstance(value, str | int | float | None)
    shape = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
    return f"{value!a:.80}" if simple or shape else type(value).__name__


def read(data: bytes) -> Any:
    """Read what torch.save wrote, in its zip or its legacy format.

    Returns:
        The content, in which a class or function is its name, and a tensor is ``Stored``.

    Raises:
        RefusedError: The file holds names that the weights do not need.
        Exception: Any other error, if the file is damaged.
    """
    file = io.BytesIO(data)
    return read_zip(file) if data.startswith(b"PK") else read_legacy(file)


def read_zip(file: IO[bytes]) -> Any:
    """Read an archive with the pickle {name}/data.pkl and the storages {name}/data/{key}."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if sum(entry.file_size for entry in archive.infolist()) > file.seek(0, io.SEEK_END):
            raise ValueError("entries larger than the file: torch.save does not compress")
        (program,) = (name for name in names if name.endswith("/data.pkl"))
        root = program.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise RefusedError("holds numbers that are not little-endian")
        unpickler = Unpickler(io.BytesIO(archive.read(program)))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.fill(archive.read(f"{root}data/{key}"))
    return content


def read_legacy(file: IO[bytes]) -> Any:
    """Read five pickles (magic number, version, machine, content, keys of the storages) and the storages."""
    magic, _, machine = (Unpickler(file).load() for _ in range(3))
    if magic != MAGIC_NUMBER:
        raise ValueError("it does not begin with PyTorch's magic number")
    if not machine["little_endian"]:
        raise RefusedError("holds numbers that are not little-endian")
    unpickler = Unpickler(file)
    content = unpickler.load()
    for key in Unpickler(file).load():
        if not isinstance(key, str):
            raise ValueError("a storage without a name")
        (numel,) = struct.unpack("<q", file.read(8))
        storage = unpickler.storages[key]
        storage.fill(file.read(numel * storage.dtype.itemsize))
    return content


class Mapping(dict[str | int, Any]):
    """A dictionary. It refuses keys other than strings and integers, because hashing others may take very long."""

    def __setitem__(self, key: str | int, value: Any) -> None:
        if not isinstance(key, str | int):
            raise ValueError("a mapping with keys that are neither strings nor integers")
        super().__setitem__(key, value)


class Unpickler(pickle._Unpickler):
    """Reads a pickle without importing or calling anything.

    A pickle is a program. This class runs it with the instructions that torch.save needs and no others. The instruction
    to import leaves a name. The instruction to call makes tensors and mappings, and None in place of everything else.

    Attributes:
        storages: The storages that the pickle refers to, by their keys.
    """

    stack: list[Any]
    append: Callable[[Any], None]  # to the stack

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> str:
        name = f"{module}.{name}"
        if name not in (*DTYPES, *MAPPINGS, TENSOR) and not name.startswith(IGNORED):
            raise RefusedError(f"holds {ascii(name)[1:-1]:.80}, which the weights do not need; the file is refused")
        return name

    def persistent_load(self, reference: Any) -> Any:
        match reference:
            case ("storage", str() as kind, str() as key, _, int() as numel, *view) if not any(view):
                return self.storages.setdefault(key, Storage(DTYPES[kind], numel))
            case ("module", name, *_):  # a class with its source, in the legacy format
                return name
        raise ValueError("a reference to something else than a storage")

    def load_call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if name == TENSOR:
            self.append(Stored(*arguments[:4]))
        else:
            self.append(Mapping() if name in MAPPINGS else None)

    def ignore_attributes(self) -> None:
        self.stack.pop()  # such as _metadata of a state dict

    dispatch: ClassVar[dict[int, Any]] = {
        **{
            code: pickle._Unpickler.dispatch[code]
            for (code,) in (getattr(pickle, name) for name in INSTRUCTIONS.split())
        },
        pickle.EMPTY_DICT[0]: lambda self: self.append(Mapping()),
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: ignore_attributes,
    }
