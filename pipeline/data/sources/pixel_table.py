"""Tables of pixels: CSV files with one image a row and its label in the first or last column.

Kaggle's digit recognizer, Sign Language MNIST and many copies of MNIST have this form, with and
without a header. A table is read once to check all its values; its rows are then read by their
positions in the file, so that no table is ever whole in memory.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel
from pipeline.data import base
from pipeline.data.archives import Archive
from pipeline.data.base import (
    IMAGE_SUFFIXES,
    Decoded,
    Grey,
    Ints,
    Layout,
    LayoutError,
    Pixels,
    SourceError,
)
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.luma import luma
from pipeline.data.sources.array_labels import label_classes
from pipeline.data.sources.array_source import (
    LEAST_RANGE,
    SPLIT_WORDS,
    ArraySource,
    Part,
    channel_axis,
    image_shape,
    left_out,
    several_datasets,
    sides,
    split_source,
)
from pipeline.data.sources.stored_bytes import StoredBytes, distinct_files

_TABLE = re.compile(r".*\.(csv|tsv)(\.gz)?", re.IGNORECASE)
_LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit", "letter", "character"}
_ROW_NAMES = {"", "id", "index", "unnamed: 0", "imageid", "image_id"}
_PIXEL_NAME = re.compile(r"(pixel|px|p|x|attr|f|v)?[-_. ]?[0-9]+([-_x.][0-9]+)?", re.IGNORECASE)
_WHOLE = re.compile(r'\s*"?[0-9]{1,9}(\.0*)?"?\s*')
_NUMBER = re.compile(r'\s*"?[-+]?[0-9.]+(e[-+]?[0-9]+)?"?\s*', re.IGNORECASE)
_FEWEST_COLUMNS, _SAMPLE_LINES = 17, 5  # 4 by 4 pixels and a label
_HEAD, _LONGEST_LINE = 1 << 18, 1 << 24  # bytes
_MOST_TABLES = 1000
_BOM = b"\xef\xbb\xbf"
_FINE, _NOT_A_PIXEL = 0, 1


@dataclass(frozen=True)
class TableForm:
    """The columns of a table: pixels from `first` to before `end`, the label in `label`, if any.

    `lost_row` is whether the header is a row of pixels that a program changed.
    """

    delimiter: str
    columns: int
    header: bool
    label: int | None
    first: int
    end: int
    lost_row: bool = False


class TableRows:
    """Images in the rows of a table: row i is `lengths[i]` bytes from `starts[i]`."""

    def __init__(
        self, table: "Table", shape: tuple[int, ...], *, deep: bool, transposed: bool
    ) -> None:
        self._table, self._shape, self._deep, self._transposed = table, shape, deep, transposed
        self._channels = channel_axis(shape)
        self.mode = "RGB" if self._channels is not None else "I;16" if deep else "L"
        self.note = "pixels use few of 256 grey levels: the scale is the dataset's" if deep else ""

    def image(self, row: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError if the file has changed."""
        return self.decoded(row).grey

    def decoded(self, row: int) -> Decoded:
        """Return one image, with its colours. Raises SourceError if the file has changed."""
        table, form = self._table, self._table.form
        line = table.data.pread(int(table.lengths[row]), int(table.starts[row]))
        pixels, span = np.empty(form.end - form.first, np.uint8), np.empty(2, np.int64)
        if _parse(np.frombuffer(line, np.uint8), 0, len(line), form, pixels, span)[0] != _FINE:
            raise table.data.error("was changed after it was opened")
        values = pixels.reshape(self._shape)
        if self._channels is not None:
            planes = np.moveaxis(values, self._channels, 0)
            planes = planes.swapaxes(1, 2) if self._transposed else planes
            colour = np.ascontiguousarray(np.moveaxis(planes, 0, 2))
            return Decoded(np.ascontiguousarray(luma(planes)), self.mode, (), colour)
        grey = np.ascontiguousarray(values.T if self._transposed else values)
        return Decoded(grey.astype(np.uint16) if self._deep else grey, self.mode)


@dataclass(frozen=True)
class Table:
    """A table that was read once: the places of its rows, its labels and its largest pixel."""

    index: int
    data: StoredBytes
    form: TableForm
    starts: Ints
    lengths: Ints
    labels: NDArray[Any]
    high: int


