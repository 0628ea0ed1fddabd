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
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")


class Arranged(NamedTuple):
    """Names in NFC, sorted; the row of each among the original names; what is left out, by kind."""

    names: list[str]
    rows: list[int]
    left_out: dict[str, int]


def junk_kind(part: str) -> str | None:
    """Return the kind of a file's or folder's own name, None if it may be data."""
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
        if kind := folders[folder] or junk_kind(file):
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


def with_slashes(name: str) -> str:
    """Return a member's name with single slashes; some Windows programs write backslashes."""
    if "\\" in name or "//" in name or "./" in name:
        name = re.sub(r"/(\.?/)+", "/", name.replace("\\", "/")).removeprefix("./")
    return name


def refuse_unsafe_names(path: Path, names: Sequence[str]) -> None:
    """Raise SourceError if a member's name is empty, points outside or occurs twice."""
    for name in names:
        # The regular expression is slow: most names are safe without it.
        if (".." in name or name[:1] == "/" or name[1:3] == ":/") and _OUTSIDE.search(name):
            raise refused(path, name, "points outside the archive")
        if not name or "\0" in name:
            raise refused(path, name, "has no valid name")
    if len(set(names)) < len(names):
        [(name, _)] = Counter(names).most_common(1)
        raise refused(path, name, "has the same name as another member")


def refused(path: Path, name: str, reason: str) -> SourceError:
    """Return the error for an unsafe member of an archive."""
    return SourceError(f"{path}: refused: member {name!r} {reason}")
