"""The members of a tar archive: each file's name, place and size, from the headers between them.

Read here and not with the standard library, which ends without an error at a damaged header and
passes over the rest of the archive. Headers are those of POSIX (ustar and pax), of GNU tar and of
the oldest tar; the formats are described in POSIX's `pax` and in GNU tar's manual.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

BLOCK = 512
_CHECKSUM = slice(148, 156)
_LONGEST_RECORDS = 1 << 20  # bytes of names and attributes before one member
_FILES, _FOLDERS = ("0", "\0", "7"), ("5", "D")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL, _VOLUME_NAME = "L", "K", ("x", "X"), "g", "V"
_WITHOUT_CONTENT = ("1", "2", "3", "4", "5", "6", _VOLUME_NAME)
_REFUSED = {
    "1": "is a hard link",
    "2": "is a symbolic link",
    "3": "is a device",
    "4": "is a device",
    "6": "is a pipe",
    "S": "is a sparse file",
    "M": "continues a file of another volume",
}

ReadAt = Callable[[int, int], bytes]  # size, offset


class DamagedTarError(ValueError):
    """A tar archive cannot be read; the message is the reason."""


class Member(NamedTuple):
    """A file of the archive; `danger` is the reason to refuse it, "" if there is none."""

    name: str
    offset: int
    size: int
    danger: str


def is_tar_header(block: bytes) -> bool:
    """Return whether a block begins a member of a tar archive: its checksum is correct."""
    if len(block) < BLOCK or not any(block):
        return False
    try:
        declared = _number(block[_CHECKSUM])
    except DamagedTarError:
        return False
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65,521.
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[_CHECKSUM]) + 8 * ord(" ")
    return (total - declared) % 65_521 == 0


def read_members(read_at: ReadAt, length: int) -> list[Member]:
    """Return the files of a tar archive of `length` bytes, in its order.

    Raises DamagedTarError for an archive that is damaged or cut off.
    """
    members: list[Member] = []
    long_name: bytes | None = None
    records: dict[bytes, bytes] = {}
    position = 0
    while any(header := read_at(BLOCK, position)):
        if not is_tar_header(header):
            raise DamagedTarError(f"damaged: no member's header at byte {position:,}")
        position += BLOCK
        kind, size = chr(header[156]), _number(header[124:136])
        if kind in (_LONG_NAME, _LONG_LINK, *_PAX, _PAX_FOR_ALL):
            data = _read_records(read_at, size, position)
            position += _padded(size)
            if kind == _LONG_NAME:
                long_name = data.split(b"\0")[0]
            elif kind in _PAX:
                records = _pax_records(data)
            elif kind == _PAX_FOR_ALL and {b"path", b"size"} & {*_pax_records(data)}:
                raise DamagedTarError(f"one name or size for all members at byte {position:,}")
            continue
        if b"size" in records:
            size = _decimal(records[b"size"])
        if kind in _WITHOUT_CONTENT:
            size = 0  # whatever the header declares
        raw = records.get(b"path", _name(header) if long_name is None else long_name)
        name, danger = raw.decode("utf-8", "surrogateescape"), _danger(kind, records)
        if position + size > length:
            raise DamagedTarError(
                f"cut off: member {name!a} ends at byte {position + size:,} of {length:,}"
            )
        if danger or (kind in _FILES and not name.endswith("/")):
            members.append(Member(name, position, size, danger))
        position += _padded(size)
        long_name, records = None, {}
    if not header or long_name is not None or records:
        raise DamagedTarError("cut off: the end mark after the last member is missing")
    while block := read_at(1 << 20, position):
        if block.count(0) < len(block):
            raise DamagedTarError(f"more data after its end mark, at byte {position:,}")
        position += len(block)
    return members


def _danger(kind: str, records: dict[bytes, bytes]) -> str:
    """Return the reason to refuse a member, "" for a file or folder."""
    if any(key.startswith(b"GNU.sparse.") for key in records):
        return _REFUSED["S"]
    if kind in (*_FILES, *_FOLDERS, _VOLUME_NAME):
        return ""
    return _REFUSED.get(kind, f"has type {kind!a}, expected a file or folder")


def _name(header: bytes) -> bytes:
    """Return a member's name from its header."""
    name = header[:100].split(b"\0")[0]
    if header[257:263] != b"ustar\0":  # GNU tar and the oldest tar have no prefix
        return name
    is_star = header[508:512] == b"tar\0"  # a shorter prefix, followed by times
    prefix = header[345 : 476 if is_star else 500].split(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """Return a header's number: octal digits or, for large ones, a binary number."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        if field[0] != 0x80:
            raise DamagedTarError(f"damaged: got the size {field!r}")
        return value
    digits = field.split(b"\0")[0].strip(b" ")
    if not all(b"0"[0] <= digit <= b"7"[0] for digit in digits):
        raise DamagedTarError(f"damaged: got the size {field!r}")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not (text.isdigit() and len(text) < 20):
        raise DamagedTarError(f"damaged: got the size {text[:40]!r}")
    return int(text)


def _read_records(read_at: ReadAt, size: int, position: int) -> bytes:
    """Return the long name or the attributes of the member that follows."""
    data = read_at(size, position) if size <= _LONGEST_RECORDS else b""
    if len(data) < size:
        raise DamagedTarError(f"damaged: a name or attributes of {size:,} bytes at {position:,}")
    return data


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    r"""Return the attributes of pax records, each "LENGTH KEY=VALUE\n"."""
    records = {}
    while data and data[0]:
        digits, _, _ = data.partition(b" ")
        length = _decimal(digits[:20])
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise DamagedTarError("damaged: a member's attributes cannot be read")
        records[key] = value[:-1]
        data = data[length:]
    return records


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
