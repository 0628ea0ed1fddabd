"""Readers of raw archives, one file per kind, and the one table of them.

A new kind is one file with a `Source` that has `find(files)`, and one entry in `KINDS`.
"""

import zipfile
from pathlib import Path

from pipeline.data.sources.base import SPLITS, ImageError, Source, SourceError, Subset
from pipeline.data.sources.files import Tree, Zip
from pipeline.data.sources.folders import Folders
from pipeline.data.sources.idx import Idx, open_one_set
from pipeline.data.sources.midas import Midas

KINDS: tuple[type[Folders] | type[Midas] | type[Idx], ...] = (Idx, Midas, Folders)


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
    if source := open_one_set(path):
        return source.check(classes)
    if path.exists():
        raise SourceError(
            f"{path}: not a folder, a zip archive (or the end of one is missing), or a file named "
            "like train-images-idx3-ubyte[.gz]; unpack other archives first"
        )
    raise SourceError(f"{path}: no such file or folder")


def _detect(path: Path) -> Source:
    files = Tree(path) if path.is_dir() else Zip(path)
    if not files.names:
        raise SourceError(f"{path}: is empty")
    for kind in KINDS:
        if source := kind.find(files):
            return source
    looked_for = "; ".join(kind.looks_for for kind in KINDS)
    found = ", ".join(files.names[:3]) + (", …" if len(files.names) > 3 else "")
    raise SourceError(
        f"{path}: nothing in it can be learned from; looked for {looked_for}; "
        f"found {len(files.names)} files: {found}"
    )


__all__ = ["KINDS", "SPLITS", "ImageError", "Source", "SourceError", "Subset", "open_source"]
