"""Formats of tables: from the bytes of a file to rows of text.

Values stay as they are written: no number is parsed, so that "007" and "3.0" remain. The meaning of
the columns is decided elsewhere. Sources: RFC 4180 (CSV), the export formats of Label Studio, COCO
and iNaturalist, and the header of IAM's words.txt.
"""

import codecs
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LARGEST_TABLE = 1 << 28  # bytes
MOST_ROWS, MOST_CELLS = 10_000_000, 1 << 26
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
DETECTION = "has boxes of objects in images (detection), not one label for each image"
_SAMPLE = 50  # lines that decide on the delimiter
_DELIMITERS = "\t;,|"
_BOXES = ("boundingbox", "rectangle", "polygon", "keypoint", "brush", "ellipse")
_IAM_LINE = re.compile(r"(#.*\n|\s*\n)*\S+-\d+ (ok|err) -?\d+( -?\d+){4} \S+ \S")


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


def parse_table(
    suffix: str,
    data: bytes,
    is_image: Callable[[str], bool],
    is_header: Callable[[Sequence[str]], bool],
) -> Table:
    """Parse a file by its suffix and contents. Raises TableError.

    `is_image` tells whether a value may name an image, `is_header` whether a first row has names.
    """
    text, warnings = _decode(bytes(data))
    if suffix in (".json", ".jsonl", ".ndjson"):
        table = _parse_json(text, is_header)
    elif _IAM_LINE.match(text):
        table = _parse_words(text)
    else:
        table = _parse_rows(suffix, text, is_image, is_header)
    if not table.rows:
        raise NotATableError("has no rows")
    if len(table.rows) * len(table.columns) > MOST_CELLS:
        raise NotATableError(f"has more than {MOST_CELLS:,} cells")
    return Table(table.format, table.columns, table.rows, table.notes, (*table.warnings, *warnings))


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


# --- delimited text


def _parse_rows(
    suffix: str,
    text: str,
    is_image: Callable[[str], bool],
    is_header: Callable[[Sequence[str]], bool],
) -> Table:
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
    return _with_header(format_, rows, is_header, notes)


