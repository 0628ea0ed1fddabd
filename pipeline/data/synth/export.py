"""Writes synthetic pages as PNG files in the layout of MIDAS part 1, each marked as synthetic."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from beton.format.storage import naming, temporary_folder
from pipeline.data.base import Source, SourceError
from pipeline.data.pixels.png.chunks import SYNTHETIC_MARK


def save_pages(source: Source, out: Path, progress: Callable[[int], None]) -> None:
    """Write all pages below the new folder `out`; if an error is raised, nothing is left.

    Raises SourceError if `out` exists, OSError if it cannot be written.
    """
    if out.exists():
        raise SourceError(f"{out}: got an existing path, expected a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with naming(out), temporary_folder(out) as temporary:
        save = partial(_save_page, source, temporary / out.name)
        workers = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
            for _ in pool.map(save, range(len(source)), chunksize=32):
                progress(1)
        (temporary / out.name).rename(out)


def _save_page(source: Source, folder: Path, index: int) -> None:
    path = folder / source.name(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = PngInfo()
    metadata.add_text("Source", SYNTHETIC_MARK)
    Image.fromarray(source.image(index)).save(path, pnginfo=metadata)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file; if an error is raised, the path stays as it was."""
    temporary = path.with_name(f".{path.name}")
    image.save(temporary, format="PNG")
    temporary.replace(path)
