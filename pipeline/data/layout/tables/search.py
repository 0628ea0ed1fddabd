"""Finds the tables of a source that give its images classes, and joins them."""

import glob
import re
import shlex
import unicodedata
from collections.abc import Collection, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.data.archives.base import Archive
from pipeline.data.base import SPLITS, ImageError, LayoutError, SourceError
from pipeline.data.layout.folders.vocabulary import (
    is_container,
    mentions_split,
    split_of,
    splits_of,
)
from pipeline.data.layout.options import LayoutOptions, TableRule
from pipeline.data.layout.tables.formats import SUFFIXES
from pipeline.data.layout.tables.image_names import ImageNames
from pipeline.data.layout.tables.reading import Reading, TableMatch, read_one
from pipeline.data.layout.tables.table import LARGEST_TABLE, NotATableError, TableError

_HEAD = 1 << 16  # bytes of a large table that must name an image
_LARGE = 1 << 20
_MOST_CANDIDATES = 100  # of one suffix; more are annotations of single images


def find_table(archive: Archive, names: Sequence[str], options: LayoutOptions) -> TableMatch | None:
    """Return the table in a source that gives most of its images classes, None if there is none.

    `names` (n,) are the images. Raises LayoutError where tables disagree, or where images have no
    folders that could be classes and the only table that names them cannot be used.
    """
    candidates = _candidates(archive, names, options)
    if not names or not candidates:
        return None
    images = ImageNames(names)
    readings, problems = [], []
    unread: dict[str, LayoutError] = {}  # by their names without folders
    for index in candidates:
        file = archive.names[index]
        try:
            readings.append(read_one(archive, file, _load(archive, index, images), images, options))
        except NotATableError:
            continue
        except TableError as error:
            problems.append(LayoutError(f"{archive.path}: {file} {error}", error.suggestions))
            unread.setdefault(PurePosixPath(file).name, problems[-1])
        except LayoutError as error:
            problems.append(LayoutError(f"{archive.path}: {error.reason}", error.suggestions))
    flat = len({name for folder in images.folders if (name := _class_name(folder))}) < 2
    readings = [r for r in readings if 2 * r.found >= r.rows or r.covers(images) >= 0.9]
    readings = [r for r in readings if r.known or flat]
    tables = [t for t in _groups(readings, archive) if t.classes]
    if any(table.known for table in tables):
        tables = [table for table in tables if table.known]
    tables = _drop_repeated(tables, archive)
    if not tables:
        if problems and flat:
            raise next((p for p in problems if p.suggestions), problems[0])
        return None
    for part in {PurePosixPath(file).name for table in tables for file in table.file.split(",")}:
        if part in unread:  # the tables of other splits alone would leave this one out
            raise unread[part]
    merged = _merge(tables, archive, ",".join(t.file for t in tables))
    if merged.covers(images) < 0.5:
        return None
    unused = tuple(f"not used: {problem.reason}" for problem in problems)
    return replace(merged, warnings=merged.warnings + unused).finish(images)


def find_split_table(
    archive: Archive, names: Sequence[str], options: LayoutOptions
) -> TableMatch | None:
    """Return the tables in a source that give most of its images a split, None without any.

    A table has a column of splits, or is itself named as one, such as the lists train.txt and
    test.txt. Raises LayoutError if tables divide the images in different ways.
    """
    candidates = [i for i in _candidates(archive, names, options) if _may_split(archive.names[i])]
    if not candidates:
        return None
    images = ImageNames(names)
    readings = []
    for index in candidates:
        file = archive.names[index]
        with suppress(TableError, LayoutError):
            data = _load(archive, index, images)
            readings.append(read_one(archive, file, data, images, options, frozenset()))
    readings = [r for r in readings if 2 * r.found >= r.rows]
    divided = [r for r in readings if r.splits and any(r.splits)]
    if not divided:
        parts = _split_names(readings)
        divided = [r for r, part in zip(readings, parts, strict=False) if part]
    if 2 * sum(map(any, zip(*(r.named for r in divided), strict=True))) < len(names) or not divided:
        return None
    file = ",".join(reading.file for reading in divided)
    try:
        return _merge(divided, archive, file).finish(images)
    except LayoutError as error:
        options_of = (f"--split-from {shlex.quote(f'table:{f}')}" for f in _divisions(divided))
        unused = " ".join(f"--exclude {shlex.quote(glob.escape(r.file))}" for r in divided)
        raise LayoutError(error.reason, (*options_of, unused)) from None


def _may_split(file: str) -> bool:
    """Return whether a table may give splits: a text only by its name."""
    path = PurePosixPath(file)
    return path.suffix.lower() != ".txt" or mentions_split(path.stem)


def _divisions(readings: Sequence[Reading]) -> list[str]:
    """Return the tables with a column of splits, or else the tables in each folder."""
    if readings[0].splits:
        return [reading.file for reading in readings]
    folders: dict[str, list[str]] = {}
    for reading in readings:
        folders.setdefault(reading.file.rpartition("/")[0], []).append(reading.file)
    return [",".join(files) for files in folders.values() if len(files) > 1]


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
    chosen = _chosen(archive, wanted, options)
    needed = _needed(file, options)
    if len({*splits_of(PurePosixPath(member).stem for member, _ in chosen).values()}) > 1:
        needed -= {"split"}
    readings = []
    for member, data in chosen:
        try:
            readings.append(read_one(archive, member, data, images, options, needed))
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


def _class_name(folder: str) -> str | None:
    """Return the name of an innermost folder, None if it only divides or holds images."""
    name = PurePosixPath(folder).name
    return None if split_of(name) is not None or is_container(name) else name