class PixelTable(ArraySource):
    """Images of 8-bit grey in rows of pixels, with a label in each row."""

    kind = "pixel table"
    expected_layout = "CSV files with a label and the pixels of an image in each row"

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, None if no CSV file has rows of pixels.

        Raises LayoutError for several datasets, SourceError for values that are no pixels.
        """
        files = [i for i, name in enumerate(archive.names) if _TABLE.fullmatch(name)]
        if not 0 < len(files) <= _MOST_TABLES:
            return None
        forms = {i: form for i in files if (form := find_form(archive, i, options))}
        if not forms:
            return None
        labelled = [i for i, form in forms.items() if form.label is not None]
        if not labelled:
            names = ", ".join(archive.names[i] for i in forms)
            raise SourceError(
                f"{archive.path}: got rows of pixels without labels in {names}, "
                f"expected a column {options.columns.get('label', 'label')}; labels in a file of "
                "their own are not read"
            )
        kept = distinct_files(archive, labelled, lambda name: _dataset(name)[1])
        datasets: dict[tuple[str, str], dict[int, list[int]]] = {}
        for index in kept:
            key, split = _dataset(archive.names[index])
            datasets.setdefault(key, {}).setdefault(split, []).append(index)
        if len(datasets) > 1 or max(map(len, next(iter(datasets.values())).values())) > 1:
            groups: list[tuple[str, str, list[str]]] = []
            for (folder, prefix), splits in datasets.items():
                own = [archive.names[i] for found in splits.values() for i in found]
                if len(own) == len(splits):
                    groups.append((folder, prefix, own))
                else:  # several tables of one split
                    groups += [(name, "", [name]) for name in own]
            raise several_datasets(archive, groups)
        [((_, prefix), files_of)] = datasets.items()
        copies, unlabelled = len(labelled) - len(kept), len(forms) - len(labelled)
        tables = {s: read_table(archive, f[0], forms[f[0]]) for s, f in sorted(files_of.items())}
        return cls._of(archive, prefix, tables, options, copies, unlabelled)

    @classmethod
    def _of(
        cls,
        archive: Archive,
        prefix: str,
        tables: Mapping[int, Table],
        options: LayoutOptions,
        copies: int,
        unlabelled: int,
    ) -> Self:
        first = next(iter(tables.values()))
        name = archive.names[first.index]
        labelled = label_classes(
            archive, name, prefix, [table.labels for table in tables.values()], options
        )
        parts, notes = [], [*labelled.notes]
        in_colour = options.shape is not None and len(options.shape) == 3
        deep = max(table.high for table in tables.values()) < LEAST_RANGE and not in_colour
        for split, table in tables.items():
            form, file = table.form, archive.names[table.index]
            shape = image_shape(form.end - form.first, options, table.data.path)
            assert shape is not None
            rows = TableRows(table, shape, deep=deep, transposed=labelled.transposed)
            part = "row" if split == base.NO_SPLIT else base.SPLITS[split]
            parts.append(Part(part, split, rows, table.labels, (table.index,)))
            height, width = sides(shape)
            notes.append(f"{prod(shape)} pixels a row of {file} are images of {height}×{width}")
            notes += [rows.note] if rows.note else []
            if form.lost_row:
                notes.append(f"the first line of {file} is a row that became a header; left out")
        if copies:
            notes.append("the archive holds files with equal contents; one of each is read")
        used = [part.indices[0] for part in parts]
        layout = Layout(
            reader=cls.kind,
            class_from=f"column {first.form.label} of the table",
            split_from=split_source(parts, "file names"),
            dataset=labelled.dataset,
            left_out=left_out(archive, used, tables_without_labels=unlabelled),
            notes=tuple(dict.fromkeys(notes)),
            warnings=labelled.warnings,
        )
        return cls(archive, parts, labelled, layout)


def find_form(archive: Archive, index: int, options: LayoutOptions) -> TableForm | None:
    """Return the form of a table by its first lines, None if its rows are not pixels."""
    data = StoredBytes(archive, index)
    head = data.head(_HEAD)
    text = head.removeprefix(_BOM).decode("utf-8", "replace")
    lines = [line for line in text.split("\n")[: _SAMPLE_LINES + 1] if line.strip()]
    if not lines:
        return None
    delimiter = max(",;\t", key=lines[0].count)
    rows = [line.split(delimiter) for line in lines]
    columns = len(rows[0])
    rows = [row for row in rows if len(row) == columns]
    if columns < _FEWEST_COLUMNS:
        return None
    odd = [i for i, field in enumerate(rows[0]) if not _WHOLE.fullmatch(field)]
    lost_row = len(odd) > 1 and all(map(_NUMBER.fullmatch, rows[0]))
    header = len(odd) > 1 or (
        len(odd) == 1 and len(rows) > 1 and _WHOLE.fullmatch(rows[1][odd[0]]) is not None
    )
    names = [field.strip().strip('"').lower() for field in rows[0]]
    body = rows[1:] if header else rows
    if any(
        row[i].strip().strip('"').lower().endswith(IMAGE_SUFFIXES) for row in body for i in (0, -1)
    ):
        return None  # a table that names image files
    if header and not lost_row:
        label, first, end = _named_columns(names, options, data)
    else:
        label, first, end = _unnamed_columns(data, delimiter, columns, body, options)
    pixel_names = sum(_PIXEL_NAME.fullmatch(name) is not None for name in names)
    surely = header and not lost_row and pixel_names > 0.9 * columns
    if header and not lost_row and 2 * pixel_names < columns and not options.shape:
        return None  # the columns are named for what they measure
    whole = all(_WHOLE.fullmatch(field) for row in body for field in row[first:end])
    if not end or not (surely or (body and whole)):
        return None
    if label is None and options.shape and prod(options.shape) != end - first:
        return None
    in_bytes = whole and all(float(f.strip(' "')) < 256 for row in body for f in row[first:end])
    surely = (surely and in_bytes) or options.shape is not None
    if image_shape(end - first, options, data.path, surely=surely) is None:
        return None
    return TableForm(delimiter, columns, header, label, first, end, lost_row)


def _named_columns(
    names: Sequence[str], options: LayoutOptions, data: StoredBytes
) -> tuple[int | None, int, int]:
    """Return the column of the label, and the pixels' first and end; no pixels if parted.

    Raises SourceError for a table of pixels without the column that the user names.
    """
    pixels = [_PIXEL_NAME.fullmatch(name) is not None for name in names]
    chosen = options.columns.get("label")
    known = _LABEL_NAMES if chosen is None else {chosen.lower()}
    labels = [i for i, name in enumerate(names) if name in known]
    if chosen is not None and not labels and 2 * sum(pixels) > len(names):
        raise data.error(f"has no column {chosen!r}; its first columns are {', '.join(names[:5])}")
    if not labels and all(pixels[1:-1]) and pixels[0] != pixels[-1]:
        side = 0 if pixels[-1] else len(names) - 1
        labels = [] if names[side] in _ROW_NAMES else [side]
    others = [i for i, n in enumerate(names) if i not in labels and n not in _ROW_NAMES]
    if not others or others[-1] - others[0] >= len(others):
        return None, 0, 0
    return (labels[0] if labels else None), others[0], others[-1] + 1


def _unnamed_columns(
    data: StoredBytes,
    delimiter: str,
    columns: int,
    body: Sequence[Sequence[str]],
    options: LayoutOptions,
) -> tuple[int | None, int, int]:
    """Return the column of the label, and the pixels' first and end, without a header.

    Without `--columns label=N`, the label is the first or the last column, whichever has several
    values; the corner of images rarely has them. Raises LayoutError if both have.
    """
    last = columns - 1
    chosen = options.columns.get("label", "")
    if chosen in ("0", f"{last}"):
        return int(chosen), int(chosen == "0"), columns - int(chosen != "0")
    if chosen:
        raise LayoutError(
            f"{data.path}: has no column {chosen!r}; without a header, the label is the first or "
            f"the last column",
            [f"--columns label={side}" for side in (0, last)],
        )
    if (prod(options.shape) if options.shape else isqrt(columns) ** 2) == columns:
        return None, 0, columns
    if not options.shape and isqrt(last) ** 2 != last:
        return None, 1, columns  # no image; the caller finds out
    inner = (field for row in body for field in row[1:-1])
    if not all(map(_WHOLE.fullmatch, inner)):
        return None, 0, 0
    values: tuple[set[bytes], set[bytes]] = set(), set()
    separator = delimiter.encode()
    for number, (_, line) in enumerate(_lines(data)):
        if line and number:  # the first may be a header
            values[0].add(line[: line.find(separator)][:64])
            values[1].add(line[line.rfind(separator) + 1 :][:64])
        if min(map(len, values)) > 1 or max(map(len, values)) > 1 << 16:
            break
    several = [len(side) > 1 for side in values]
    if several[0] == several[1] and len(body) > 1:
        raise LayoutError(
            f"{data.path}: got {columns} columns without names, the label may be the first or the "
            "last",
            [f"--columns label={side}" for side in (0, last)],
        )
    label = last if several[1] and not several[0] else 0
    return label, int(label == 0), columns - int(label == last)


def _lines(data: StoredBytes) -> Iterator[tuple[int, bytes]]:
    """Yield each line without its end, and the position of its first byte."""
    rest, offset = b"", 0
    for block in data.blocks():
        held = rest + block
        *lines, rest = held.split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise data.error(f"has a line longer than {_LONGEST_LINE:,} bytes")
        for line in lines:
            start = len(_BOM) if not offset and line.startswith(_BOM) else 0
            yield offset + start, line[start:].rstrip(b"\r ")
            offset += len(line) + 1
    if rest:
        yield offset, rest.rstrip(b"\r ")


def read_table(archive: Archive, index: int, form: TableForm) -> Table:
    """Read a table once: check every value, and find the rows and labels.

    Raises SourceError with the line and column of a value that is no whole number from 0 to 255.
    """
    data = StoredBytes(archive, index)
    starts, lengths, high = array("q"), array("q"), 0
    texts: list[bytes] = []
    pixels, span = np.empty(form.end - form.first, np.uint8), np.empty(2, np.int64)
    skip = form.header
    for number, (start, line) in enumerate(_lines(data), 1):
        if not line.strip():
            continue
        if skip:
            skip = False
            continue
        problem, column = _parse(np.frombuffer(line, np.uint8), 0, len(line), form, pixels, span)
        if problem != _FINE:
            raise data.error(f"line {number}{_reason(problem, column, line, form)}")
        high = max(high, int(pixels.max())) if high < LEAST_RANGE else high
        starts.append(start)
        lengths.append(len(line))
        texts.append(line[span[0] : span[1]])
    places, sizes = np.array(starts, np.int64), np.array(lengths, np.int64)
    return Table(index, data, form, places, sizes, _labels(texts, data), high)


def _labels(texts: Sequence[bytes], data: StoredBytes) -> NDArray[Any]:
    """Return labels as whole numbers if all are, else as strings."""
    try:
        names = [text.decode().strip().strip('"') for text in texts]
    except UnicodeDecodeError as error:
        raise data.error(f"got a label that is not UTF-8: {error}") from None
    if all(_WHOLE.fullmatch(name) for name in set(names)):
        return np.array([int(name.partition(".")[0]) for name in names], np.int64)
    return np.array(names, dtype=str)


def _reason(problem: int, column: int, line: bytes, form: TableForm) -> str:
    if problem == _NOT_A_PIXEL:
        field = line.split(form.delimiter.encode())[column].decode("utf-8", "replace").strip()[:20]
        return f", column {column + 1}: got {field!r}, expected a whole number from 0 to 255"
    return f": got {column} columns, expected {form.columns}"


def _parse(
    data: Pixels, start: int, stop: int, form: TableForm, pixels: Pixels, span: Ints
) -> tuple[int, int]:
    label = -1 if form.label is None else form.label
    return _parse_line(
        data, start, stop, ord(form.delimiter), form.columns, label, form.first, pixels, span
    )


@kernel
def _parse_line(
    data: Pixels,
    start: int,
    stop: int,
    delimiter: int,
    columns: int,
    label: int,
    first: int,
    pixels: Pixels,
    span: Ints,
) -> tuple[int, int]:
    """Parse a row of a table into `pixels` and the `span` (2,) of its label in `data`.

    Returns a problem and the column that has it, or the number of columns if it is wrong.
    """
    column, position = 0, start
    while True:
        begin, value, count, fraction, valid = position, 0, 0, False, True
        while position < stop and data[position] != delimiter:
            byte = int(data[position])
            if 48 <= byte <= 57:
                if not fraction:
                    value = min(10 * value + int(byte) - 48, 1000)
                    count += 1
                elif byte != 48:
                    valid = False
            elif byte == 46 and not fraction:
                fraction = True
            elif byte not in (32, 34, 13):  # a space, a quotation mark, the end of a line
                valid = False
            position += 1
        if column == label:
            span[0], span[1] = begin, position
        elif first <= column < first + len(pixels):
            if not valid or count == 0 or value > 255:
                return 1, column
            pixels[column - first] = value
        column += 1
        if position >= stop:
            break
        position += 1
    if column != columns:
        return 2, column
    return 0, column


def _dataset(name: str) -> tuple[tuple[str, str], int]:
    """Return the dataset and the split that a table's name gives."""
    path = PurePosixPath(name)
    stem = re.sub(r"(?i)\.(csv|tsv)(\.gz)?$", "", path.name)
    split, rest = base.NO_SPLIT, []
    for word in re.findall(r"[^\W_]+", stem.lower()):
        if word in SPLIT_WORDS:
            split = SPLIT_WORDS[word]
        else:
            rest.append(word)
    folder = "" if str(path.parent) == "." else str(path.parent)
    parents = [part for part in path.parts[:-1] if part.lower() not in (*SPLIT_WORDS, stem.lower())]
    if split == base.NO_SPLIT:
        split = SPLIT_WORDS.get(PurePosixPath(folder).name.lower(), split)
        rest = [] if split != base.NO_SPLIT else rest
    return ("/".join(parents), "-".join(rest)), split
