"""A dataset file as a network sees it: its splits, and the view of its pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton.errors import BetonError
from beton.fields import InkField
from beton.reader import Reader
from pipeline.data.sources import SPLITS

Ids = NDArray[np.int64]


Floats = NDArray[np.float32]


def open_dataset(path: Path) -> Reader:
    """Open a file that prep wrote. Raises BetonError for another one, OSError if there is none."""
    file = Reader(path)
    wanted = {"image", "label", "split"}
    if not (
        wanted <= file.fields.keys()
        and isinstance(file.fields["image"], InkField)
        and {"classes", "provenance"} <= file.info.keys()
    ):
        file.close()
        raise BetonError("not a file that prep writes", file=path)
    return file


def split_indices(file: Reader, splits: str) -> Ids:
    """Return the numbers of the samples of a split: int64 (n,), perhaps none.

    "train+validation" are both together, "all" is everything.
    """
    if splits == "all":
        return np.arange(len(file), dtype=np.int64)
    wanted = [SPLITS.index(split) for split in splits.split("+")]
    return np.flatnonzero(np.isin(file.column("split").metadata, wanted))


@dataclass(frozen=True)
class View:
    """What a network sees of a page: a square of `size` pixels around the ink.

    The page is first resized to `canvas`, (height, width) in pixels, at the scale of the square.
    `whole` shows just that, as it is.
    """

    size: int
    canvas: tuple[int, int]
    whole: bool = False

    @classmethod
    def of(cls, file: Reader, size: int, window: float | None) -> "View":
        """Return the view whose square is `window` times the height of a file's typical page.

        None shows whole pages, `size` pixels high.
        """
        records = file.column("image").metadata
        height = max(round(size / (window or 1)), 1)
        proportion = float(np.median(records["width"] / records["height"]))
        return cls(size, (height, max(round(height * proportion), 1)), window is None)

    @property
    def shape(self) -> tuple[int, int]:
        """The height and width of what the network sees, in pixels."""
        return self.canvas if self.whole else (self.size, self.size)

    @property
    def pixels(self) -> int:
        """The pixels of what the network sees."""
        height, width = self.shape
        return height * width


ROWS, PIXELS = 256, 1 << 22  # at a time, where no gradient needs memory


def eval_batch_size(view: View) -> int:
    """Return how many pictures to ask about at a time."""
    return max(1, min(ROWS, PIXELS // view.pixels))


def source_line(provenance: Mapping[str, Any]) -> str:
    """Return where data came from, in a line."""
    return f"{provenance['kind']} data: {provenance['source']}"
