"""The manifest: what we add to a file, as one more region that FFCV has no reason to read.

JSON behind a magic number, its own checksum and its length: the caller's `info`, the settings that
fields were written with, and a checksum (CRC-32) for everything else in the file.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton.errors import ChecksumError, FormatError, SampleError

MAGIC = b"inkrun\0\1"
HEAD = np.dtype([("magic", "S8"), ("crc", "<u4"), ("length", "<u4")])


@dataclass(frozen=True)
class Manifest:
    """`info` is the caller's, `fields` the settings per field; the rest are CRC-32 values.

    `head` is of all bytes before the data, `table` of the allocation table, `pages` (uint32) of
    each page of data.
    """

    info: Mapping[str, Any]
    fields: Mapping[str, Any]
    head: int
    table: int
    pages: NDArray[np.uint32]

    def pack(self) -> bytes:
        """Return the region's bytes; their number does not depend on the checksums' values."""
        checksums = {
            "head": f"{self.head:08x}",
            "table": f"{self.table:08x}",
            "pages": self.pages.astype(">u4").tobytes().hex(),
        }
        try:
            value = {"info": dict(self.info), "fields": self.fields, "checksums": checksums}
            text = json.dumps(
                value, sort_keys=True, separators=(",", ":"), allow_nan=False
            ).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(f"info is not JSON: {error}") from error
        head = np.array([(MAGIC, zlib.crc32(text), len(text))], HEAD)
        return head.tobytes() + text

    @classmethod
    def unpack(cls, region: bytes) -> "Manifest":
        """Read a region's bytes. Raises ChecksumError, FormatError."""
        if len(region) < HEAD.itemsize or not region.startswith(MAGIC):
            raise FormatError("manifest without its magic number", got=region[:8])
        head = np.frombuffer(region, HEAD, 1)[0]
        text = region[HEAD.itemsize :]
        if head["length"] != len(text):
            raise FormatError("length of the manifest", got=int(head["length"]), expected=len(text))
        if head["crc"] != zlib.crc32(text):
            raise ChecksumError("manifest has changed since it was written")
        try:
            value = json.loads(text)
            info, fields, sums = value["info"], value["fields"], value["checksums"]
            if not (isinstance(info, dict) and isinstance(fields, dict)):
                raise TypeError("info and fields must be objects")
            head_sum, table_sum, pages = (
                np.frombuffer(bytes.fromhex(sums[name]), ">u4")
                for name in ("head", "table", "pages")
            )
            return cls(info, fields, head_sum.item(), table_sum.item(), pages.astype(np.uint32))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(f"manifest cannot be read: {error!r}") from error
