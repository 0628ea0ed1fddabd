"""Fields of numbers, bytes, JSON values and arrays, byte for byte as FFCV 1.0 stores them."""

import json
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from beton.arrays import Array, Int64Array, Uint8Array
from beton.errors import FormatError, SampleError
from beton.fields.base import Field, Payload


@dataclass(frozen=True)
class FloatField(Field):
    """A number, stored as float64."""

    type_id = 0
    metadata_dtype = np.dtype("<f8")

    def encode(self, value: Any, record: Array, _sample: int) -> None:
        """Store any value that `float` accepts, except text."""
        if isinstance(value, str | bytes):
            raise SampleError("not a number", got=type(value).__name__)
        try:
            record[0] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise SampleError(f"not a number: {error}") from error

    def decode(self, record: Any, _payload: Uint8Array) -> float:
        """Return a float."""
        return float(record)


@dataclass(frozen=True)
class IntField(Field):
    """An integer, stored as int64."""

    type_id = 1
    metadata_dtype = np.dtype("<i8")

    def encode(self, value: Any, record: Array, _sample: int) -> None:
        """Store any integer type; a float is rejected, even a whole one."""
        try:
            number = operator.index(value)
        except TypeError as error:
            raise SampleError("not an integer", got=type(value).__name__) from error
        if not -(2**63) <= number < 2**63:
            raise SampleError("integer out of range", got=number, expected="signed 64 bits")
        record[0] = number

    def decode(self, record: Any, _payload: Uint8Array) -> int:
        """Return an int."""
        return int(record)


@dataclass(frozen=True)
class BytesField(Field):
    """Bytes of any length. Values may be empty, but not all of a column."""

    type_id = 3
    metadata_dtype = np.dtype([("ptr", "<u8"), ("size", "<u8")])

    def encode(self, value: Any, record: Array, _sample: int) -> Payload:
        """Store bytes or a uint8 array (n,)."""
        if isinstance(value, np.ndarray):
            if value.dtype != np.uint8 or value.ndim != 1:
                got = f"{value.dtype} {value.shape}"
                raise SampleError("not bytes", got=got, expected="uint8 (n,)")
            value = value.tobytes()
        if not isinstance(value, bytes | bytearray):
            got = type(value).__name__
            raise SampleError("not bytes", got=got, expected="bytes or a uint8 array")
        record["size"] = len(value)
        return value

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return pointers and sizes; sizes above 2^63 - 1 are clipped."""
        return column["ptr"], np.minimum(column["size"], 2**63 - 1).astype(np.int64)

    def check_column(self, column: Array) -> None:
        """Reject a column of empty values: FFCV would copy a byte into rows of zero bytes."""
        if not column["size"].any():
            raise SampleError("every value is empty, which FFCV cannot read")

    def decode(self, _record: Any, payload: Uint8Array) -> Any:
        """Return bytes."""
        return payload.tobytes()


@dataclass(frozen=True)
class JSONField(BytesField):
    """A JSON value: UTF-8 text and a NUL, stored like bytes."""

    type_id = 5

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store any value that `json.dumps` accepts."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(f"not a JSON value: {error}") from error
        return super().encode(text.encode() + b"\0", record, sample)

    def decode(self, record: Any, payload: Uint8Array) -> Any:
        """Return the value."""
        text, end, _ = super().decode(record, payload).partition(b"\0")
        if not end:
            raise FormatError("JSON text without a terminating NUL")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"JSON cannot be decoded: {error}") from error


# A plain dtype's name is the only text of a file that np.dtype gets: it would interpret others.
_DTYPE = re.compile(rb'\[\["", "([<>|][biufcmMSV][0-9]{1,9}(?:\[[0-9]{0,4}[A-Za-z]{1,2}\])?)"\]\]')
_NDARRAY = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])


@dataclass(frozen=True)
class NDArrayField(Field):
    """An array with the same dtype and shape in every sample.

    FFCV cannot read structured dtypes, objects and text, no dimension or more than 32, and sides of
    zero, so they are rejected.
    """

    dtype: Any  # any argument of np.dtype, converted to an np.dtype
    shape: tuple[int, ...]

    type_id = 4
    metadata_dtype = np.dtype("<u8")

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise SampleError("invalid array dtype", got=repr(self.dtype)) from error
        foreign = dtype.isbuiltin == 2  # of a package, such as bfloat16: others cannot read it
        kind = "" if foreign or dtype.names or dtype.subdtype else dtype.kind
        if not kind or kind not in "biufcmMSV" or not dtype.itemsize:
            raise SampleError("invalid array dtype", got=dtype, expected="numbers or fixed bytes")
        shape = tuple(operator.index(side) for side in self.shape)
        if not 1 <= len(shape) <= 32 or min(shape) < 1:
            expected = "1 to 32 dimensions, each at least 1"
            raise SampleError("invalid array shape", got=shape, expected=expected)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", shape)
        if self.size >= 2**32:
            raise SampleError("array too large", got=self.size, expected="below 2**32 bytes")

    @property
    def size(self) -> int:
        """The bytes of one sample."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def arguments(self) -> bytes:
        """Return the shape (32 uint64), the text's length (uint64), and the dtype as JSON text."""
        text = json.dumps(self.dtype.descr).encode()
        head = np.zeros(1, _NDARRAY)
        head["shape"][0, : len(self.shape)] = self.shape
        head["type_length"] = len(text)
        return head.tobytes() + text

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Read dtype and shape. Raises FormatError unless the text is a plain dtype's name."""
        head = np.frombuffer(arguments, _NDARRAY, 1)[0]
        rest = arguments[_NDARRAY.itemsize :]
        length = int(head["type_length"])
        text = rest[:length]
        name = _DTYPE.fullmatch(text)
        if length > len(rest) or any(rest[length:]) or name is None:
            raise FormatError("invalid array dtype", got=text[:64], expected='e.g. [["", "<f4"]]')
        shape = np.trim_zeros(head["shape"], "b")  # padded to 32 sides
        try:
            return cls(np.dtype(name[1].decode()), tuple(shape))
        except SampleError as error:
            raise FormatError(error.reason, got=error.got, expected=error.expected) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError("invalid array dtype", got=name[1]) from error

    def encode(self, value: Any, _record: Array, _sample: int) -> Payload:
        """Store an array of exactly this dtype and shape: a cast would hide a mistake."""
        array = np.asarray(value)
        if array.dtype != self.dtype or array.shape != self.shape:
            got, expected = f"{array.dtype} {array.shape}", f"{self.dtype} {self.shape}"
            raise SampleError("incorrect array", got=got, expected=expected)
        return array.tobytes()

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return the pointers, and the same size for every array."""
        return column, np.full(len(column), self.size, np.int64)

    def decode(self, _record: Any, payload: Uint8Array) -> Array:
        """Return an array of the field's dtype and shape."""
        array: Array = payload.view(self.dtype).reshape(self.shape).copy()
        return array


@dataclass(frozen=True)
class TorchTensorField(NDArrayField):
    """A tensor with the same dtype and shape in every sample; it is read as an array.

    `dtype` is a dtype of torch or NumPy, or its name; torch itself is not imported. bfloat16 and
    other dtypes that NumPy lacks are rejected.
    """

    type_id = 6

    def __post_init__(self) -> None:
        if str(self.dtype).startswith("torch."):
            object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))
        super().__post_init__()

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a tensor or an array."""
        to_numpy: Callable[[], Array] | None = getattr(value, "numpy", None)
        return super().encode(to_numpy() if to_numpy else value, record, sample)
