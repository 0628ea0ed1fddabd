"""Numbers, bytes, JSON and arrays, as FFCV 1.0 stores them, byte for byte."""

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
        """Store anything that `float` takes, text aside."""
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
    """A whole number, stored as int64."""

    type_id = 1
    metadata_dtype = np.dtype("<i8")

    def encode(self, value: Any, record: Array, _sample: int) -> None:
        """Store anything that counts as an index; a float is refused even if it is whole."""
        try:
            number = operator.index(value)
        except TypeError as error:
            raise SampleError("not a whole number", got=type(value).__name__) from error
        if not -(2**63) <= number < 2**63:
            raise SampleError("number does not fit", got=number, expected="64 bits, signed")
        record[0] = number

    def decode(self, record: Any, _payload: Uint8Array) -> int:
        """Return an int."""
        return int(record)


@dataclass(frozen=True)
class BytesField(Field):
    """Bytes of any number. Empty values are fine as long as one in the column is not."""

    type_id = 3
    metadata_dtype = np.dtype([("ptr", "<u8"), ("size", "<u8")])

    def encode(self, value: Any, record: Array, _sample: int) -> Payload:
        """Store bytes, or a uint8 array of one dimension."""
        if isinstance(value, np.ndarray):
            if value.dtype != np.uint8 or value.ndim != 1:
                raise SampleError(
                    "not bytes", got=f"{value.dtype} {value.shape}", expected="uint8 (n,)"
                )
            value = value.tobytes()
        if not isinstance(value, bytes | bytearray):
            raise SampleError(
                "not bytes", got=type(value).__name__, expected="bytes or a uint8 array"
            )
        record["size"] = len(value)
        return value

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return where the bytes are. A size beyond 63 bits comes out as the largest number."""
        return column["ptr"], np.minimum(column["size"], 2**63 - 1).astype(np.int64)

    def finish(self, column: Array) -> None:
        """Refuse a column of nothing: FFCV would copy a byte into rows of none."""
        if not column["size"].any():
            raise SampleError("every value is empty, which FFCV cannot read")

    def decode(self, _record: Any, payload: Uint8Array) -> Any:
        """Return bytes."""
        return payload.tobytes()


@dataclass(frozen=True)
class JSONField(BytesField):
    """A JSON value: text in UTF-8 and a NUL, stored as bytes are."""

    type_id = 5

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store what `json.dumps` takes."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(f"not a JSON value: {error}") from error
        return super().encode(text.encode() + b"\0", record, sample)

    def decode(self, record: Any, payload: Uint8Array) -> Any:
        """Return the value."""
        text, end, _ = super().decode(record, payload).partition(b"\0")
        if not end:
            raise FormatError("JSON text without its closing NUL")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"JSON cannot be decoded: {error}") from error


# What np.dtype is given of a file: a plain dtype by its name, and nothing that it would interpret.
_DTYPE = re.compile(rb'\[\["", "([<>|][biufcmMSV][0-9]{1,9}(?:\[[0-9]{0,4}[A-Za-z]{1,2}\])?)"\]\]')
_NDARRAY = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])


@dataclass(frozen=True)
class NDArrayField(Field):
    """An array of one dtype and shape for all samples.

    Refused, since FFCV reads none of them back: structured dtypes, objects, text; no dimension,
    more than 32, sides of zero.
    """

    dtype: Any  # what np.dtype takes; an np.dtype from then on
    shape: tuple[int, ...]

    type_id = 4
    metadata_dtype = np.dtype("<u8")

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise SampleError("dtype of an array", got=repr(self.dtype)) from error
        if dtype.kind not in "biufcmMSV" or dtype.names or dtype.subdtype or not dtype.itemsize:
            raise SampleError("dtype of an array", got=dtype, expected="numbers, or fixed bytes")
        shape = tuple(operator.index(side) for side in self.shape)
        if not 1 <= len(shape) <= 32 or min(shape) < 1:
            raise SampleError(
                "shape of an array", got=shape, expected="1 to 32 dimensions, each at least 1"
            )
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", shape)
        if self.size >= 2**32:
            raise SampleError("size of an array", got=self.size, expected="below 2**32 bytes")

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def arguments(self) -> bytes:
        """Return 32 sides (uint64), the length of a text (uint64), and the dtype as JSON text."""
        text = json.dumps(self.dtype.descr).encode()
        head = np.zeros(1, _NDARRAY)
        head["shape"][0, : len(self.shape)] = self.shape
        head["type_length"] = len(text)
        return head.tobytes() + text

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Read dtype and shape; nothing of the text is interpreted but the name of a dtype."""
        head = np.frombuffer(arguments, _NDARRAY, 1)[0]
        rest = arguments[_NDARRAY.itemsize :]
        length = int(head["type_length"])
        text = rest[:length]
        name = _DTYPE.fullmatch(text)
        if length > len(rest) or any(rest[length:]) or name is None:
            raise FormatError("dtype of an array", got=text[:64], expected='such as [["", "<f4"]]')
        shape = head["shape"].tolist()
        while shape and shape[-1] == 0:  # what is left of 32 sides
            shape.pop()
        try:
            return cls(np.dtype(name[1].decode()), tuple(shape))
        except SampleError as error:
            raise FormatError(error.reason, got=error.got, expected=error.expected) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError("dtype of an array", got=name[1]) from error

    def encode(self, value: Any, _record: Array, _sample: int) -> Payload:
        """Store an array of exactly this dtype and shape: a cast would hide a mistake."""
        array = np.asarray(value)
        if array.dtype != self.dtype or array.shape != self.shape:
            raise SampleError(
                "array", got=f"{array.dtype} {array.shape}", expected=f"{self.dtype} {self.shape}"
            )
        return array.tobytes()

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return where the arrays are."""
        return column, np.full(len(column), self.size, np.int64)

    def decode(self, _record: Any, payload: Uint8Array) -> Array:
        """Return an array of the field's dtype and shape."""
        array: Array = payload.view(self.dtype).reshape(self.shape).copy()
        return array


@dataclass(frozen=True)
class TorchTensorField(NDArrayField):
    """A tensor of one dtype and shape for all samples; read back as an array.

    `dtype` is a torch dtype, its name, or NumPy's; torch itself is not imported. bfloat16 and other
    dtypes that NumPy lacks are refused.
    """

    type_id = 6

    def __post_init__(self) -> None:
        name = str(self.dtype)
        if name.startswith("torch."):
            object.__setattr__(self, "dtype", name.removeprefix("torch."))
        super().__post_init__()

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a tensor, or an array."""
        to_numpy: Callable[[], Array] | None = getattr(value, "numpy", None)
        return super().encode(to_numpy() if to_numpy else value, record, sample)
