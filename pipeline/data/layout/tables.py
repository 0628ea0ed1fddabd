"""Labels, splits and writers of image files from tables: members of a source, or a user's file."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.data.archives.base import Archive
from pipeline.data.base import ImageError, LayoutError, SourceError
from pipeline.data.layout.image_names import ImageNames
from pipeline.data.layout.options import LayoutOptions, TableRule
from pipeline.data.layout.table_columns import is_header, read_columns
from pipeline.data.layout.table_formats import (
    LARGEST_TABLE,
    SUFFIXES,
    NotATableError,
    TableError,
    parse_forms,
    parse_table,
)

_HEAD = 1 << 16  # bytes of a large table that must name an image
_LARGE = 1 << 20
_MOST_CANDIDATES = 100  # of one suffix; more are annotations of single images
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
# Folders that only divide or hold images and cannot be classes.
_PLAIN_FOLDERS = _SPLITS | {"", "image", "images", "img", "imgs", "data", "words", "png", "jpg"}


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


def find_table(archive: Archive, names: Sequence[str], options: LayoutOptions) -> TableMatch | None:
    """Return the table in a source that gives most of its images classes, None if there is none.

    `names` (n,) are the images. Raises LayoutError where tables disagree, or where images have no
    folders that could be classes and the only table that names them cannot be used.
    """
    images = ImageNames(names)
    readings, problems = [], []
    for index in _candidates(archive, images, options) if names else ():
        file = archive.names[index]
        try:
            readings.append(_read(archive, file, _load(archive, index, images), images, options))
        except NotATableError:
            continue
        except TableError as error:
            problems.append(LayoutError(f"{archive.path}: {file} {error}", error.suggestions))
        except LayoutError as error:
            problems.append(LayoutError(f"{archive.path}: {error.reason}", error.suggestions))
    flat = all(PurePosixPath(f).name.casefold() in _PLAIN_FOLDERS for f in images.folders)
    readings = [r for r in readings if 2 * r.found >= r.rows or r.covers(images) >= 0.9]
    readings = [r for r in readings if r.known or flat]
    tables = [t for t in _groups(readings, archive) if t.has_classes()]
    if any(table.known for table in tables):
        tables = [table for table in tables if table.known]
    tables = _drop_repeated(tables, archive)
    if not tables:
        if problems and flat:
            raise problems[0]
        return None
    merged = _merge(tables, archive, ",".join(t.file for t in tables))
    return merged.finish(images) if merged.covers(images) >= 0.5 else None


def read_table(
    file: str, archive: Archive, names: Sequence[str], options: LayoutOptions
) -> TableMatch:
    """Read a table of the user's choice: a member, else a file relative to `options.folder`.

    A name without folders is also that of all members with it (one for each split), and several
    members can be joined by commas. Raises LayoutError if it names less than half of the images of
    their folders and less than half of its rows name images.
    """
    images = ImageNames(names)
    wanted = unicodedata.normalize("NFC", file)
    needed = _needed(file, options)
    readings = []
    for member, data in _chosen(archive, wanted, options):
        try:
            readings.append(_read(archive, member, data, images, options, needed))
        except TableError as error:
            raise LayoutError(f"{archive.path}: {member} {error}", error.suggestions) from None
        except LayoutError as error:
            raise LayoutError(f"{archive.path}: {error.reason}", error.suggestions) from None
    merged = _merge(readings, archive, wanted)
    if 2 * merged.found < merged.rows and merged.covers(images) < 0.5:
        raise LayoutError(
            f"{archive.path}: {file} names {merged.images:,} of {len(names):,} images, and "
            f"{merged.found:,} of its {merged.rows:,} rows name an image; expected at least half"
        )
    if "label" in needed and not any(merged.labels):
        raise LayoutError(f"{archive.path}: {file} has no label for any image")
    return merged.finish(images)


def _needed(file: str, options: LayoutOptions) -> Set[str]:
    rules = {
        "label": options.class_from,
        "split": options.split_from,
        "writer": options.writer_from,
    }
    return {kind for kind, rule in rules.items() if rule == TableRule(file)} or {"label"}


# --- files


def _candidates(archive: Archive, images: ImageNames, options: LayoutOptions) -> list[int]:
    """Return the members that may be tables: none that belongs to a single image."""
    options = replace(options, include=())
    stems = {name.rpartition(".")[0] for name in images.names}
    by_suffix: dict[str, list[int]] = {}
    for index, name in enumerate(archive.names):
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix.lower()}" in SUFFIXES and archive.sizes[index] <= LARGEST_TABLE:
            answer_sheet = "submission" in PurePosixPath(name).name.casefold()
            if stem not in stems and not answer_sheet and options.selects(name):
                by_suffix.setdefault(suffix.lower(), []).append(index)
    groups = (group for group in by_suffix.values() if len(group) <= _MOST_CANDIDATES)
    return sorted(index for group in groups for index in group)


def _load(archive: Archive, index: int, images: ImageNames) -> bytes:
    """Read a candidate, the whole of a large one only if its beginning names an image."""
    try:
        if archive.sizes[index] > _LARGE and ".json" not in archive.names[index].lower():
            with archive.open(index) as file:
                head = file.read(_HEAD).decode("utf-8", "replace")
            cells = re.split(r"[\n\r\t;,| ]", head)
            if not any(images.may_name(cell.strip('"')) for cell in cells):
                raise NotATableError("names no image in its first rows")
        return bytes(archive.read(index))
    except (OSError, ImageError) as error:
        raise TableError(f"cannot be read: {error}") from None


def _chosen(archive: Archive, file: str, options: LayoutOptions) -> list[tuple[str, bytes]]:
    """Return the relative paths and contents of the tables that `file` names."""
    places = {unicodedata.normalize("NFC", name): i for i, name in enumerate(archive.names)}
    path = options.folder / Path(file).expanduser()
    same = [name for name in places if name.rpartition("/")[2] == file]
    parts = file.split(",")
    try:
        if file in places:
            members = [file]
        elif path.is_file():
            if path.stat().st_size > LARGEST_TABLE:
                raise LayoutError(f"{path}: larger than {LARGEST_TABLE >> 20} MiB")
            return [(_relative(path, archive.path), path.read_bytes())]
        elif same:
            members = same
        elif all(part in places for part in parts):
            members = parts
        else:
            raise LayoutError(f"{archive.path}: no table {file!r}, neither in it nor at {path}")
        for member in members:
            if archive.sizes[places[member]] > LARGEST_TABLE:
                raise LayoutError(
                    f"{archive.path}: {member} is larger than {LARGEST_TABLE >> 20} MiB"
                )
        return [(member, bytes(archive.read(places[member]))) for member in members]
    except (OSError, ImageError) as error:
        raise LayoutError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise LayoutError(f"{file!a} is no file name: {error}") from None


def _relative(path: Path, root: Path) -> str:
    """Return a path relative to `root` where it lies below, else its name."""
    resolved, root = path.resolve(), root.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.name


# --- one table


@dataclass(frozen=True)
class _Reading:
    """Values of each image from one or several tables, with how many rows there are and match."""

    file: str
    format: str
    columns: tuple[str, ...]
    labels: list[str | None]
    splits: list[str | None] | None
    writers: list[str | None] | None
    named: list[bool]  # whether a row names the image
    rows: int
    found: int
    known: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def images(self) -> int:
        return sum(self.named)

    def covers(self, images: ImageNames) -> float:
        """Return the fraction of named images, of those in folders with any named image."""
        folders = [name.rpartition("/")[0] for name in images.names]
        touched = {folder for folder, named in zip(folders, self.named, strict=True) if named}
        return self.images / max(1, sum(folder in touched for folder in folders))

    def has_classes(self) -> bool:
        """Return whether labels differ, and not from image to image."""
        labels = [label for label in self.labels if label is not None]
        count = len(set(labels))
        return count > 1 and (count < len(labels) or count <= 10)

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


def _read(
    archive: Archive,
    file: str,
    data: bytes,
    images: ImageNames,
    options: LayoutOptions,
    needed: Set[str] = frozenset({"label"}),
) -> _Reading:
    """Parse a table, choose its columns and find the images of its rows."""
    table = parse_table(
        PurePosixPath(file).suffix.lower(),
        data,
        images.may_name,
        lambda cells: is_header(cells, images, options.columns),
    )
    values = read_columns(table, images, options.columns, needed)
    match = images.match(values.files, file)
    writers = values.writers
    notes = list(values.notes)
    if table.format == "IAM words.txt" and writers is None:
        writers = _form_writers(archive, values.files)
    n = len(images.names)
    named = [False] * n
    for index in match.indices:
        if index >= 0:
            named[index] = True
    if match.how:
        notes.append(f"images are found by {match.how}")
    return _Reading(
        file,
        table.format,
        table.columns,
        _spread(file, "labels", values.labels or [], match.indices, images),
        values.splits and _spread(file, "splits", values.splits, match.indices, images),
        writers and _spread(file, "writers", writers, match.indices, images),
        named,
        len(table.rows),
        sum(index >= 0 for index in match.indices),
        values.known,
        (f"{file} ({table.format}): {'; '.join((*notes, *table.notes))}",),
        tuple(f"{file} {warning}" for warning in (*table.warnings, *values.warnings)),
    )


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


# --- several tables


def _groups(readings: Sequence[_Reading], archive: Archive) -> list[_Reading]:
    """Join tables with the same name in several folders: one for each split."""
    by_name: dict[str, list[_Reading]] = {}
    for reading in readings:
        by_name.setdefault(reading.file.rpartition("/")[2], []).append(reading)
    joined = []
    for name, group in by_name.items():
        if len(group) == 1 or _overlap(group):
            joined += group
        else:
            joined.append(_merge(group, archive, name))
    return joined


def _overlap(readings: Sequence[_Reading]) -> bool:
    return any(sum(named) > 1 for named in zip(*(r.named for r in readings), strict=True))


def _drop_repeated(tables: Sequence[_Reading], archive: Archive) -> list[_Reading]:
    """Drop tables that repeat another; raise LayoutError where two disagree on an image."""
    kept: list[_Reading] = []
    for table in sorted(tables, key=lambda t: (-t.images, t.file)):
        news = True
        for other in kept:
            both = zip(table.labels, other.labels, strict=True)
            if any(a != b and None not in (a, b) for a, b in both):
                raise LayoutError(
                    f"{archive.path}: {other.file} and {table.file} give images different labels",
                    [f"--class-from {shlex.quote(f'table:{t.file}')}" for t in (other, table)],
                )
            news &= any(t and not o for t, o in zip(table.named, other.named, strict=True))
        if news:
            kept.append(table)
    return sorted(kept, key=lambda t: t.file)


def _merge(readings: Sequence[_Reading], archive: Archive, file: str) -> _Reading:
    """Join tables of different images. Raises LayoutError if they disagree."""
    if len(readings) == 1:
        return replace(readings[0], file=file)
    n = len(readings[0].labels)
    splits = [r.splits for r in readings]
    if not any(splits) and (parts := _split_names(readings)):
        splits = [
            [part if named else None for named in r.named]
            for part, r in zip(parts, readings, strict=True)
        ]
    writers = [r.writers for r in readings]
    where = f"{archive.path}: {file}"
    return _Reading(
        file,
        readings[0].format,
        readings[0].columns,
        _join(where, "labels", [r.labels for r in readings], n),
        _join(where, "splits", [s for s in splits if s], n) if any(splits) else None,
        _join(where, "writers", [w for w in writers if w], n) if any(writers) else None,
        [any(named) for named in zip(*(r.named for r in readings), strict=True)],
        sum(r.rows for r in readings),
        sum(r.found for r in readings),
        all(r.known for r in readings),
        tuple(note for r in readings for note in r.notes),
        tuple(warning for r in readings for warning in r.warnings),
    )


def _split_names(readings: Sequence[_Reading]) -> list[str]:
    """Return the split that each table's name has, if they differ, as train.csv and test.csv."""
    parts = []
    for reading in readings:
        words = re.split(r"[\W_]+", PurePosixPath(reading.file).stem.casefold())
        parts += sorted(_SPLITS.intersection(words))[:1]
    return parts if len(parts) == len(set(parts)) == len(readings) else []


def _join(where: str, kind: str, lists: Sequence[list[str | None]], n: int) -> list[str | None]:
    joined: list[str | None] = [None] * n
    for values in lists:
        for index, value in enumerate(values):
            if value is not None and joined[index] not in (None, value):
                raise LayoutError(f"{where} have different {kind} for one image")
            joined[index] = value if value is not None else joined[index]
    return joined
