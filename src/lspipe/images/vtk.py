"""Reader of VTK images: .vti and legacy .vtk files of structured points.

Only arrays of one component are images. Cell data have a voxel for each cell, point data one for each point.
"""

from __future__ import annotations

import lzma
import math
import mmap
import zlib
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from lspipe.images.source import Source, check_memory, naming

XML_TYPES = {f"{sign}{bits}": f"{kind}{int(bits) // 8}" for sign, kind in (("Int", "i"), ("UInt", "u"), ("Float", "f"))
             for bits in ("8", "16", "32", "64") if sign + bits not in ("Float8", "Float16")}  # fmt: skip
LEGACY_TYPES = {
    **{"unsigned_char": "u1", "char": "i1", "unsigned_short": "u2", "short": "i2", "unsigned_int": "u4", "int": "i4"},
    **{"unsigned_long": "u8", "long": "i8", "float": "f4", "double": "f8", "vtkIdType": "i4"},
    **{"vtktypeint64": "i8", "vtktypeuint64": "u8", "vtktypeint32": "i4", "vtktypeuint32": "u4"},
}
COMPONENTS = {"VECTORS": 3, "NORMALS": 3, "TENSORS": 9, "TENSORS6": 6}
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Array:
    """Where an array lies in a file, and how it is coded.

    Args:
        name: Its name.
        dtype: Type of its numbers.
        grid: Numbers of voxels along x, y, z.
        form: 'ascii', 'colours' (text of numbers from 0 to 1, which stand for bytes), 'base64' or 'raw'.
        start: First byte of its text or data.
        end: Byte after its text; 0 where the data state their length.
        header: Type of the numbers that state lengths; None for legacy files, which have none.
        compressor: Name of VTK's compressor, if any.
    """

    name: str
    dtype: np.dtype
    grid: Grid
    form: str
    start: int
    end: int = 0
    header: np.dtype | None = None
    compressor: str = ""

    @property
    def size(self) -> int:
        """Number of bytes of the voxels."""
        return math.prod(self.grid) * self.dtype.itemsize


def find_sources(path: Path) -> list[Source]:
    """Return the arrays of one component. Data that are neither coded as text nor compressed are mapped into memory.

    Raises:
        ValueError: The file is damaged, or holds another kind of data than an image.
    """
    with naming(path):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            arrays, spacing = (read_xml if path.suffix.lower() == ".vti" else read_legacy)(data)
        size = path.stat().st_size
        if wrong := [
            a.name for a in arrays if min(a.grid) < 1 or a.start > size or (a.form == "raw" and a.size > size)
        ]:
            raise ValueError(f"the array {wrong[0]} does not fit into the file")
        return [_make_source(path, array, spacing) for array in arrays]


def _make_source(path: Path, array: Array, spacing: tuple[float, float, float]) -> Source:
    shape, changed = array.grid[::-1], path.stat().st_mtime_ns

    def decode(part: tuple[slice, ...]) -> NDArray[Any]:
        return _decode(path, array, changed).reshape(shape)[part]

    read: Any = decode
    if array.form == "raw" and not array.compressor:
        start = array.start + (array.header.itemsize if array.header else 0)
        read = np.memmap(path, array.dtype, "r", start, shape).__getitem__
    return Source(path, array.name, shape, array.dtype, "zyx", read, frozenset({"axes", "spacing"}), spacing)


