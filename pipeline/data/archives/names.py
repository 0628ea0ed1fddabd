"""Names of files in archives: one spelling, safe, sorted, without what systems leave behind.

A name is relative, has slashes, and is in Unicode's composed form (NFC): macOS and some programs
write ä as two characters, and equal names must compare equal.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.data.base import SourceError

# Files and folders that are no data, in lower case, and the kind that they are counted as. Other
# names that begin with a dot are "._*" (AppleDouble: macOS's attributes of a file) or
# "hidden files".
JUNK = {
    "__macosx": "__MACOSX",
    ".ipynb_checkpoints": ".ipynb_checkpoints",
    ".ds_store": ".DS_Store",
    "thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    "@eadir": "@eaDir",  # thumbnails of a Synology NAS: 0/@eaDir/0.png/x.png
    "@__thumb": "@__thumb",  # thumbnails of a QNAP NAS
    "#recycle": "#recycle",
    "$recycle.bin": "$RECYCLE.BIN",
    "system volume information": "System Volume Information",
}
APPLE_DOUBLE, HIDDEN = "._*", "hidden files"
# Most names begin otherwise and need no further comparison.
_JUNK_BEGINS = frozenset(f".{''.join(name[0] + name[0].upper() for name in JUNK)}")
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")


class Arranged(NamedTuple):
    """Names in NFC, sorted; the row of each among the original names; what is left out, by kind."""

    names: list[str]
    rows: list[int]
    left_out: dict[str, int]


def junk_kind(part: str) -> str | None:
    """Return the kind of a file's or folder's own name, None if it may be data."""
    if part[:1] not in _JUNK_BEGINS:
        return None
    kind = JUNK.get(part.lower())
    if kind is None and part.startswith("."):
        return APPLE_DOUBLE if part.startswith("._") else HIDDEN
    return kind


def arrange(names: Sequence[str]) -> Arranged:
    """Sort names, without junk. Names that are equal in NFC stay apart, in their original order."""
    folders: dict[str, str | None] = {"": None}
    left_out: Counter[str] = Counter()
    rows: list[int] = []
    for row, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        if folder not in folders:
            folders[folder] = next(filter(None, map(junk_kind, folder.split("/"))), None)
        kind = folders[folder] or (junk_kind(file) if file[:1] in _JUNK_BEGINS else None)
        if kind:
            left_out[kind] += 1
        else:
            rows.append(row)
    rows.sort(key=names.__getitem__)
    kept = [names[row] for row in rows]
    if not "".join(kept).isascii():
        composed = [unicodedata.normalize("NFC", name) for name in kept]
        order = sorted(range(len(kept)), key=composed.__getitem__)
        kept, rows = [composed[place] for place in order], [rows[place] for place in order]
    return Arranged(kept, rows, dict(sorted(left_out.items())))


def empty_folders(folders: Sequence[str], names: Sequence[str], limit: int = 4) -> tuple[str, ...]:
    """Return a sentence about folders without files, if there are any: a class may be missing.

    `names` are the result of `arrange`. Of nested folders without files, the innermost counts.
    """
    full = set()
    for name in (*names, *folders):
        while (name := name.rpartition("/")[0]) and name not in full:
            full.add(name)
    found = sorted(
        one for one in folders if one not in full and not any(map(junk_kind, one.split("/")))
    )
    if not found:
        return ()
    more = f" and {len(found) - limit:,} more" if len(found) > limit else ""
    return (f"folders without files: {', '.join(found[:limit])}{more}",)


def with_slashes(names: list[str]) -> list[str]:
    """Return members' names with single slashes; some Windows programs write backslashes."""
    text = "\n".join(names)  # one search is faster than one for each name
    if not ("\\" in text or "//" in text or "./" in text):
        return names
    tidy = (re.sub(r"/(\.?/)+", "/", name.replace("\\", "/")) for name in names)
    return [name.removeprefix("./") for name in tidy]


def refuse_unsafe_names(path: Path, names: Sequence[str]) -> None:
    """Raise SourceError if a member's name is empty, points outside or occurs twice."""
    text = "\n".join(("", *names))
    if ".." in text or "\n/" in text or ":/" in text:
        for name in names:
            if _OUTSIDE.search(name):
                raise refused(path, name, "points outside the archive")
    distinct = set(names)
    if "\0" in text or "" in distinct:
        name = next(name for name in names if not name or "\0" in name)
        raise refused(path, name, "has no valid name")
    if len(distinct) < len(names):
        [(name, _)] = Counter(names).most_common(1)
        raise refused(path, name, "has the same name as another member")


def refused(path: Path, name: str, reason: str) -> SourceError:
    """Return the error for an unsafe member of an archive."""
    return SourceError(f"{path}: refused: member {name!r} {reason}")
