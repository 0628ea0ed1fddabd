"""Tables in lines of text: CSV and its relatives, and lists with spaces. Source: RFC 4180."""

import csv
import re
from collections import Counter
from collections.abc import Sequence

from pipeline.data.layout.tables.table import (
    MOST_ROWS,
    IsHeader,
    IsImage,
    NotATableError,
    Table,
    TableError,
    with_header,
)

_SAMPLE = 50  # lines that decide on the delimiter
_DELIMITERS = "\t;,|"


def parse_rows(
    suffix: str,
    text: str,
    is_image: IsImage,
    is_header: IsHeader,
) -> Table:
    """Parse a text by the delimiter that fits it. Raises TableError."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > MOST_ROWS:
        raise NotATableError(f"has more than {MOST_ROWS:,} rows")
    if lines and re.fullmatch(r"sep=.", lines[0]):  # Excel's
        lines = lines[1:]
    delimiter = _find_delimiter(lines[:_SAMPLE], is_image)
    if delimiter:
        rows, notes = _split_lines(lines, delimiter)
        names = {"\t": "TSV", ",": "CSV"}
        format_ = names.get(delimiter, f"CSV with {delimiter}")
    elif suffix == ".txt":
        rows, notes, format_ = _split_at_spaces(lines, is_image), (), "text list"
    else:
        raise NotATableError("has no delimiter that gives its lines two columns")
    return with_header(format_, rows, is_header, notes)


def _find_delimiter(lines: Sequence[str], is_image: IsImage) -> str | None:
    """Return the delimiter whose cells name images and that gives lines equally many cells."""
    scores = []
    for delimiter in _DELIMITERS:
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        width, count = max(
            Counter(map(len, rows)).items(), key=lambda item: item[::-1], default=(1, 0)
        )
        if width > 1:
            images = any(is_image(cell) for row in rows for cell in row)
            scores.append((images, count / len(rows), delimiter))
    return max(scores, key=lambda score: score[:2])[2] if scores else None


def _split_lines(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], tuple[str, ...]]:
    """Split lines into cells.

    Naive programs write the label " without escaping it; it would then swallow lines. Where quotes
    do not pair or a cell spans lines, quotes are characters if all rows are equally long that way.
    """
    spaced = delimiter != "\t" and f"{delimiter} " in lines[0]
    problem = "a quoted cell spans lines"
    try:
        ended = (f"{line}\n" for line in lines)
        rows = list(csv.reader(ended, delimiter=delimiter, strict=True, skipinitialspace=spaced))
        if not any("\n" in cell for row in rows for cell in row):
            return rows, ()
    except csv.Error as error:
        rows, problem = [], str(error)
    try:
        literal = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    except csv.Error as error:
        raise TableError(f"cannot be read as CSV: {error}") from None
    quoted = any(len(c) > 1 and c[0] == c[-1] == '"' for row in literal for c in row)
    if not quoted and len({len(row) for row in literal}) == 1:
        return literal, ("quotes do not pair and are read as characters",)
    if not rows:
        raise TableError(f"cannot be read as CSV: {problem}")
    return rows, ()


def _split_at_spaces(lines: Sequence[str], is_image: IsImage) -> list[list[str]]:
    """Split "NAME LABEL" at the last space or, where names do not fit images then, the first."""
    last = [line.rsplit(maxsplit=1) for line in lines]
    first = [line.split(maxsplit=1) for line in lines]
    if any(len(row) != 2 for row in last):
        raise NotATableError("has no two columns")
    hits = [sum(is_image(row[0]) for row in rows[:_SAMPLE]) for rows in (last, first)]
    return first if hits[1] > hits[0] else last
