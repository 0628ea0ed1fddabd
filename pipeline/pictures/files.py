"""The images at the paths that a user gives: files, folders, archives, .beton files, `-`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beton.reader import Reader
from pipeline.data.archives import Archive, SingleFile, open_archive
from pipeline.data.base import ImageError, SourceError, is_dataset_file
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.colour import in_colour
from pipeline.data.pixels.formats import SNIFFED, sniff
from pipeline.data.pixels.image_decoder import decode, pages
from pipeline.data.pixels.scale import full_scale
from pipeline.data.sources.image_files import find_images
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset
from pipeline.pictures.errors import PictureError

LARGEST_FILE = 1 << 28  # bytes of an image
STDIN = "-"


@dataclass(frozen=True)
class Found:
    """An image that was found: `name` as the user gave it, or its name in a folder or archive."""

    name: str
    load: Callable[[], bytes | NDArray[np.uint8]]

    def read(self) -> bytes | NDArray[np.uint8]:
        """Return the image file, or pixels (h, w) or (h, w, 3). Raises PictureError."""
        try:
            return self.load()
        except (ImageError, SourceError) as error:
            raise PictureError(str(error)) from error
        except OSError as error:
            raise PictureError(error.strerror or str(error)) from error


def find_pictures(paths: Sequence[Path | str], folder: Path = Path()) -> Iterator[Found]:
    """Yield the images at all paths, in order; "-" is one image on the standard input.

    Relative paths start at `folder`. Names are the paths as they are given.
    A file that is no archive counts as an image, whatever its name. In folders and archives, images
    are found by name and content, as prep finds them; with several paths, their names begin with
    the path. Raises UserError for a missing path, for a folder or archive without images, for no
    paths, and for "-" twice; SourceError for a damaged archive, BetonError for a damaged .beton
    file.
    """
    if not paths:
        raise UserError("got no paths, expected files, folders, archives or -")
    if (inputs := sum(str(path) == STDIN for path in paths)) > 1:
        raise UserError(
            f"-: got it {inputs} times, expected once: the standard input has one image"
        )
    for path in paths:
        if str(path) == STDIN:
            yield Found(STDIN, _read_stdin)
        else:
            prefix = f"{str(path).rstrip('/')}/" if len(paths) > 1 else ""
            yield from _find(folder / Path(path).expanduser(), str(path), prefix)


def _find(path: Path, given: str, prefix: str) -> Iterator[Found]:
    if path.is_file() and is_dataset_file(path):
        yield from _in_beton(path, prefix)
        return
    archive = open_archive(path)
    if isinstance(archive, SingleFile):
        yield from _pages(archive, 0, given)
        return
    images, _ = find_images(archive, LayoutOptions())
    if not images:
        got = f"{len(archive.names)} other files" if archive.names else "nothing"
        raise UserError(f"{path}: got {got}, expected images")
    for index in images:
        yield from _pages(archive, index, prefix + archive.names[index])


def _in_beton(path: Path, prefix: str) -> Iterator[Found]:
    with open_dataset(path) as file:
        names = [f"#{index}" for index in range(len(file))]
        if "name" in file.fields:
            column = file.column("name")
            names = [column.decode(index).decode() for index in range(len(file))]
    shared = Reader(path)
    for index, name in enumerate(names):
        yield Found(prefix + name, partial(shared.column("image").decode, index))


def _pages(archive: Archive, index: int, name: str) -> Iterator[Found]:
    """Yield the pages of an image file: one, but for a TIFF file of several."""
    try:
        is_tiff = sniff(archive.head(index, SNIFFED)) == "TIFF"
        numbers = pages(archive.read(index)) if is_tiff else (0,)
    except (ImageError, OSError):  # reported when it is read
        numbers = (0,)
    if len(numbers) == 1:
        yield Found(name, partial(_read, archive, index))
    else:
        for number in numbers:
            yield Found(f"{name}#{number + 1}", partial(_read_page, archive, index, number))


def _read(archive: Archive, index: int) -> bytes:
    if archive.sizes[index] > LARGEST_FILE:
        raise PictureError(f"got {archive.sizes[index]:,} bytes, expected at most {LARGEST_FILE:,}")
    return bytes(archive.read(index))


def _read_page(archive: Archive, index: int, number: int) -> NDArray[np.uint8]:
    """Return the pixels of a page of a TIFF file."""
    decoded = decode(_read(archive, index), number)
    grey = full_scale(decoded.grey.dtype).to_8bit(decoded.grey)
    return grey if decoded.colour is None else in_colour(decoded, grey)


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise PictureError(f"got more than {LARGEST_FILE:,} bytes")
    return data
