"""The manifest: inkrun's additional region of a file, which FFCV ignores.

It is JSON, after a magic number, a checksum and a length. It holds the caller's `info`, the fields'
settings, and CRC-32 checksums of everything else in the file.
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
    """The caller's `info`, the settings of each field, and CRC-32 checksums.

    `head` is the checksum of all bytes before the data, `table` of the allocation table, and
    `pages` uint32 (pages,) of every page.
    """

    info: Mapping[str, Any]
    fields: Mapping[str, Any]
    head: int
    table: int
    pages: NDArray[np.uint32]

    def pack(self) -> bytes:
        """Return the region's bytes; their number does not depend on the checksums.

        Raises SampleError if `info` is not JSON.
        """
        checksums = {
            "head": f"{self.head:08x}",
            "table": f"{self.table:08x}",
            "pages": self.pages.astype(">u4").tobytes().hex(),
        }
        try:
            value = {"info": dict(self.info), "fields": self.fields, "checksums": checksums}
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(f"info is not JSON: {error}") from error
        data = text.encode()
        head = np.array([(MAGIC, zlib.crc32(data), len(data))], HEAD)
        return head.tobytes() + data

    @classmethod
    def unpack(cls, region: bytes) -> "Manifest":
        """Read a manifest from a region's bytes. Raises ChecksumError and FormatError."""
        if len(region) < HEAD.itemsize or not region.startswith(MAGIC):
            raise FormatError("manifest without its magic number", got=region[:8])
        head = np.frombuffer(region, HEAD, 1)[0]
        text = region[HEAD.itemsize :]
        if (length := int(head["length"])) != len(text):
            raise FormatError("incorrect length of the manifest", got=length, expected=len(text))
        if head["crc"] != zlib.crc32(text):
            raise ChecksumError("manifest has changed since it was written")
        try:
            value = json.loads(text)
            info, fields, sums = value["info"], value["fields"], value["checksums"]
            if not (isinstance(info, dict) and isinstance(fields, dict)):
                raise TypeError("info and fields must be objects")
            names = "head", "table", "pages"
            crcs = [np.frombuffer(bytes.fromhex(sums[name]), ">u4") for name in names]
            return cls(info, fields, crcs[0].item(), crcs[1].item(), crcs[2].astype(np.uint32))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(f"manifest cannot be read: {error!r}") from error
