"""Formats of tables: from the bytes of a file to rows of text.

Values stay as they are written: no number is parsed, so that "007" and "3.0" remain. The meaning of
the columns is decided elsewhere.
"""

import codecs
import re
from dataclasses import replace

from pipeline.data.layout.tables.delimited import parse_rows
from pipeline.data.layout.tables.json_tables import parse_json
from pipeline.data.layout.tables.table import (
    MOST_CELLS,
    IsHeader,
    IsImage,
    NotATableError,
    Table,
    TableError,
)

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
IAM_WORDS = "IAM words.txt"  # a format; the folders of its images are forms, never classes
_IAM_LINE = re.compile(r"(#.*\n|[^\S\n]*\n)*\S+-\d+ (ok|err) -?\d+( -?\d+){4} \S+ \S")


def parse_table(
    suffix: str,
    data: bytes,
    is_image: IsImage,
    is_header: IsHeader,
) -> Table:
    """Parse a file by its suffix and contents. Raises TableError."""
    text, warnings = _decode(bytes(data))
    if suffix in (".json", ".jsonl", ".ndjson"):
        table = parse_json(text, is_header)
    elif _IAM_LINE.match(text):
        table = _parse_words(text)
    else:
        table = parse_rows(suffix, text, is_image, is_header)
    if not table.rows:
        raise NotATableError("has no rows")
    if len(table.rows) * len(table.columns) > MOST_CELLS:
        raise NotATableError(f"has more than {MOST_CELLS:,} cells")
    return replace(table, warnings=(*table.warnings, *warnings))


def _decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text with Unix line ends, and warnings."""
    warnings: tuple[str, ...] = ()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data:
        raise NotATableError("is a binary file")
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
        warnings = ("is not valid UTF-8 and is read as Latin-1",)
    return text.replace("\r\n", "\n").replace("\r", "\n"), warnings


def _parse_words(text: str) -> Table:
    """Parse IAM's words.txt: id, ok or err, grey level, box, grammatical tag, transcription."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    rows, bad = [], 0
    for number, line in enumerate(lines, 1):
        cells = line.split(" ", 8)
        if len(cells) != 9:
            raise TableError(f"row {number} has {len(cells)} cells, expected 9")
        bad += cells[1] == "err"
        rows.append([cells[0], cells[8] if cells[1] == "ok" else ""])
    notes = (f"{bad:,} words whose segmentation is marked err have no label",) if bad else ()
    return Table(IAM_WORDS, ("id", "transcription"), rows, notes)


def parse_forms(data: bytes) -> dict[str, str]:
    """Parse IAM's forms.txt: writers by the name of the form."""
    lines = (line.split() for line in _decode(data)[0].split("\n") if not line.startswith("#"))
    return {cells[0]: cells[1] for cells in lines if len(cells) > 1}
