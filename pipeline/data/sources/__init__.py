"""Readers of raw datasets, one file or package per kind.

To add a kind, write a `Source` with a class method `detect(archive, options)` and add it to
`ARRAY_KINDS`.
"""

from dataclasses import replace
from pathlib import Path

from pipeline.data.archives import Archive, SingleFile, open_archive
from pipeline.data.base import (
    SPLITS,
    ClassSubset,
    ImageError,
    LayoutError,
    Source,
    SourceError,
)
from pipeline.data.layout.options import COLUMNS, LayoutOptions
from pipeline.data.sources.array_source import sides
from pipeline.data.sources.cifar import Cifar
from pipeline.data.sources.idx import Idx, open_idx
from pipeline.data.sources.image_files import ImageFiles
from pipeline.data.sources.matlab import Matlab
from pipeline.data.sources.numpy_arrays import NumpyArrays
from pipeline.data.sources.parquet import Parquet
from pipeline.data.sources.pixel_table import PixelTable

ArrayKind = (
    type[Cifar] | type[Idx] | type[NumpyArrays] | type[Matlab] | type[Parquet] | type[PixelTable]
)
_MOST_INSPECTED = 100  # files whose kind is named in an error
_ARCHIVE = "packed itself: unpack it"
_PICKLE = "a pickle, which can run programs: save its images and labels as .npz"
_UNREAD = (
    *((mark, _ARCHIVE) for mark in (b"PK\3\4", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh")),
    (b"\x89HDF\r\n", "an HDF5 file: save its images and labels as .npz"),
    *((bytes((0x80, protocol)), _PICKLE) for protocol in (2, 3, 4, 5)),
)
# The columns that can be chosen in arrays.
_COLUMNS: dict[type[Source], set[str]] = {
    PixelTable: {"label"},
    Parquet: {"file", "label", "writer"},
}
ARRAY_KINDS: tuple[ArrayKind, ...] = (Idx, NumpyArrays, Matlab, Parquet, PixelTable, Cifar)


def open_source(
    path: str | Path, options: LayoutOptions | None = None, min_classes: int = 2
) -> Source:
    """Return the source at `path`: a folder, an archive, or a file of arrays.

    An IDX training file includes its test pair; an IDX test file does not include its training
    pair. If a folder or archive holds several IDX datasets, FOLDER/DATASET selects one. Raises
    LayoutError for an ambiguous layout, and SourceError for a missing path, an unknown layout, or
    fewer than `min_classes` classes.
    """
    path, options = Path(path).expanduser(), options or LayoutOptions()
    source: Source | None = None if path.is_dir() else open_idx(path, options)
    if source is not None:
        _refuse_rules(path, options)
    else:
        source = _detect(open_archive(path), options, min_classes)
    _refuse_unused(source.check(min_classes), options)
    return source


def _refuse_unused(source: Source, options: LayoutOptions) -> None:
    """Raise SourceError for --columns and --shape if they have no effect on a source."""
    images, usable = isinstance(source, ImageFiles), _COLUMNS.get(type(source), set())
    if images:
        layout = source.layout
        tables = "table:" in f"{layout.class_from} {layout.split_from} {layout.writer_from}"
        usable = {*COLUMNS} if tables else set()
    unused = [f"--columns {name}=…" for name in options.columns if name not in usable]
    if options.shape and (images or source.image(0).shape != sides(options.shape)):
        unused.append("--shape")
    if unused:
        raise SourceError(
            f"{source.path}: {', '.join(unused)} would have no effect on this source of the kind "
            f"{source.kind!r}; leave it out"
        )


def _detect(archive: Archive, options: LayoutOptions, min_classes: int) -> Source:
    if not archive.names:
        raise SourceError(f"{archive.path}: is empty")
    check_patterns(archive, options)
    selected = archive.select(options.selects) if options.exclude or options.include else archive
    source: Source | None = None
    for kind in () if options.has_rules else ARRAY_KINDS:
        if source is None:  # a source without images is one, and false
            source = kind.detect(selected, options)
    arrays = "; ".join(kind.expected_layout for kind in ARRAY_KINDS)
    if source is None and not isinstance(archive, SingleFile):
        source = ImageFiles.detect(archive, options, min_classes)
    if source is not None:
        return _with_excluded(source, archive, selected)
    _refuse_rules(archive.path, options)
    _refuse_unread(archive)
    if isinstance(archive, SingleFile):
        raise SourceError(
            f"{archive.path}: expected a folder, a complete zip archive or tar archive, or {arrays}"
        )
    found = ", ".join(archive.names[:3]) + (", …" if len(archive.names) > 3 else "")
    raise SourceError(
        f"{archive.path}: expected {arrays}; {ImageFiles.expected_layout}; "
        f"got {len(archive.names)} files: {found}"
    )


def _refuse_unread(archive: Archive) -> None:
    """Raise SourceError if a file is of a kind that often holds images and is not read."""
    for i in range(min(len(archive.names), _MOST_INSPECTED)):
        head = archive.head(i, 8)
        if kind := next((kind for mark, kind in _UNREAD if head.startswith(mark)), None):
            raise SourceError(f"{archive.path}: got no images, and {archive.names[i]} is {kind}")


def _refuse_rules(path: Path, options: LayoutOptions) -> None:
    """Raise SourceError if a rule for image files is given; this source has none."""
    for name in ("class", "split", "writer"):
        if rule := getattr(options, f"{name}_from"):
            raise SourceError(
                f"{path}: --{name}-from {rule} is for image files, and there are none; leave it out"
            )


def check_patterns(archive: Archive, options: LayoutOptions) -> None:
    """Raise LayoutError for a pattern of --exclude or --include that matches no file."""
    for name, patterns in (("exclude", options.exclude), ("include", options.include)):
        for pattern in patterns:
            if not any(map(LayoutOptions(include=(pattern,)).selects, archive.names)):
                raise LayoutError(f"{archive.path}: --{name} {pattern!r} matches no file")


def _with_excluded(source: Source, archive: Archive, selected: Archive) -> Source:
    """Return the source, with the files that options exclude counted in its layout."""
    if excluded := len(archive.names) - len(selected.names):
        left_out = {**source.layout.left_out, "excluded by option": excluded}
        source.layout = replace(source.layout, left_out=left_out)
    return source


__all__ = ["SPLITS", "ClassSubset", "ImageError", "Source", "SourceError", "open_source"]
