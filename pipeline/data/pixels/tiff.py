"""Which images of a TIFF file are pages.

A TIFF file is a chain of directories, each with one image. Reduced copies and transparency masks
have a directory of their own; further ones hang below a page (SubIFDs) and not in the chain.
"""

import struct
from contextlib import suppress
from typing import NamedTuple

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SUB_IFDS = 254, 255, 330
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2  # a value of SubfileType
_SHORT, _LONG = 3, 4  # types of values


class _Directory(NamedTuple):
    is_page: bool
    has_children: bool


def tiff_pages(data: bytes | bytearray) -> tuple[int, ...]:
    """Return the frames of a TIFF file that are pages, at least (0,); Pillow numbers them alike.

    A damaged chain ends where it is damaged: decoding reports the reason.
    """
    pages = tuple(i for i, one in enumerate(_directories(data)) if one.is_page)
    return pages or (0,)


def is_preview(data: bytes | bytearray, frame: int) -> bool:
    """Return whether a frame is a reduced copy whose original is not in the chain, as in DNG."""
    directories = _directories(data)
    return (
        frame < len(directories)
        and not directories[frame].is_page
        and directories[frame].has_children
    )


def _directories(data: bytes | bytearray) -> list[_Directory]:
    """Return the directories of the chain, up to the first that is damaged."""
    order = "<" if data[:2] == b"II" else ">"
    found: list[_Directory] = []
    with suppress(struct.error):  # an offset beyond the end of the file
        big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        count, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
        (position,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        seen: set[int] = set()
        while position and position not in seen:
            seen.add(position)
            (entries,) = struct.unpack_from(order + count, data, position)
            start = position + struct.calcsize(count)
            tags = _tags(data, order, start, entries, entry)
            kind = tags.get(_NEW_SUBFILE_TYPE, 0)
            reduced = kind & _REDUCED or tags.get(_SUBFILE_TYPE) == _OLD_REDUCED
            found.append(_Directory(not (reduced or kind & _MASK), _SUB_IFDS in tags))
            (position,) = struct.unpack_from(order + offset, data, start + entries * entry)
    return found


def _tags(
    data: bytes | bytearray, order: str, start: int, entries: int, entry: int
) -> dict[int, int]:
    """Return the directory's tags that matter here, with their first value where it is a number."""
    tags: dict[int, int] = {}
    for at in range(start, min(start + entries * entry, len(data)), entry):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SUB_IFDS):
            code = {_SHORT: "H", _LONG: "I"}.get(kind, "I")
            (tags[tag],) = struct.unpack_from(order + code, data, at + (12 if entry == 20 else 8))
    return tags
