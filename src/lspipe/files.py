"""Files: written whole or not at all, parsed into a given type, and locked by one writer."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have none


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file from parts, whole or not at all. Only one part is in memory at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, temporary, str(temporary)):  # the error of a full disk lacks the name
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(*folders: Path) -> list[Path]:
    """Return the temporary files in these folders that killed writers left behind."""
    hidden = (file for folder in folders for file in folder.rglob(".*"))
    return [file for file in hidden if re.fullmatch(r"\..+\.[0-9a-f]{32}", file.name)]


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def parse(where: object, kind: type[T], data: bytes | Any) -> T:
    """Validate JSON text, or what was read from it, as the type ``kind``, without converting numbers or strings.

    Raises:
        ValueError: The data are of another type. The message begins with ``where`` and names the first wrong key.
    """
    try:
        return TypeAdapter(kind).validate_json(data if isinstance(data, bytes) else json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "its text"
        raise ValueError(f"{where}: is damaged: {key} = {first['input']!r:.60}: {first['msg']}") from None


def read_json(path: Path, kind: type[T]) -> T:
    """Read a JSON file as the type ``kind``; see ``parse``."""
    return parse(path, kind, path.read_bytes())


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of ``path``, a folder or store that need not exist yet, in the file ``.NAME.lock`` beside it.

    Links are followed first. The lock ends with the process. One process holds it, or any number of processes that
    share it. A file system without locks is used without.

    Raises:
        ValueError: Another process holds the lock.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "ab" if os.access(lock, os.W_OK) or not lock.exists() else "rb") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: another process is writing here; wait until it has ended") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
