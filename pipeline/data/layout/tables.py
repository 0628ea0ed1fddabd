"""Tables that name images and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.archives.base import Archive
from pipeline.data.base import LayoutError
from pipeline.data.layout.options import LayoutOptions


@dataclass(frozen=True)
class TableMatch:
    """What a table says of each image; None where it does not name it."""

    file: str
    format: str
    labels: list[str | None]
    splits: list[str | None] | None
    writers: list[str | None] | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def find_table(archive: Archive, names: Sequence[str], options: LayoutOptions) -> TableMatch | None:
    """Return the table that names images, None if there is none."""
    del archive, names, options
    return None


def read_table(
    file: str, archive: Archive, names: Sequence[str], options: LayoutOptions
) -> TableMatch:
    """Return what the table `file` says of images."""
    del names, options
    raise LayoutError(f"{archive.path}: {file}: no such table")
