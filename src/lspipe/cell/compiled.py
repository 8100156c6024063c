"""Kernels that Numba compiles once for all processes: their machine code is kept in files."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps


class Checked(CompileResultCacheImpl):
    """Stores a kernel with a checksum, because damaged machine code would run."""

    def reduce(self, result: Any) -> tuple[bytes, bytes]:
        data = dumps(super().reduce(result))
        return hashlib.sha256(data).digest(), data

    def rebuild(self, context: Any, stored: tuple[bytes, bytes]) -> Any:
        checksum, data = stored
        if hashlib.sha256(data).digest() != checksum:
            raise ValueError("damaged kernel")
        return super().rebuild(context, pickle.loads(data))


class Cache(FunctionCache):
    """Numba's cache, except that a damaged file, a full disk or a lost connection only costs another compilation."""

    _impl_class = Checked

    def _index_key(self, types: Any, codegen: Any) -> Any:
        """Distinguish kernels by all that they call. A change of a file of these or of this one compiles them anew."""
        called: dict[Any, None] = {}
        pending = [self._py_func]
        while pending:
            names = inspect.getclosurevars(pending.pop())
            kernels = [v.py_func for v in (*names.nonlocals.values(), *names.globals.values()) if hasattr(v, "py_func")]
            pending += [kernel for kernel in kernels if kernel not in called]
            called |= dict.fromkeys(kernels)
        files = sorted({__file__, *map(inspect.getfile, called)})
        content = [function.__qualname__.encode() for function in called] + [Path(f).read_bytes() for f in files]
        return types, codegen.magic_tuple(), hashlib.sha256(b"\0".join(content)).hexdigest()

    def load_overload(self, types: Any, context: Any) -> Any:
        try:
            kernel = super().load_overload(types, context)
            if kernel is None or kernel.signature.args == types:
                return kernel
        except OSError:
            return None
        except Exception:  # Unpickling damaged bytes raises almost any error.
            pass
        with suppress(OSError):
            self.flush()
        return None

    def save_overload(self, types: Any, kernel: Any) -> None:
        with suppress(OSError):
            super().save_overload(types, kernel)


def jit(function: Any, *, allocates: bool = False) -> Any:
    """Compile a kernel when it is first called with arguments of some types, and keep the machine code in files.

    Args:
        function: The function to compile.
        allocates: Whether the kernel, or one that it calls, allocates arrays. Without it Numba counts no references to
            arrays, which would take longer than a short loop, and refuses to allocate.
    """
    options: Any = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "reassoc", "nsz"},
        "_nrt": allocates,
    }
    kernel = njit(function, **options)
    with suppress(RuntimeError, AttributeError):  # There is no folder to write to, or Numba is switched off.
        kernel._cache = Cache(kernel.py_func)
    return kernel
