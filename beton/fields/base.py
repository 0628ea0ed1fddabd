"""The base class of fields: a field encodes a value as a metadata record and a payload of bytes.

A field handles one sample at a time and knows nothing of files. Its `decode` is simple and slow,
for single samples and for tests; the loader's kernels read the same records and payloads.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from beton.arrays import Array, BoolArray, Int64Array, Uint8Array
from beton.errors import FormatError

Payload = bytes | bytearray | memoryview

ARGUMENTS_SIZE = 1024
UNKNOWN = -1  # the size of a region that only the allocation table gives


@dataclass(frozen=True)
class Field(ABC):
    """A column of a file: its settings, its record dtype, and how to encode and decode a value.

    `arguments` holds the settings that a reader needs; `from_arguments` restores them.
    """

    type_id: ClassVar[int]
    metadata_dtype: ClassVar[np.dtype[Any]]
    sizes_in_records: ClassVar[bool] = True  # or only the allocation table gives sizes of payloads

    def arguments(self) -> bytes:
        """Return the settings that a reader needs, at most 1024 bytes."""
        return b""

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Create a field from the 1024 bytes of a descriptor. Raises FormatError."""
        if any(arguments):
            raise FormatError("unexpected arguments of a field")
        return cls()

    def settings(self) -> dict[str, Any]:
        """Return all settings as JSON values, for the manifest."""
        return {"type": type(self).__name__} | {
            name: value.str if isinstance(value, np.dtype) else value
            for name, value in vars(self).items()
        }

    @abstractmethod
    def encode(self, value: Any, record: Array, sample: int, /) -> Payload | None:
        """Fill `record` (1,), except its pointer; return the payload, or None for no payload.

        `sample` is the index of the value in its dataset. Raises SampleError.
        """

    def regions(self, _column: Array, /) -> tuple[Array, Int64Array] | None:
        """Return the payloads' pointers (a writable view) and sizes in bytes; None: no payloads."""
        return None

    def validate(self, _column: Array, /) -> None:
        """Check all records, except pointers and region sizes. Raises FormatError."""
        return

    def check_column(self, _column: Array, /) -> None:
        """Reject a column that FFCV cannot read as a whole. Raises SampleError."""
        return

    @abstractmethod
    def decode(self, record: Any, payload: Uint8Array, /) -> Any:
        """Return the value of one sample. Raises BetonError if the payload is damaged."""


def first_true(mask: BoolArray) -> int | None:
    """Return the index of the first True, or None."""
    return int(mask.argmax()) if mask.any() else None
