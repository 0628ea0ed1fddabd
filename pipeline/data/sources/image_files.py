"""Images in one file each, in a folder or archive of any layout: ImageFolder's, MIDAS, NIST SD19.

The layout of the files is inferred in `pipeline.data.layout`; here it is decided which files are
images, and their pages are counted.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from posixpath import basename
from typing import Self

import numpy as np

from pipeline.data.archives import Archive
from pipeline.data.base import (
    IMAGE_SUFFIXES,
    Annotations,
    Decoded,
    Grey,
    ImageError,
    Ints,
    Layout,
    LayoutError,
    Source,
    digest_of,
)
from pipeline.data.layout.folders.paths import below, listed, option
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.layout.suggestions import infer_layout
from pipeline.data.pixels.formats import SNIFFED, sniff
from pipeline.data.pixels.image_decoder import decode, pages
from pipeline.data.pixels.png.chunks import is_marked_synthetic

_TIFF = (".tif", ".tiff")
# Files that are certainly no images, so that their contents need no inspection.
_OTHER = frozenset(
    (
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm", ".md", ".rst"),
        *(".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".py", ".ipynb", ".m", ".r", ".c"),
        *(".h", ".sh", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".parquet", ".arrow"),
        *(".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".7z", ".rar", ".exe", ".dll", ".bat"),
        *(".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".ods", ".rtf", ".db"),
        *(".mp3", ".mp4", ".wav", ".avi", ".mov", ".mkv", ".pt", ".pth", ".onnx", ".lnk"),
    )
)
_OTHER_KINDS = frozenset(f"{suffix} files" for suffix in _OTHER)
# Files that show something and cannot be decoded here: a folder of them may be a class.
_DRAWINGS = frozenset(
    (
        *(".svg", ".eps", ".ps", ".pdf", ".psd", ".ai", ".xcf", ".djvu", ".cdr", ".emf", ".wmf"),
        *(".ico", ".dng", ".cr2", ".nef", ".arw", ".orf", ".exr", ".hdr", ".tga", ".pcx", ".jxl"),
    )
)


class ImageFiles(Source):
    """Images in one file each: image i is page `pages[i]` of file `files[i]` of an archive.

    The source is synthetic if its first file is marked as synthetic. `by_rules` is whether a table
    or the user's rules give labels, splits or writers.
    """

    expected_layout = "one folder of images per class (0/a.png, 1/b.png, …)"

    def __init__(
        self,
        archive: Archive,
        files: Ints,
        page_numbers: Ints,
        annotations: Annotations,
        layout: Layout,
        *,
        by_rules: bool,
    ) -> None:
        self.path, self.annotations, self.layout = archive.path, annotations, layout
        self.kind = layout.reader
        self._archive, self._files, self._pages = archive, files, page_numbers
        self._counts = np.bincount(files)  # the pages of each file
        used = np.flatnonzero(self._counts)
        self._by_rules = by_rules
        if len(used) < len(files):
            self.groups = np.unique(files, return_inverse=True)[1].astype(np.int64)
        with suppress(ImageError):  # a damaged file is reported when it is decoded
            if is_marked_synthetic(archive.read(int(files[0]))):
                self.origin = "synthetic"

    @classmethod
    def detect(
        cls, archive: Archive, options: LayoutOptions | None = None, min_classes: int = 2
    ) -> Self | None:
        """Return the archive's source, None if it holds no image file.

        Raises LayoutError if the layout is ambiguous or gives no classes.
        """
        options = options or LayoutOptions()
        images, left_out = find_images(archive, options)
        if not images:
            return None
        names = [archive.names[i] for i in images]
        found = infer_layout(archive, names, options, min_classes)
        warnings: tuple[str, ...] = ()
        if any(kind not in _OTHER_KINDS for kind in left_out):
            warnings = _check_lost_classes(archive, names, found.rows, options)
        files = np.array(images, np.int64)[found.rows]
        annotations, layout = found.annotations, found.layout
        files, page_numbers, of_file = _split_pages(archive, files)
        if len(of_file) > len(annotations.labels):
            annotations = replace(
                annotations,
                labels=annotations.labels[of_file],
                writers=annotations.writers[of_file],
                splits=annotations.splits[of_file],
            )
            several = len(np.unique(files[page_numbers > 0]))
            note = f"{several:,} files hold several pages, and each page is an image"
            layout = replace(layout, notes=(*layout.notes, note))
        counts = Counter(archive.left_out) + Counter(left_out) + Counter(layout.left_out)
        counts -= Counter(_kind(archive.names[i]) for i in _table_members(archive, layout))
        notes = (*archive.notes, *layout.notes)
        warnings = (*layout.warnings, *warnings)
        left_out = dict(sorted(counts.items()))
        layout = replace(layout, left_out=left_out, notes=notes, warnings=warnings)
        rules = (layout.class_from, layout.split_from, layout.writer_from)
        by_rules = options.has_rules or any(rule.startswith("table:") for rule in rules)
        return cls(archive, files, page_numbers, annotations, layout, by_rules=by_rules)

    def name(self, index: int) -> str:
        """Return an image's path in the folder or archive, with #PAGE if its file has several."""
        file = self._files[index]
        name = self._archive.names[file]
        return name if self._counts[file] == 1 else f"{name}#{self._pages[index] + 1}"

    def image(self, index: int) -> Grey:
        """Read and decode one image (h, w). Raises ImageError or OSError."""
        return self.decoded(index).grey

    def decoded(self, index: int) -> Decoded:
        """Read and decode one image, with how the file stored it. Raises ImageError or OSError."""
        file, page = int(self._files[index]), int(self._pages[index])
        data = self._archive.read(file)
        # Pages are counted by suffix, so that not every file is read twice.
        if self._counts[file] == 1 and len(numbers := pages(data)) > 1:
            raise ImageError(f"a TIFF file of {len(numbers)} pages; rename it to .tif")
        return decode(data, page)

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the images `rows` (n,)."""
        return sum(self._archive.sizes[file] for file in np.unique(self._files[rows]).tolist())

    def digest(self) -> str:
        """Return the digest of the image files, or of the archive.

        It includes the labels, splits and writers if a table or the user's rules give them.
        """
        digest = self._archive.digest(np.flatnonzero(self._counts).tolist())
        if not self._by_rules:
            return digest
        given = self.annotations
        numbers = np.stack([given.labels, given.splits, given.writers]).astype("<i8").tobytes()
        hashed = hashlib.sha256(numbers).hexdigest()
        return digest_of(digest, given.classes, given.writer_names, hashed)


def find_images(archive: Archive, options: LayoutOptions) -> tuple[list[int], dict[str, int]]:
    """Return the numbers of the files that are images, and the other files' counts by kind.

    A known suffix decides, and else the contents. Images that options exclude are among them; other
    excluded files are not counted.
    """
    images, others = [], Counter[str]()
    is_image: dict[str, bool | None] = {}
    for i, name in enumerate(archive.names):
        suffix = _suffix(name)
        known = is_image.get(suffix)
        if suffix not in is_image:
            known = suffix in IMAGE_SUFFIXES or (False if suffix in _OTHER else None)
            is_image[suffix] = known
        if known or (known is None and sniff(archive.head(i, SNIFFED)) is not None):
            images.append(i)
        elif options.selects(name):
            others[_kind(name)] += 1
    return images, dict(others)


def _kind(name: str) -> str:
    """Return the kind of a file that is no image."""
    suffix = _suffix(name)
    return f"{suffix} files" if suffix else "files without suffix"


def _table_members(archive: Archive, layout: Layout) -> list[int]:
    """Return the numbers of the tables that give a part of the layout."""
    rules = (layout.class_from, layout.split_from, layout.writer_from)
    given = [rule.removeprefix("table:") for rule in rules if rule.startswith("table:")]
    files = {file for rule in given for file in (rule, *rule.split(","))}
    if not files:
        return []
    return [i for i, name in enumerate(archive.names) if name in files or basename(name) in files]


def _suffix(name: str) -> str:
    """Return a name's suffix in lower case, "" for what follows a point but is no suffix."""
    stem, _, suffix = name.rpartition(".")
    return "" if not stem or stem.endswith("/") else _checked_suffix(suffix)


