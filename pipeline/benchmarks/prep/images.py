"""The image files that are prepared: pages and digits, in an archive and unpacked."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from pipeline.data.base import Source
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """Images in a zip archive, and the same files unpacked."""

    title: str
    archive: Path
    files: list[Path]

    @classmethod
    def write(cls, title: str, folder: Path, images: Iterator[tuple[str, bytes]]) -> Self:
        """Write the files, by name, to an archive in the new folder, and unpack it."""
        folder.mkdir()
        archive = folder / "images.zip"
        with zipfile.ZipFile(archive, "w") as new:
            for name, data in images:
                new.writestr(name, data)
        shutil.unpack_archive(archive, folder / "unpacked", "zip")
        files = [path for path in sorted((folder / "unpacked").rglob("*")) if path.is_file()]
        return cls(title, archive, files)

    def link(self, folder: Path, step: int) -> int:
        """Link each `step`-th file, by number, into a new folder; return their number."""
        folder.mkdir()
        files = self.files[::step]
        for number, file in enumerate(files):
            os.link(file, folder / f"{number:06}{file.suffix}")
        return len(files)


def generated(source: Source, count: int, mode: str) -> Iterator[tuple[str, bytes]]:
    """Yield `count` evenly spaced images of a generator as PNG files of a mode."""
    for index in np.unique(np.linspace(0, len(source) - 1, count).astype(np.int64)).tolist():
        file = io.BytesIO()
        Image.fromarray(source.image(index)).convert(mode).save(file, "PNG")
        yield source.name(index), file.getvalue()


def read_pages(source: Path | None, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of at most `count` pages of a zip archive: RGB PNG files.

    Without an archive, they are generated, about `count` of them. Raises UserError for an archive
    without pages.
    """
    if source is None:
        yield from generated(SyntheticPages(-(-count // 62)), count, "RGB")
        return
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".png")]
        if not names:
            raise UserError(f"{source}: got no PNG pages")
        for index in np.unique(np.linspace(0, len(names) - 1, count).astype(np.int64)):
            yield names[index], archive.read(names[index])


def copied(images: Iterator[tuple[str, bytes]], copies: int) -> Iterator[tuple[str, bytes]]:
    """Yield each image `copies` times, under names of their own."""
    for name, data in images:
        path = Path(name)
        for copy in range(copies):
            yield f"{path.parent}/{path.stem}-{copy}{path.suffix}", data


def as_jpeg(images: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield images as JPEG files."""
    for name, data in images:
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(file, "JPEG", quality=90)
        yield str(Path(name).with_suffix(".jpg")), file.getvalue()
