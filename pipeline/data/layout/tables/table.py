"""Rows of text with named columns, whatever file they come from."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LARGEST_TABLE = 1 << 28  # bytes
MOST_ROWS, MOST_CELLS = 10_000_000, 1 << 26
DETECTION = "has boxes of objects in images (detection), not one label for each image"

IsImage = Callable[[str], bool]  # whether a value may name an image
IsHeader = Callable[[Sequence[str]], bool]  # whether a first row has the names of columns


class TableError(ValueError):
    """A table is broken or ambiguous; the message is the reason, without the file's name.

    `suggestions` are options that settle it.
    """

    def __init__(self, reason: str, suggestions: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.suggestions = tuple(suggestions)


class NotATableError(TableError):
    """A file is no table of images with labels."""


@dataclass(frozen=True)
class Table:
    """Rows of text, all as long as `columns`; without a header these are "1" to "n"."""

    format: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def with_header(
    format_: str,
    rows: list[list[str]],
    is_header: IsHeader,
    notes: tuple[str, ...] = (),
) -> Table:
    """Take the names of columns from the first row, if it has any. Raises TableError if ragged."""
    if not rows:
        raise NotATableError("has no rows")
    if not is_header(rows[0]):
        columns = [str(i + 1) for i in range(len(rows[0]))]
        notes = (*notes, "has no header")
    else:
        columns, rows = [name.strip() for name in rows[0]], rows[1:]
        if rows and all(len(row) == len(columns) + 1 for row in rows):  # R's row names
            columns = ["", *columns]
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise TableError(f"row {number} has {len(row)} cells, expected {len(columns)}")
    named = Counter(name for name in columns if name)
    if repeated := [name for name, count in named.items() if count > 1]:
        raise TableError(f"has several columns {repeated[0]!r}")
    return Table(format_, tuple(columns), rows, notes)
