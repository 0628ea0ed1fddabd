"""Reads one table: what its rows give each image."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.archives.base import Archive
from pipeline.data.base import ImageError, LayoutError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.layout.tables.column_choice import is_header, read_columns
from pipeline.data.layout.tables.formats import IAM_WORDS, parse_forms, parse_table
from pipeline.data.layout.tables.image_names import ImageNames
from pipeline.data.layout.tables.table import LARGEST_TABLE, TableError


@dataclass(frozen=True)
class TableMatch:
    """What a table gives for each image; None where it does not name the image or has no value.

    `file` is the table as --class-from table:FILE takes it; `format` is its format in words.
    """

    file: str
    format: str
    labels: list[str | None]
    splits: list[str | None] | None
    writers: list[str | None] | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """Values of each image from one or several tables, with how many rows there are and match."""

    file: str
    format: str
    labels: list[str | None]
    splits: list[str | None] | None
    writers: list[str | None] | None
    named: list[bool]  # whether a row names the image
    rows: int
    found: int
    known: bool  # whether the label's column is known, by its name or by the user
    classes: bool  # whether labels differ, and not from row to row
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def images(self) -> int:
        """The number of images that rows name."""
        return sum(self.named)

    def covers(self, images: ImageNames) -> float:
        """Return the fraction of named images, of those in folders with any named image."""
        folders = [name.rpartition("/")[0] for name in images.names]
        touched = {folder for folder, named in zip(folders, self.named, strict=True) if named}
        return self.images / max(1, sum(folder in touched for folder in folders))

    def finish(self, images: ImageNames) -> TableMatch:
        """Return the result, with notes on rows and images that have no counterpart."""
        notes = list(self.notes)
        if self.found < self.rows:
            notes.append(f"{self.file}: {self.rows - self.found:,} rows name no image")
        if self.images < len(images.names):
            missing = len(images.names) - self.images
            notes.append(f"{self.file}: {missing:,} images have no row")
        empty = sum(
            label is None and named for label, named in zip(self.labels, self.named, strict=True)
        )
        if 0 < empty < self.images:
            notes.append(f"{self.file}: {empty:,} images have a row without label")
        return TableMatch(
            self.file,
            self.format,
            self.labels,
            self.splits,
            self.writers,
            tuple(notes),
            self.warnings,
        )


def read_one(
    archive: Archive,
    file: str,
    data: bytes,
    images: ImageNames,
    options: LayoutOptions,
    needed: Set[str] = frozenset({"label"}),
) -> Reading:
    """Parse a table, choose its columns and find the images of its rows."""
    table = parse_table(
        PurePosixPath(file).suffix.lower(),
        data,
        images.may_name,
        lambda cells: is_header(cells, images, options.columns),
    )
    values = read_columns(table, images, options.columns, needed)
    match = images.match(values.files, file)
    _refuse_row_numbers(values.files, match.indices, images)
    writers = values.writers
    notes = list(values.notes)
    if table.format == IAM_WORDS and writers is None:
        writers = _form_writers(archive, values.files)
    n = len(images.names)
    named = [False] * n
    for index in match.indices:
        if index >= 0:
            named[index] = True
    if match.how:
        notes.append(f"images are found by {match.how}")
    return Reading(
        file,
        table.format,
        _spread(file, "labels", values.labels or [], match.indices, images),
        values.splits and _spread(file, "splits", values.splits, match.indices, images),
        writers and _spread(file, "writers", writers, match.indices, images),
        named,
        len(table.rows),
        sum(index >= 0 for index in match.indices),
        values.known,
        _are_classes(values.labels or ()),
        (f"{file} ({table.format}): {'; '.join((*notes, *table.notes))}",),
        tuple(f"{file} {warning}" for warning in (*table.warnings, *values.warnings)),
    )


def _refuse_row_numbers(entries: Sequence[str], indices: Sequence[int], images: ImageNames) -> None:
    """Raise TableError if rows count from 0 and images from 1, or the reverse."""
    missing = [entry for entry, index in zip(entries, indices, strict=True) if index < 0]
    if len(missing) != 1 or len(entries) != len(images.names) or not missing[0].isdecimal():
        return
    stems = [PurePosixPath(name).stem for name in images.names]
    if not all(text.isdecimal() for text in (*stems, *entries)):
        return
    rows, numbers = sorted(map(int, entries)), sorted(map(int, stems))
    if abs(rows[0] - numbers[0]) == 1 and rows[-1] - rows[0] == numbers[-1] - numbers[0]:
        raise TableError(
            f"counts from {rows[0]} to {rows[-1]} and the images from {numbers[0]} to "
            f"{numbers[-1]}: row numbers are no names of images"
        )


def _are_classes(labels: Iterable[str | None]) -> bool:
    given = [label for label in labels if label is not None]
    count = len(set(given))
    return count > 1 and (count < len(given) or count <= 10)


def _spread(
    file: str,
    kind: str,
    values: Iterable[str | None],
    indices: Sequence[int],
    images: ImageNames,
) -> list[str | None]:
    """Return the value of each image. Raises LayoutError if rows contradict each other."""
    spread: list[str | None] = [None] * len(images.names)
    for value, index in zip(values, indices, strict=False):
        if index < 0 or value is None:
            continue
        if spread[index] not in (None, value):
            raise LayoutError(
                f"{file}: got the {kind} {spread[index]!r} and {value!r} for "
                f"{images.names[index]}, expected one"
            )
        spread[index] = value
    return spread


def _form_writers(archive: Archive, words: Sequence[str]) -> list[str | None] | None:
    """Return the writers of words from IAM's forms.txt: a word's form is its first two parts."""
    forms = [i for i, name in enumerate(archive.names) if name.rpartition("/")[2] == "forms.txt"]
    if len(forms) != 1 or archive.sizes[forms[0]] > LARGEST_TABLE:
        return None
    try:
        writers = parse_forms(bytes(archive.read(forms[0])))
    except (OSError, ImageError) as error:
        raise TableError(f"needs forms.txt, which cannot be read: {error}") from None
    return [writers.get("-".join(word.split("-")[:2])) for word in words]
