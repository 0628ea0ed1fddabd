"""A folder or zip archive with one folder of pictures per class, at any depth."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from posixpath import basename, dirname  # names are texts here: paths would be slow

from pipeline.data.sources.archives import Archive
from pipeline.data.sources.base import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VALIDATION,
    Annotations,
    ImageError,
    Ints,
    Pixels,
    Source,
    SourceError,
)
from pipeline.data.sources.image_decoder import SUFFIXES, decode, is_marked_synthetic

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}


class ImageFilesSource(Source):
    """Pictures that are files of their own: `rows` says which of `archive`, one per entry.

    They are synthetic if the first of them says so.
    """

    def __init__(self, archive: Archive, rows: Sequence[int], entries: Annotations) -> None:
        self.path, self.annotations = archive.path, entries
        self.ignored_files = len(archive.names) - len(rows)
        self._archive, self._rows = archive, list(rows)
        with suppress(ImageError):  # a damaged file is told of when it is decoded
            self.origin = (
                "synthetic" if is_marked_synthetic(archive.read(self._rows[0])) else "real"
            )

    def name(self, index: int) -> str:
        """Return the picture's path in the folder or archive."""
        return self._archive.names[self._rows[index]]

    def image(self, index: int) -> Pixels:
        """Read and decode one file: uint8 (h, w). Raises PictureError, or OSError."""
        return decode(self._archive.read(self._rows[index]))

    def size(self, rows: Ints) -> int:
        """Return the bytes of the pictures' archive."""
        return sum(self._archive.sizes[self._rows[row]] for row in rows)

    def digest(self) -> str:
        """Return the digest of the pictures' archive, or of the archive."""
        return self._archive.digest(self._rows)


class ImageFolder(ImageFilesSource):
    """The class is the name of the folder that a picture lies in."""

    kind = "folders"
    expected_layout = "one folder of pictures per class (0/a.png, 1/b.png, …)"

    @classmethod
    def detect(cls, archive: Archive) -> Source | None:
        """Return the source that `archive` hold, None if there is no picture in a folder."""
        rows = image_rows(archive)
        folders = [dirname(archive.names[row]) for row in rows]
        distinct = set(folders)
        if not distinct - {""}:
            return None
        for folder in sorted(distinct):
            for above in distinct.intersection(_above(folder)):
                raise SourceError(
                    f"{archive.path}: pictures lie both in {above or '.'!r} and below it, in "
                    f"{folder!r}; expected {cls.expected_layout}"
                )
        names = [basename(folder) for folder in folders]
        classes = sorted(set(names), key=natural)
        number = {name: i for i, name in enumerate(classes)}
        entries = Annotations.of(
            classes, [number[name] for name in names], splits=split_of_folders(folders)
        )
        return cls(archive, rows, entries)


def image_rows(archive: Archive) -> list[int]:
    """Return the indices of the files that are pictures by their names."""
    return [i for i, name in enumerate(archive.names) if name.lower().endswith(SUFFIXES)]


def split_of_folders(folders: Sequence[str]) -> list[int] | None:
    """Return the splits that the folders around the class folders say, None if they say none."""
    words = [basename(dirname(folder)).lower() for folder in folders]
    if len(set(words)) < 2 or not set(words) <= SPLIT_FOLDERS.keys():
        return None
    splits = [SPLIT_FOLDERS[word] for word in words]
    if VALIDATION in splits:
        return splits
    return [UNASSIGNED if split == TRAIN else split for split in splits]


def _above(folder: str) -> Iterator[str]:
    while folder:
        folder = dirname(folder)
        yield folder


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts "2" before "10"."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
