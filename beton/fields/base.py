"""What a field is: how a value becomes a metadata record and, for most, a payload of bytes.

A field knows one sample at a time and nothing of files; its `decode` is plain and slow, for single
samples and for tests. The loader's kernels read the same records and payloads.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from beton.arrays import Array, BoolArray, Int64Array, Uint8Array
from beton.errors import FormatError

Payload = bytes | bytearray | memoryview

ARGUMENTS_SIZE = 1024
UNKNOWN = -1  # a region whose size only the allocation table knows


@dataclass(frozen=True)
class Field(ABC):
    """A column of a file: its settings, its record, and the way between a value and bytes.

    A field holds what it takes to write; `from_arguments` gives back what it takes to read.
    """

    type_id: ClassVar[int]
    metadata_dtype: ClassVar[np.dtype[Any]]

    def arguments(self) -> bytes:
        """Return what a reader must know, at most 1024 bytes."""
        return b""

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Rebuild a field from the 1024 bytes of a descriptor. Raises FormatError."""
        if any(arguments):
            raise FormatError("arguments given to a kind of field that takes none")
        return cls()

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"type": type(self).__name__} | {
            name: value.str if isinstance(value, np.dtype) else value
            for name, value in values.items()
        }

    @abstractmethod
    def encode(self, value: Any, record: Array, sample: int, /) -> Payload | None:
        """Fill `record`, an array of one element, all but its pointer; return the payload, if any.

        `sample` is the index of the value in its data set. Raises SampleError.
        """

    def regions(self, _column: Array, /) -> tuple[Array, Int64Array] | None:
        """Return where the payloads are: pointers (a view that can be set) and sizes in bytes."""
        return None

    def validate(self, _column: Array, /) -> None:
        """Check the numbers of all records, pointers and region sizes aside. Raises FormatError."""
        return

    def finish(self, _column: Array, /) -> None:
        """Refuse a whole column that FFCV could not read though each value is sound."""
        return

    @abstractmethod
    def decode(self, record: Any, payload: Uint8Array, /) -> Any:
        """Return the value of one sample. Raises BetonError if the payload is damaged."""


def first_wrong(wrong: BoolArray) -> int | None:
    """Return the index of the first sample at fault, for a vectorised check."""
    return int(wrong.argmax()) if wrong.any() else None