def _needed(file: str, options: LayoutOptions) -> Set[str]:
    rules = {
        "label": options.class_from,
        "split": options.split_from,
        "writer": options.writer_from,
    }
    return {kind for kind, rule in rules.items() if rule == TableRule(file)} or {"label"}


# --- files


def _candidates(archive: Archive, names: Sequence[str], options: LayoutOptions) -> list[int]:
    """Return the members that may be tables: none that belongs to a single image."""
    options = replace(options, include=())
    members = [
        (index, PurePosixPath(name))
        for index, name in enumerate(archive.names)
        if name.lower().endswith(SUFFIXES)
    ]
    stems = {name.rpartition("/")[2].rpartition(".")[0] for name in names} if members else set()
    by_suffix: dict[str, list[int]] = {}
    for index, path in members:
        answer_sheet = "submission" in path.name.casefold()
        small = archive.sizes[index] <= LARGEST_TABLE
        if small and path.stem not in stems and not answer_sheet and options.selects(str(path)):
            by_suffix.setdefault(path.suffix.lower(), []).append(index)
    groups = (group for group in by_suffix.values() if len(group) <= _MOST_CANDIDATES)
    return sorted(index for group in groups for index in group)


def _load(archive: Archive, index: int, images: ImageNames) -> bytes:
    """Read a candidate, the whole of a large one only if its beginning names an image."""
    try:
        if archive.sizes[index] > _LARGE and ".json" not in archive.names[index].lower():
            head = archive.head(index, _HEAD).replace(b"\0", b"").decode("utf-8", "replace")
            cells = re.split(r"[\n\r\t;,| ]", head)
            if not any(images.may_name(cell.strip('"')) for cell in cells):
                raise NotATableError("names no image in its first rows")
        return bytes(archive.read(index))
    except (OSError, ImageError) as error:
        raise TableError(f"cannot be read: {error}") from None


def _chosen(archive: Archive, file: str, options: LayoutOptions) -> list[tuple[str, bytes]]:
    """Return the relative paths and contents of the tables that `file` names."""
    places = {name: i for i, name in enumerate(archive.names)}
    try:
        path = options.folder / Path(file).expanduser()
        if file not in places and path.is_file():
            if path.stat().st_size > LARGEST_TABLE:
                raise LayoutError(f"{path}: larger than {LARGEST_TABLE >> 20} MiB")
            return [(_relative(path, archive.path), path.read_bytes())]
        members = _members(places, file)
        if not members:
            parts = [_members(places, part) for part in file.split(",")]
            if not all(parts):
                raise LayoutError(f"{archive.path}: no table {file!r}, neither in it nor at {path}")
            members = list(dict.fromkeys(member for part in parts for member in part))
        for member in members:
            if archive.sizes[places[member]] > LARGEST_TABLE:
                raise LayoutError(
                    f"{archive.path}: {member} is larger than {LARGEST_TABLE >> 20} MiB"
                )
        return [(member, bytes(archive.read(places[member]))) for member in members]
    except SourceError:
        raise
    except (OSError, ImageError, RuntimeError, ValueError) as error:  # no home, or a \0 in a path
        raise LayoutError(f"{archive.path}: table {file!r} cannot be read: {error}") from None


def _members(places: Collection[str], file: str) -> list[str]:
    """Return the member `file`, else all members with this name in any folder."""
    return [file] if file in places else [n for n in places if n.rpartition("/")[2] == file]


def _relative(path: Path, root: Path) -> str:
    """Return a path relative to `root` where it lies below, else its name."""
    resolved, root = path.resolve(), root.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.name


def _groups(readings: Sequence[Reading], archive: Archive) -> list[Reading]:
    """Join tables with the same name in several folders: one for each split."""
    by_name: dict[str, list[Reading]] = {}
    for reading in readings:
        by_name.setdefault(reading.file.rpartition("/")[2], []).append(reading)
    joined = []
    for name, group in by_name.items():
        if len(group) == 1 or _overlap(group):
            joined += group
        else:
            joined.append(_merge(group, archive, name))
    return joined


def _overlap(readings: Sequence[Reading]) -> bool:
    return any(sum(named) > 1 for named in zip(*(r.named for r in readings), strict=True))


def _drop_repeated(tables: Sequence[Reading], archive: Archive) -> list[Reading]:
    """Drop tables that repeat another; raise LayoutError where two disagree on an image."""
    kept: list[Reading] = []
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


def _merge(readings: Sequence[Reading], archive: Archive, file: str) -> Reading:
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
    return Reading(
        file,
        readings[0].format,
        _join(where, "labels", [r.labels for r in readings], n),
        _join(where, "splits", [s for s in splits if s], n) if any(splits) else None,
        _join(where, "writers", [w for w in writers if w], n) if any(writers) else None,
        [any(named) for named in zip(*(r.named for r in readings), strict=True)],
        sum(r.rows for r in readings),
        sum(r.found for r in readings),
        all(r.known for r in readings),
        any(r.classes for r in readings),
        tuple(note for r in readings for note in r.notes),
        tuple(warning for r in readings for warning in r.warnings),
    )


def _split_names(readings: Sequence[Reading]) -> list[str | None]:
    """Return the split that each table's name has, as train.csv and test.csv do; [] without any."""
    stems = [PurePosixPath(reading.file).stem for reading in readings]
    meanings = splits_of(stems)
    splits = [SPLITS[meanings[stem]] if stem in meanings else None for stem in stems]
    return splits if len(set(splits)) > 1 else []


def _join(where: str, kind: str, lists: Sequence[list[str | None]], n: int) -> list[str | None]:
    joined: list[str | None] = [None] * n
    for values in lists:
        for index, value in enumerate(values):
            if value is not None and joined[index] not in (None, value):
                raise LayoutError(f"{where} have different {kind} for one image")
            joined[index] = value if value is not None else joined[index]
    return joined
