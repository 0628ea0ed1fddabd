"""EMNIST's digits and letters, merged into one dataset of 36 classes.

The published files are two datasets of their own: digits with the labels 0 to 9, and letters with
the labels 1 to 26, both cases in one class. A letter's class has a capital as its name, as in
EMNIST's own list of merged classes; a small l would look like the digit 1.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data import base
from pipeline.data.archives import open_archive
from pipeline.data.base import SPLITS, Annotations, Decoded, Grey, Ints, Source, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources import check_patterns, open_source
from pipeline.data.sources.idx import Idx, find_pairs
from pipeline.data.sources.known_sets import EMNIST

PARTS = ("emnist-digits", "emnist-letters")  # in the order of the classes
CLASSES = (*EMNIST["digits"], *EMNIST["letters"])
OTHER_FILES = "other files"  # of an array's archive, in its layout
_BOTH = "emnist is digits and letters together"


class MergedEmnist(Source):
    """All images of EMNIST's digits, then all of its letters: label 10 is the letter A.

    `files` is the number of files in the archive of both. Raises SourceError for parts with other
    classes, and for a split that only one part has.
    """

    def __init__(self, digits: Idx, letters: Idx, files: int) -> None:
        self._parts = digits, letters
        for part, name in zip(self._parts, ("digits", "letters"), strict=True):
            if part.annotations.classes != EMNIST[name]:
                raise SourceError(
                    f"{part.path}: got the classes {' '.join(part.annotations.classes)}, expected "
                    f"EMNIST's {name}, {' '.join(EMNIST[name])}"
                )
        self.kind, self.path = digits.kind, digits.path
        own = [part.annotations for part in self._parts]
        in_digits, in_letters = ({*part.splits.tolist()} for part in own)
        for split in sorted(in_digits ^ in_letters):
            has, lacks = PARTS if split in in_digits else PARTS[::-1]
            name = "test" if split == base.TEST else SPLITS[max(split, 0)]
            raise SourceError(
                f"{self.path}: {has} has {name} images and {lacks} has none, expected both"
            )
        self._start = len(digits)
        self.annotations = Annotations.of(
            CLASSES,
            np.concatenate([own[0].labels, own[1].labels + len(EMNIST["digits"])]),
            splits=np.concatenate([part.splits for part in own]),
        )
        layouts = [part.layout for part in self._parts]
        counts = [dict(layout.left_out) for layout in layouts]
        others = sum(count.pop(OTHER_FILES, 0) for count in counts) - files  # of neither part
        self.layout = replace(
            layouts[0],
            class_from=", ".join(layout.class_from for layout in layouts),
            dataset="EMNIST digits and letters",
            left_out={**counts[0], **({OTHER_FILES: others} if others > 0 else {})},
            notes=tuple(dict.fromkeys(note for layout in layouts for note in layout.notes)),
            warnings=tuple(dict.fromkeys(w for layout in layouts for w in layout.warnings)),
        )

    def name(self, index: int) -> str:
        """Return the part and the image's name in it, such as "letters/train/7"."""
        part, row = self._place(index)
        return f"{'letters' if index >= self._start else 'digits'}/{part.name(row)}"

    def image(self, index: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError for a damaged file."""
        part, row = self._place(index)
        return part.image(row)

    def decoded(self, index: int) -> Decoded:
        """Return one image, with how the file stored it."""
        part, row = self._place(index)
        return part.decoded(row)

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files of both parts, whichever images `rows` are."""
        return sum(part.size(rows) for part in self._parts)

    def digest(self) -> str:
        """Return a digest of both parts' digests."""
        return base.digest_of(*(part.digest() for part in self._parts))

    def _place(self, index: int) -> tuple[Source, int]:
        if index < self._start:
            return self._parts[0], index
        return self._parts[1], index - self._start


def parts_in(path: Path) -> tuple[str, ...]:
    """Return which of PARTS the IDX files of a folder or archive hold. Raises SourceError."""
    names = open_archive(path).names
    return tuple(part for part in PARTS if find_pairs(names, part))


def open_emnist(path: Path, options: LayoutOptions) -> Source:
    """Return EMNIST's digits and letters in a folder or archive, or else any dataset at `path`.

    Raises SourceError for another part of EMNIST, for one of the two alone, and where
    `open_source` does.
    """
    if any(path.name.lower().startswith(part) for part in PARTS):
        raise SourceError(f"{path}: is one part, and {_BOTH}; use --source {path.parent}")
    if not path.exists() or not (found := parts_in(path)):
        source = open_source(path, options)
        if source.layout.dataset.startswith("EMNIST"):
            raise SourceError(
                f"{path}: got {source.layout.dataset}, and {_BOTH}; choose another name for it"
            )
        return source
    if missing := [part for part in PARTS if part not in found]:
        raise SourceError(
            f"{path}: no files of {missing[0]}, and {_BOTH}; add them, or prepare {found[0]} alone"
        )
    archive = open_archive(path)
    check_patterns(archive, options)
    if options.exclude or options.include:
        archive = archive.select(options.selects)
    digits, letters = (Idx.detect(archive, options, part) for part in PARTS)
    if digits is None or letters is None:
        raise SourceError(f"{path}: --include and --exclude leave one part out, and {_BOTH}")
    return MergedEmnist(digits, letters, len(archive.names))