@lru_cache(1024)
def _checked_suffix(suffix: str) -> str:
    short = 0 < len(suffix) <= 8 and suffix.isalnum() and not suffix.isdigit()
    return f".{suffix.lower()}" if short else ""


def _split_pages(archive: Archive, files: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the pages of files: their file (m,), their number (m,), and their place in `files`."""
    found: dict[int, tuple[int, ...]] = {}
    for place, file in enumerate(files.tolist()):
        name = archive.names[file]
        may_be_tiff = name[-5:].lower().endswith(_TIFF) or (
            not name.lower().endswith(IMAGE_SUFFIXES)
            and sniff(archive.head(file, SNIFFED)) == "TIFF"
        )
        if may_be_tiff:
            with suppress(ImageError):  # a damaged file is reported when it is decoded
                numbers = pages(archive.read(file))
                if numbers != (0,):
                    found[place] = numbers
    counts = np.ones(len(files), np.int64)
    counts[list(found)] = [len(numbers) for numbers in found.values()]
    of_file = np.repeat(np.arange(len(files)), counts)
    starts = np.cumsum(counts) - counts
    page_numbers = np.zeros(len(of_file), np.int64)
    for place, numbers in found.items():
        page_numbers[starts[place] : starts[place] + len(numbers)] = numbers
    return files[of_file], page_numbers, of_file


def _check_lost_classes(
    archive: Archive, names: Sequence[str], rows: Ints, options: LayoutOptions
) -> tuple[str, ...]:
    """Return warnings of folders of unknown files beside the classes.

    Raises LayoutError for a folder beside the classes that holds drawings alone.
    """
    used = {names[row].rpartition("/")[0] for row in rows.tolist()}
    parents = {folder.rpartition("/")[0] for folder in used if folder}
    with_images = {name.rpartition("/")[0] for name in names}
    lost: dict[str, Counter[str]] = {}
    unknown: dict[str, None] = {}
    for name in archive.names:
        folder, suffix = name.rpartition("/")[0], _suffix(name)
        beside = folder and folder not in used and folder.rpartition("/")[0] in parents
        if not beside or suffix in _OTHER or not options.selects(name):
            continue
        if suffix in _DRAWINGS:
            lost.setdefault(folder, Counter())[suffix] += 1
        elif folder not in with_images:
            unknown[folder] = None
    if lost:
        kinds = sum(lost.values(), Counter[str]())
        shown = listed(f"{count:,} {suffix}" for suffix, count in kinds.items())
        raise LayoutError(
            f"{archive.path}: the folders {listed(lost)} hold no image that can be decoded "
            f"({shown} files), beside folders of images",
            [option("exclude", *(below(tuple(folder.split("/"))) for folder in lost))],
        )
    if not unknown:
        return ()
    return (f"folders beside those of classes hold no image: {listed(unknown)}",)