@lru_cache(maxsize=1)
def _decode(path: Path, array: Array, _changed: int) -> NDArray[Any]:
    """Return all voxels of an array that is text or compressed."""
    check_memory(path, array.size)
    with (
        naming(f"{path}: {array.name}"),
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if array.form in ("ascii", "colours"):
            words = data[array.start : array.end].split(None, count := math.prod(array.grid))
            numbers = np.array(words[:count])
            return (np.rint(255 * numbers.astype(float)) if array.form == "colours" else numbers).astype(array.dtype)
        content = read_content(data, array)
    if len(content) != array.size:
        raise ValueError(f"{path}: {array.name}: has {len(content)} bytes; must have {array.size}; save it again")
    return np.frombuffer(content, array.dtype)


def read_content(data: mmap.mmap, array: Array) -> bytes:
    """Return the bytes of an array whose data state their lengths, before or after compression."""
    assert array.header
    h, position = array.header.itemsize, array.start
    is_text = array.form == "base64"
    while is_text and data[position : position + 1].isspace():
        position += 1

    def take(count: int, skip: int = 0) -> bytes:
        """Return ``count`` bytes from ``position`` on, without the first ``skip``."""
        if not is_text:
            return data[position + skip : position + count]
        return b64decode(data[position : position + 4 * -(-count // 3)])[skip:count]

    def numbers(count: int) -> list[int]:
        return [int(n) for n in np.frombuffer(take(count * h), array.header)]

    if not array.compressor:
        (count,) = numbers(1)
        if count > array.size:
            return b""
        length = 4 * -(-h // 3)
        if is_text and data[position + length - 1 : position + length] == b"=":  # the length is a text of its own
            position += length
            return take(count)
        return take(h + count, h)
    blocks, full, last = numbers(3)
    if blocks > array.size or (blocks and (blocks - 1) * full + (last or full) > array.size):
        return b""
    sizes = numbers(3 + blocks)[3:]
    position += 4 * -(-(3 + blocks) * h // 3) if is_text else (3 + blocks) * h
    packed, parts = take(sum(sizes)), []
    for i, size in enumerate(sizes):
        most = last or full if i == blocks - 1 else full
        parts.append(_unpack(packed[:size], most, array.compressor))
        packed = packed[size:]
    return b"".join(parts)


def _unpack(packed: bytes, most: int, compressor: str) -> bytes:
    """Return at most ``most`` bytes."""
    match compressor:
        case "vtkZLibDataCompressor":
            return zlib.decompressobj().decompress(packed, most)
        case "vtkLZMADataCompressor":
            return lzma.LZMADecompressor().decompress(packed, most)
    raise ValueError(f"compressor = {compressor}: must be zlib or LZMA; save it with one of these, or without")


def read_xml(data: mmap.mmap) -> tuple[list[Array], tuple[float, float, float]]:
    """Return the arrays of a .vti file and its spacing."""
    appended = data.find(b"<AppendedData")
    raw_start = data.find(b"_", appended) + 1 if appended >= 0 else 0
    parser = expat.ParserCreate()
    found: dict[str, dict[str, str]] = {}
    entries: list[tuple[str, dict[str, str], int, int]] = []  # of cells or points, attributes, first byte, end
    section: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "Piece" and tag in found:
            raise ValueError("has several pieces; must have one")
        if tag == "DataArray":
            entries.append((section[-1], attributes, data.find(b">", parser.CurrentByteIndex) + 1, 0))
        else:
            found.setdefault(tag, attributes)
            section.append(tag)

    def end(tag: str) -> None:
        if tag == "DataArray":
            entries[-1] = (*entries[-1][:3], parser.CurrentByteIndex)
        else:
            section.pop()

    def refuse(*_: Any) -> None:
        raise ValueError("has a document type, which VTK does not write")

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = start, end, refuse
    stop = appended if appended >= 0 else len(data)
    for position in range(0, stop, 2**24):
        parser.Parse(data[position : min(position + 2**24, stop)], False)
    coding = "base64"
    if appended >= 0:
        parser.Parse(data[appended : raw_start - 1] + b"</AppendedData></VTKFile>", True)  # The rest need not be XML.
        coding = found["AppendedData"].get("encoding", "base64")
    else:
        parser.Parse(b"", True)
    file, image = found["VTKFile"], found["ImageData"]
    order = ">" if file.get("byte_order") == "BigEndian" else "<"
    header = np.dtype(order + XML_TYPES[file.get("header_type", "UInt32")])
    spacing = [abs(float(h)) for h in image["Spacing"].split()]
    extent = [int(n) for n in found["Piece"].get("Extent", image["WholeExtent"]).split()]
    points = [b - a + 1 for a, b in zip(extent[::2], extent[1::2], strict=True)]
    arrays = []
    for kind, attributes, first, last in entries:
        if kind not in ("CellData", "PointData") or attributes.get("NumberOfComponents", "1") != "1":
            continue
        if attributes["type"] not in XML_TYPES:  # such as texts
            continue
        grid = tuple(max(n - 1, 1) for n in points) if kind == "CellData" else tuple(points)
        nx, ny, nz = grid
        dtype, name = np.dtype(order + XML_TYPES[attributes["type"]]), attributes.get("Name", "")
        compressor = file.get("compressor", "")
        match attributes.get("format", "ascii"):
            case "ascii":
                arrays.append(Array(name, dtype.newbyteorder("="), (nx, ny, nz), "ascii", first, last))
            case "binary":
                arrays.append(Array(name, dtype, (nx, ny, nz), "base64", first, last, header, compressor))
            case _:
                place = raw_start + int(attributes["offset"])
                arrays.append(Array(name, dtype, (nx, ny, nz), coding, place, 0, header, compressor))
    x, y, z = spacing
    return arrays, (x, y, z)


def read_legacy(data: mmap.mmap) -> tuple[list[Array], tuple[float, float, float]]:
    """Return the arrays of a legacy file and its spacing. Binary files are big-endian."""
    position = 0

    def line() -> list[str]:
        nonlocal position
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        text, position = data[position:end], end + 1
        return text.decode("latin-1").split()

    if line()[:3] != ["#", "vtk", "DataFile"]:
        raise ValueError("has no first line '# vtk DataFile'")
    line()  # the title
    is_text = line() == ["ASCII"]
    arrays: list[Array] = []
    points, spacing, grid = (0, 0, 0), (1.0, 1.0, 1.0), (0, 0, 0)

    def skip(count: int, size: int) -> None:
        """Move past ``count`` numbers of ``size`` bytes."""
        nonlocal position
        if not is_text:
            position += count * size
            return
        for end in _ends_of_words(data, position, count):
            position = end

    def add(name: str, kind: str, components: int, count: int) -> None:
        dtype = np.dtype(LEGACY_TYPES[kind] if is_text else ">" + LEGACY_TYPES[kind])
        start = position
        skip(components * count, dtype.itemsize)
        if components == 1 and count == math.prod(grid):
            arrays.append(Array(unquote(name), dtype, grid, "ascii" if is_text else "raw", start, position * is_text))

    count = 0
    while position < len(data):
        before = position
        match line():
            case ["DATASET", kind] if kind != "STRUCTURED_POINTS":
                raise ValueError(f"holds {kind}; must hold STRUCTURED_POINTS, an image")
            case ["DIMENSIONS", nx, ny, nz]:
                points = int(nx), int(ny), int(nz)
            case ["SPACING" | "ASPECT_RATIO", dx, dy, dz]:
                spacing = abs(float(dx)), abs(float(dy)), abs(float(dz))
            case ["CELL_DATA", number]:
                count, grid = int(number), (max(points[0] - 1, 1), max(points[1] - 1, 1), max(points[2] - 1, 1))
            case ["POINT_DATA", number]:
                count, grid = int(number), points
            case ["SCALARS", name, kind, *components]:
                behind = position
                if line()[:1] != ["LOOKUP_TABLE"]:
                    position = behind
                add(name, kind, int(components[0]) if components else 1, count)
            case ["COLOR_SCALARS", name, number]:  # VTK's writer takes bytes for colours
                add(name, "unsigned_char", int(number), count)
                if is_text and arrays and arrays[-1].start > before:
                    arrays[-1] = replace(arrays[-1], form="colours")
            case ["LOOKUP_TABLE", _, number]:
                skip(4 * int(number), 1)
            case [word, name, kind] if word in COMPONENTS:
                add(name, kind, COMPONENTS[word], count)
            case ["FIELD", _, number]:
                for _ in range(int(number)):
                    while not (words := line()) and position < len(data):
                        pass
                    if words[:1] == ["METADATA"]:
                        while line():
                            pass
                        words = line()
                    name, components_, tuples, kind = words
                    add(name, kind, int(components_), int(tuples))
            case ["METADATA"]:
                while line() and position < len(data):
                    pass
    return arrays, spacing


def _ends_of_words(data: mmap.mmap, position: int, count: int) -> Iterator[int]:
    """Yield positions in a text up to the end of the next ``count`` words, part by part."""
    while count > 0 and position < len(data):
        part = data[position : position + 2**20]
        if position + len(part) < len(data) and not part[-1:].isspace():
            cut = max(part.rfind(b" "), part.rfind(b"\n")) + 1
            part = part[: cut or len(part)]
        words = part.split(None, count)
        if len(words) > count:
            yield position + len(part) - len(words[-1])
            return
        count -= len(words)
        position += len(part)
        yield position
