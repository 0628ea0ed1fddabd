"""A folder or zip archive with one folder of images per class, at any depth."""

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from posixpath import basename, dirname  # names are strings here: paths would be slow

from pipeline.data import base
from pipeline.data.archives.base import Archive
from pipeline.data.base import (
    Annotations,
    Decoded,
    Grey,
    ImageError,
    Ints,
    Source,
    SourceError,
)
from pipeline.data.pixels.image_decoder import SUFFIXES, decode, is_marked_synthetic

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), base.TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), base.VALIDATION),
    **dict.fromkeys(("test", "testing"), base.TEST),
}


class ImageFilesSource(Source):
    """Images in one file each: image i is file `rows[i]` of `archive`.

    The source is synthetic if its first file is marked as synthetic.
    """

    def __init__(self, archive: Archive, rows: Sequence[int], annotations: Annotations) -> None:
        self.path, self.annotations = archive.path, annotations
        self.ignored_files = len(archive.names) - len(rows)
        self._archive, self._rows = archive, list(rows)
        with suppress(ImageError):  # a damaged file is reported when it is decoded
            if is_marked_synthetic(archive.read(self._rows[0])):
                self.origin = "synthetic"

    def name(self, index: int) -> str:
        """Return an image's path in the folder or archive."""
        return self._archive.names[self._rows[index]]

    def image(self, index: int) -> Grey:
        """Read and decode one file: grey levels (h, w). Raises ImageError or OSError."""
        return self.decoded(index).grey

    def decoded(self, index: int) -> Decoded:
        """Read and decode one file. Raises ImageError or OSError."""
        return decode(self._archive.read(self._rows[index]))

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the images `rows` (n,)."""
        return sum(self._archive.sizes[self._rows[row]] for row in rows)

    def digest(self) -> str:
        """Return the digest of the image files, or of the zip archive."""
        return self._archive.digest(self._rows)


class ImageFolder(ImageFilesSource):
    """Images whose class is the name of their folder, as in torchvision's ImageFolder."""

    kind = "folders"
    expected_layout = "one folder of images per class (0/a.png, 1/b.png, …)"

    @classmethod
    def detect(cls, archive: Archive) -> Source | None:
        """Return the archive's source, None if no image is in a folder.

        Raises SourceError if one folder of images contains another.
        """
        rows = image_rows(archive)
        folders = [dirname(archive.names[row]) for row in rows]
        distinct = sorted(set(folders), key=lambda folder: folder.split("/"))
        if distinct in ([], [""]):
            return None
        for parent, folder in pairwise(distinct):  # in this order, a parent is followed by its own
            if not parent or folder.startswith(f"{parent}/"):
                raise SourceError(
                    f"{archive.path}: got images both in {parent or '.'!r} and in {folder!r} "
                    f"below it, expected {cls.expected_layout}"
                )
        names = [basename(folder) for folder in folders]
        classes = sorted(set(names), key=natural_sort_key)
        number = {name: i for i, name in enumerate(classes)}
        labels, splits = [number[name] for name in names], predefined_splits(folders)
        return cls(archive, rows, Annotations.of(classes, labels, splits=splits))


def image_rows(archive: Archive) -> list[int]:
    """Return the indices of the files that have an image format's suffix."""
    return [i for i, name in enumerate(archive.names) if name.lower().endswith(SUFFIXES)]


def predefined_splits(folders: Sequence[str]) -> list[int] | None:
    """Return each image's split by the folder above its class folder, None if there are no splits.

    `folders` are the images' class folders. Without a validation folder, training images become
    NO_SPLIT, so that some of them can be used for validation.
    """
    parents = [basename(dirname(folder)).lower() for folder in folders]
    if len(set(parents)) < 2 or not set(parents) <= SPLIT_FOLDERS.keys():
        return None
    splits = [SPLIT_FOLDERS[parent] for parent in parents]
    if base.VALIDATION in splits:
        return splits
    return [base.NO_SPLIT if split == base.TRAIN else split for split in splits]


def natural_sort_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts "2" before "10"."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
