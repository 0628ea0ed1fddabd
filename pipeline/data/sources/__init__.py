"""Readers of raw datasets, one file per kind.

To add a kind, write a `Source` with a class method `detect(archive)` and add it to `SOURCES`.
"""

import zipfile
from pathlib import Path

from pipeline.data.archives.base import Folder, ZipArchive
from pipeline.data.base import SPLITS, ClassSubset, ImageError, Source, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.idx import Idx, open_idx
from pipeline.data.sources.image_files import ImageFolder
from pipeline.data.sources.midas import Midas

SOURCES: tuple[type[ImageFolder] | type[Midas] | type[Idx], ...] = (Idx, Midas, ImageFolder)


def open_source(
    path: str | Path, options: LayoutOptions | None = None, min_classes: int = 2
) -> Source:
    """Return the source at `path`: a folder, a zip archive or an IDX file.

    An IDX training file includes its test pair; an IDX test file does not include its training
    pair. If a folder or archive holds several IDX datasets, FOLDER/DATASET selects one. Raises
    SourceError for a missing path, an unknown layout, or fewer than `min_classes` classes.
    """
    del options
    path = Path(path)
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return _detect(path).check(min_classes)
    if source := open_idx(path):
        return source.check(min_classes)
    if path.exists():
        raise SourceError(
            f"{path}: expected a folder, a complete zip archive, or a file named "
            "like train-images-idx3-ubyte[.gz]; unpack other archives first"
        )
    raise SourceError(f"{path}: no such file or folder")


def _detect(path: Path) -> Source:
    archive = Folder(path) if path.is_dir() else ZipArchive(path)
    if not archive.names:
        raise SourceError(f"{path}: is empty")
    for kind in SOURCES:
        if source := kind.detect(archive):
            return source
    layouts = "; ".join(kind.expected_layout for kind in SOURCES)
    found = ", ".join(archive.names[:3]) + (", …" if len(archive.names) > 3 else "")
    raise SourceError(f"{path}: expected {layouts}; got {len(archive.names)} files: {found}")


__all__ = ["SOURCES", "SPLITS", "ClassSubset", "ImageError", "Source", "SourceError", "open_source"]
