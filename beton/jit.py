"""The decorator that compiles kernels with numba.

A kernel is a module-level function of arrays and numbers. It releases the interpreter lock, so the
loader's threads run kernels in parallel. Its machine code is cached on disk, so only the first
process on a machine compiles it. Without a usable cache, every process does.
"""

import hashlib
import pickle
import secrets
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.serialize import dumps
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

P = ParamSpec("P")
R = TypeVar("R")


_FunctionCache: Any = FunctionCache  # numba has no types
_dumps: Any = dumps
DIGEST = hashlib.sha256().digest_size  # bytes


class _DamagedError(ValueError):
    """A cache file whose bytes changed after they were written."""


class _CodeFiles:
    """The machine code of one function, a file for each signature and processor.

    A file holds the digest of the rest, the digest of all that the code depends on, and a pickle.
    Numba's own files have no digests, two processes that write its index at once may assign the
    code of one signature to another, and a change in another file than the function's is not seen.
    """

    def __init__(self, folder: Path, name: str, function: Callable[..., Any]) -> None:
        self._folder, self._name, self._function = folder, name, function
        _sources(function)  # files are read when they are imported: later they may be others

    def path(self, key: tuple[Any, ...]) -> Path:
        """Return the file of a key: the signature, the processor, and digests of the code."""
        return self._folder / f"{self._name}.{_digest(repr(key[:2]).encode()).hex()[:16]}.kernel"

    def load(self, key: tuple[Any, ...]) -> Any:
        """Return the code of a key; None if there is none. Raises _DamagedError or OSError."""
        try:
            data = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        if _digest(data[DIGEST:]) != data[:DIGEST]:
            raise _DamagedError("its digest differs")
        if data[DIGEST : 2 * DIGEST] != self._dependencies(key):
            return None  # of another version
        return pickle.loads(data[2 * DIGEST :])

    def save(self, key: tuple[Any, ...], code: Any) -> None:
        """Write the code of a key. Raises OSError."""
        data = self._dependencies(key) + bytes(_dumps(code))
        path = self.path(key)
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            temporary.write_bytes(_digest(data) + data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _dependencies(self, key: tuple[Any, ...]) -> bytes:
        sources = sorted(_sources(self._function).items())
        return _digest(repr((numba.__version__, sources, key)).encode())


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@cache
def _file_digest(file: str) -> bytes:
    return _digest(Path(file).read_bytes())


def _sources(function: Callable[..., Any]) -> dict[str, bytes]:
    """Return the files that the machine code of a function depends on, and digests of them.

    They are its own, this one, and those of the kernels and intrinsics that it may call. The
    numbers that a file imports are in its digest. Raises OSError.
    """
    sources = {__file__: _file_digest(__file__)}
    _add_sources(function, sources)
    return sources


def _add_sources(function: Callable[..., Any], sources: dict[str, bytes]) -> None:
    file = function.__code__.co_filename
    if file in sources:
        return
    names = [*function.__globals__.values()]
    numbers = repr([one for one in names if isinstance(one, int | float | np.generic)])
    sources[file] = _digest(_file_digest(file) + numbers.encode())
    for one in names:
        if isinstance(one, Dispatcher):
            _add_sources(one.py_func, sources)
        elif isinstance(one, _Intrinsic):
            _add_sources(one._defn, sources)


class _Cache(_FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function, which never stops the program: it warns instead."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CodeFiles(Path(self.cache_path), self._impl.filename_base, function)

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the cached code of a signature; None, with a warning, if it cannot be loaded."""
        try:
            return super().load_overload(signature, target)
        except Exception as error:
            path = self._cache_file.path(self._index_key(signature, target.codegen()))
            reason = f"{type(error).__name__}: {error}"
            _warn(f"{path}: the cached machine code is not used ({reason}); it is compiled anew")
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Save the code of a signature; warn if that fails, for example on a full disk."""
        try:
            super().save_overload(signature, code)
        except OSError as error:
            place = f"{self.cache_path}: {error.strerror or error}"
            _warn(f"{place}; machine code is not cached, so every start compiles it")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` on its first call, without the interpreter lock, cached on disk.

    If no cache folder is writable, every process compiles the kernel. Damaged cache files are
    written again, with a warning. A change in the file of the kernel, or of one that it calls,
    compiles it anew; it must call kernels by their own names, not as a module's.
    """
    return _compiled(function)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small `kernel` into the kernels that call it.

    A call passes each array as seven numbers or more, which takes longer than a few lines of code.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    compiled: Any = numba.njit(nogil=True, **options)(function)
    with suppress(RuntimeError, OSError):  # no cache folder is writable; the code is in no file
        compiled._cache = _Cache(function)
    return cast(Callable[P, R], compiled)


@inlined
def signed(number: Any) -> Any:
    """Convert a byte, coordinate or position to int64, so that differences do not wrap around."""
    return np.int64(number)


@inlined
def unsigned(number: Any) -> Any:
    """Convert a number that is not negative to uint64."""
    return np.uint64(number)


@intrinsic
def _prefetch(context: Any, data: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view: Any = make_array  # numba has no types for it
        array = view(signature.args[0])(context, builder, arguments[0])
        start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        address = builder.gep(start, [arguments[1]])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, flag(0), flag(2), flag(1)])  # read, from level 2 on, data
        return context.get_dummy_value()

    return types.void(data, types.intp), generate


# prefetch(array, offset) starts to load the byte at this distance from an array's first byte into
# the CPU's caches and does not wait, so that a kernel that reads random positions can load the next
# one while it works. Level 2 waits for more loads at once than level 1 does.
prefetch = cast(Callable[[Any, int], None], _prefetch)


@intrinsic
def _load_bits(context: Any, data: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view: Any = make_array  # numba has no types for it
        array = view(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(64)
        address = builder.gep(array.data, [arguments[1]])
        number = builder.load(builder.bitcast(address, word.as_pointer()), align=1)
        return builder.bswap(number)

    return types.uint64(data, types.uint64), generate


# load_bits(data, index) returns data[index : index + 8] of uint8 (n,), contiguous, as a big-endian
# uint64. It checks no bounds.
load_bits = cast(Callable[[Any, Any], Any], _load_bits)
