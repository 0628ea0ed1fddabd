"""Pickles of plain data, read without Python's unpickler, which could run any program.

An own machine executes the opcodes that dicts, lists, tuples, numbers, texts, bytes and arrays of
whole numbers need, in the protocols 0 to 5, as Python 2 and 3 and NumPy 1 and 2 write them. It
imports and calls nothing: the few names that arrays need are only compared.
"""

import pickletools
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = {f"{core}.multiarray _reconstruct" for core in _CORES}
_SCALAR = {f"{core}.multiarray scalar" for core in _CORES}
_FROM_BUFFER = {f"{core}.numeric _frombuffer" for core in _CORES}
_ARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_NAMES = {*_RECONSTRUCT, *_SCALAR, *_FROM_BUFFER, _ARRAY, _DTYPE, _ENCODE}
_TYPES = {f"{kind}{size}" for kind in "ui" for size in (1, 2, 4, 8)}  # of whole numbers

_IGNORED = {"PROTO", "FRAME", "STOP"}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),  # texts of Python 2, by pickletools as latin-1
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}


class ForeignObjectError(ValueError):
    """A pickle holds something else than plain data; the message names it."""


class _Mark:
    """The start of a group of values on the stack."""


@dataclass(frozen=True)
class _Name:
    """A name that arrays need; it is not imported."""

    name: str


@dataclass
class _DType:
    """The type of an array's values: its code and its order of bytes."""

    code: str
    order: str = "<"

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """An array, whose values follow its creation."""

    values: Any = None


def load_plain(data: bytes) -> Any:
    """Return the plain data of a pickle; texts of Python 2 are decoded as latin-1.

    Raises ForeignObjectError for other contents, and ValueError for a damaged pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
        [result] = machine.stack
    except ForeignObjectError:
        raise
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError, MemoryError) as error:
        raise ValueError(" ".join(f"{error}".split())[:200] or type(error).__name__) from None
    return result.values if isinstance(result, _Array) else result


class _Machine:
    """Executes one opcode after the other."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Execute an opcode with its argument."""
        stack = self.stack
        if opcode in _IGNORED:
            return
        if opcode in _VALUES:
            stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _PUT:
            self._memo[len(self._memo) if opcode == "MEMOIZE" else int(argument)] = stack[-1]
        elif opcode in _GET:
            stack.append(self._memo[int(argument)])
        elif opcode == "MARK":
            stack.append(_Mark())
        elif opcode in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[opcode])))
        elif opcode == "TUPLE":
            stack.append(tuple(self._pop_group()))
        elif opcode in ("EMPTY_LIST", "LIST"):
            stack.append(self._pop_group() if opcode == "LIST" else [])
        elif opcode in ("EMPTY_DICT", "DICT"):
            group = self._pop_group() if opcode == "DICT" else []
            stack.append({})
            self._fill(group)
        elif opcode in ("APPEND", "APPENDS"):
            values = self._pop(1) if opcode == "APPEND" else self._pop_group()
            if not isinstance(stack[-1], list):
                raise ValueError("appends to what is no list")
            stack[-1] += values
        elif opcode in ("SETITEM", "SETITEMS"):
            self._fill(self._pop(2) if opcode == "SETITEM" else self._pop_group())
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            name = argument if opcode == "GLOBAL" else " ".join(map(str, self._pop(2)))
            if name not in _NAMES:
                raise ForeignObjectError(f"the object {'.'.join(name.split())[:100]}")
            stack.append(_Name(name))
        elif opcode == "REDUCE":
            called, arguments = self._pop(2)
            stack.append(_made(called, arguments))
        elif opcode == "BUILD":
            [state] = self._pop(1)
            _fill_in(stack[-1], state)
        else:
            raise ForeignObjectError(f"the opcode {opcode}")

    def _pop(self, count: int) -> list[Any]:
        values = self.stack[len(self.stack) - count :]
        if len(values) < count or any(isinstance(value, _Mark) for value in values):
            raise ValueError("takes more values than there are")
        del self.stack[len(self.stack) - count :]
        return values

    def _pop_group(self) -> list[Any]:
        start = len(self.stack) - 1
        while not isinstance(self.stack[start], _Mark):
            start -= 1
            if start < 0:
                raise ValueError("takes a group of values without a start")
        group = self.stack[start + 1 :]
        del self.stack[start:]
        return group

    def _fill(self, group: list[Any]) -> None:
        """Put alternating keys and values into the dict on the stack."""
        target, keys = self.stack[-1], group[::2]
        if not isinstance(target, dict) or len(group) % 2:
            raise ValueError("sets keys of what is no dict")
        if not all(isinstance(key, str | bytes | int) for key in keys):
            raise ForeignObjectError("a key that is neither text nor number")
        target.update(
            (key, value.values if isinstance(value, _Array) else value)
            for key, value in zip(keys, group[1::2], strict=True)
        )


def _made(called: Any, arguments: Any) -> Any:
    """Return what the call of a name makes. Raises ForeignObjectError for another call."""
    name = called.name if isinstance(called, _Name) else ""
    match arguments:
        case (_Name(name="numpy ndarray"), (0,), "b" | b"b") if name in _RECONSTRUCT:
            return _Array()
        case (str(code), *_) if name == _DTYPE:
            return _DType(_checked(code))
        case (bytes(code), *_) if name == _DTYPE:
            return _DType(_checked(code.decode("latin-1")))
        case (str(text), "latin1" | "latin-1") if name == _ENCODE:
            return text.encode("latin-1")
        case (_DType() as kind, str() | bytes() as raw) if name in _SCALAR:
            return _filled(raw, kind, (), "C").item()
        case (bytes(raw), _DType() as kind, tuple(shape), "C" | "F" as order) if (
            name in _FROM_BUFFER
        ):
            return _Array(_filled(raw, kind, shape, order))
    raise ForeignObjectError(f"a call of {name.replace(' ', '.') or type(called).__name__}")


def _checked(code: str) -> str:
    code = np.dtype(code).str[1:] if code in np.sctypeDict else code.lstrip("|<=>")
    if code not in _TYPES:
        raise ForeignObjectError(f"an array of type {code[:20]!r}")
    return code


def _fill_in(target: Any, state: Any) -> None:
    """Complete a type or an array by its state. Raises ForeignObjectError for anything else."""
    match target, state:
        case _DType(), (int(), str() | bytes() as order, *_):
            text = order if isinstance(order, str) else order.decode("latin-1")
            if text not in ("|", "<", ">", "="):
                raise ValueError(f"an order of bytes {text[:5]!r}")
            target.order = ">" if text == ">" else "<"
        case _Array(), (int(), tuple(shape), _DType() as kind, fortran, str() | bytes() as raw):
            target.values = _filled(raw, kind, shape, "F" if fortran else "C")
        case _:
            raise ForeignObjectError(f"a state of {type(target).__name__}")


def _filled(raw: str | bytes, kind: _DType, shape: tuple[Any, ...], order: Any) -> Any:
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    dtype = kind.dtype()
    if not all(isinstance(side, int) and 0 <= side <= len(data) for side in shape):
        raise ValueError(f"an array of shape {str(shape)[:50]} in {len(data):,} bytes")
    if prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {str(shape)[:50]} in {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
