"""A prepared dataset file: its splits, and the view of its pages that a network gets."""

import math
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
from pipeline.errors import UserError

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


def open_dataset(path: Path) -> Reader:
    """Open a file that prep wrote. Raises BetonError for other files, OSError if it is missing."""
    file = Reader(path)
    if not (
        {"image", "label", "split"} <= file.fields.keys()
        and isinstance(file.fields["image"], InkField)
        and {"classes", "provenance"} <= file.info.keys()
    ):
        file.close()
        raise BetonError("not a file that prep writes", file=path)
    return file


def split_indices(file: Reader, splits: str) -> Ids:
    """Return the sample numbers of a split: int64 (n,), possibly none.

    "train+validation" joins both splits; "all" is every sample. Raises UserError for other names.
    """
    if splits == "all":
        return np.arange(len(file), dtype=np.int64)
    names = splits.split("+")
    if not {*names} <= {*SPLITS}:
        raise UserError(f"split: got {splits!r}, expected all, or {' + '.join(SPLITS)}")
    wanted = [SPLITS.index(name) for name in names]
    return np.flatnonzero(np.isin(file.column("split").metadata, wanted))


@dataclass(frozen=True)
class View:
    """The part of a page that a network sees: a square of `size` pixels around the ink.

    The page is first resized to `canvas`, (height, width) in pixels, which sets the scale of the
    square. With `whole`, the network sees the entire canvas.
    """

    size: int
    canvas: tuple[int, int]
    whole: bool = False

    @classmethod
    def of(cls, file: Reader, size: int, window: float | None) -> "View":
        """Return the view whose square is `window` times the height of a page.

        The canvas has the median proportions of the file's pages. A `window` of None shows whole
        pages, `size` pixels high.
        """
        records = file.column("image").metadata
        height = max(round(size / (window or 1)), 1)
        proportion = float(np.median(records["width"] / records["height"]))
        return cls(size, (height, max(round(height * proportion), 1)), window is None)

    @property
    def shape(self) -> tuple[int, int]:
        """The height and width of an image, in pixels."""
        return self.canvas if self.whole else (self.size, self.size)


MAX_EVAL_ROWS, MAX_EVAL_PIXELS = 256, 1 << 22  # of a batch, where no gradients need memory


def eval_batch_size(view: View) -> int:
    """Return the number of images in a batch without gradients."""
    return max(1, min(MAX_EVAL_ROWS, MAX_EVAL_PIXELS // math.prod(view.shape)))


def source_line(provenance: Mapping[str, Any]) -> str:
    """Return the kind and source of a dataset, in one line."""
    return f"{provenance['kind']} data: {provenance['source']}"