def _with_header(
    format_: str,
    rows: list[list[str]],
    is_header: Callable[[Sequence[str]], bool],
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


def _find_delimiter(lines: Sequence[str], is_image: Callable[[str], bool]) -> str | None:
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


def _split_at_spaces(lines: Sequence[str], is_image: Callable[[str], bool]) -> list[list[str]]:
    """Split "NAME LABEL" at the last space or, where names do not fit images then, the first."""
    last = [line.rsplit(maxsplit=1) for line in lines]
    first = [line.split(maxsplit=1) for line in lines]
    if any(len(row) != 2 for row in last):
        raise NotATableError("has no two columns")
    hits = [sum(is_image(row[0]) for row in rows[:_SAMPLE]) for rows in (last, first)]
    return first if hits[1] > hits[0] else last


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
    return Table("IAM words.txt", ("id", "transcription"), rows, notes)


def parse_forms(data: bytes) -> dict[str, str]:
    """Parse IAM's forms.txt: writers by the name of the form."""
    lines = (line.split() for line in _decode(data)[0].split("\n") if not line.startswith("#"))
    return {cells[0]: cells[1] for cells in lines if len(cells) > 1}


# --- JSON


def _parse_json(text: str, is_header: Callable[[Sequence[str]], bool]) -> Table:
    try:
        value, format_ = _load(text), "JSON"
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2:
            raise
        try:
            value, format_ = [_load(line) for line in lines], "JSON lines"
        except ValueError:
            value = _load(text)  # raises the reason for the whole
    if isinstance(value, dict):
        value = _unwrap(value)
    if isinstance(value, dict):
        return _parse_coco(value)
    if len(value) > MOST_ROWS:
        raise NotATableError(f"has more than {MOST_ROWS:,} rows")
    if value and all(isinstance(row, list) for row in value):
        return _with_header(format_, [list(map(_cell, row)) for row in value], is_header)
    if not all(isinstance(row, dict) for row in value):
        raise NotATableError("is no list of objects")
    if any(isinstance(row.get("annotations", row.get("completions")), list) for row in value):
        tasks = [row for row in value if isinstance(row.get("data"), dict)]
        if tasks:
            return _parse_tasks(tasks)
    return _of_objects(format_, value)


def _load(text: str) -> Any:
    """Parse JSON with numbers as their text and NaN as "". Raises NotATableError."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=str,
            parse_float=str,
            parse_constant=lambda _: "",
        )
    except RecursionError:
        raise NotATableError("is JSON that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotATableError(f"is not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise TableError(f"has the key {names.most_common(1)[0][0]!r} twice in one JSON object")
    return values


def _unwrap(value: dict[str, Any]) -> list[Any] | dict[str, Any]:
    """Return the rows in an object: {name: label}, {column: {row: cell}}, or one list in it."""
    if isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list):
        return value
    if value and all(isinstance(cell, str) for cell in value.values()):
        return [{"file": name, "label": label} for name, label in value.items()]
    columns = list(value.values())
    if columns and all(isinstance(column, dict) for column in columns):
        rows = columns[0].keys()
        if all(column.keys() == rows for column in columns):
            if any(isinstance(cell, dict | list) for c in columns for cell in c.values()):
                raise NotATableError("is no list of objects")
            return [{name: value[name][key] for name in value} for key in columns[0]]
    lists = [entry for entry in columns if isinstance(entry, list)]
    if len(lists) == 1:
        return lists[0]
    raise NotATableError("is no list of objects")


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if value is None or value == []:
        return ""
    return json.dumps(value, ensure_ascii=False)


def _of_objects(format_: str, objects: Iterable[Mapping[str, Any]]) -> Table:
    objects = list(objects)
    columns = tuple(dict.fromkeys(itertools.chain.from_iterable(objects)))
    if len(objects) * len(columns) > MOST_CELLS:
        raise NotATableError(f"has more than {MOST_CELLS:,} cells")
    return Table(format_, columns, [[_cell(one.get(name)) for name in columns] for one in objects])


def _parse_tasks(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """Parse Label Studio's tasks: one row for each annotation that was not cancelled."""
    rows: list[dict[str, Any]] = []
    cancelled, boxes, chosen = 0, False, False
    for task in tasks:
        known = {**task["data"], "file_upload": task.get("file_upload")}
        found = task.get("annotations", task.get("completions"))
        annotations = [a for a in found if isinstance(a, dict)] if isinstance(found, list) else []
        valid = [a for a in annotations if not a.get("was_cancelled")]
        cancelled += len(annotations) - len(valid)
        for annotation in valid or [{}]:
            results = annotation.get("result")
            choices, has_boxes = _choices(results if isinstance(results, list) else [])
            boxes, chosen = boxes or has_boxes, chosen or bool(choices)
            rows.append({**choices, **known})
    table = _of_objects("Label Studio JSON", rows)
    if boxes and not chosen:
        raise TableError(DETECTION)
    notes = (f"{cancelled:,} cancelled annotations are left out",) if cancelled else ()
    return Table(table.format, table.columns, table.rows, notes)


def _choices(results: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """Return an annotation's choices by the name of their control, and whether it has boxes."""
    choices: dict[str, Any] = {}
    boxes = False
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            continue
        kind, name = str(result.get("type")), str(result.get("from_name") or "choice")
        if kind in ("choices", "textarea"):
            value = result["value"].get("choices", result["value"].get("text"))
            earlier = choices.get(name, [])
            choices[name] = [*earlier, *(value if isinstance(value, list) else [value])]
        boxes |= kind.startswith(_BOXES)
    return choices, boxes


def _parse_coco(value: Mapping[str, Any]) -> Table:
    """Parse COCO's images, annotations and categories, if annotations are of whole images."""
    parts = [value["images"], value["annotations"], value.get("categories", [])]
    if not all(isinstance(p, list) and all(isinstance(one, dict) for one in p) for p in parts):
        raise NotATableError("is no list of objects")
    images, annotations, categories = parts
    if any(one.get("bbox") or one.get("segmentation") for one in annotations):
        raise TableError(DETECTION)
    names = {_cell(one.get("id")): _cell(one.get("name")) for one in categories}
    labels: dict[str, list[str]] = {}
    for one in annotations:
        category = _cell(one.get("category_id"))
        labels.setdefault(_cell(one.get("image_id")), []).append(names.get(category, category))
    rows = [
        [_cell(one.get("file_name")), label]
        for one in images
        for label in labels.get(_cell(one.get("id")), [""])
    ]
    return Table("COCO JSON", ("file_name", "category"), rows)
