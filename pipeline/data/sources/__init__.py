"""Readers of raw archives, one file per kind, and the one table of them.

A new kind is one file with a `Source` that has `find(files)`, and one entry in `SOURCES`.
"""

import zipfile
from pathlib import Path

from pipeline.data.sources.archives import Folder, ZipArchive
from pipeline.data.sources.base import SPLITS, ClassSubset, ImageError, Source, SourceError
from pipeline.data.sources.idx import Idx, open_idx
from pipeline.data.sources.image_folder import ImageFolder
from pipeline.data.sources.midas import Midas

SOURCES: tuple[type[ImageFolder] | type[Midas] | type[Idx], ...] = (Idx, Midas, ImageFolder)


def open_source(path: str | Path, classes: int = 2) -> Source:
    """Return the source at `path`: a folder, a zip archive, or an IDX file.

    A training file of IDX brings its test pair along, a test file comes alone. Where a folder or an
    archive holds several IDX sets, FOLDER/SET chooses one. Raises SourceError, in one line, for a
    path that is not there, for one that holds nothing known, and for a set with fewer than
    `classes` classes.
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return _detect(path).check(classes)
    if source := open_idx(path):
        return source.check(classes)
    if path.exists():
        raise SourceError(
            f"{path}: not a folder, a zip archive (or the end of one is missing), or a file named "
            "like train-images-idx3-ubyte[.gz]; unpack other archives first"
        )
    raise SourceError(f"{path}: no such file or folder")


def _detect(path: Path) -> Source:
    files = Folder(path) if path.is_dir() else ZipArchive(path)
    if not files.names:
        raise SourceError(f"{path}: is empty")
    for kind in SOURCES:
        if source := kind.detect(files):
            return source
    looked_for = "; ".join(kind.expected_layout for kind in SOURCES)
    found = ", ".join(files.names[:3]) + (", …" if len(files.names) > 3 else "")
    raise SourceError(
        f"{path}: nothing in it can be learned from; looked for {looked_for}; "
        f"found {len(files.names)} files: {found}"
    )


__all__ = ["SOURCES", "SPLITS", "ClassSubset", "ImageError", "Source", "SourceError", "open_source"]
