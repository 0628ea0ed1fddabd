"""What a writer's other pages tell about a page, without a label: how large the hand writes.

Case lies in size (o and O, s and S), and size in the hand: one's small letters are as tall as
another's capitals. Where a file says who wrote what, pages can be shown at their writer's scale,
and a network can take its batch statistics from the writer (Li et al. 2017, "Revisiting batch
normalization for practical domain adaptation"; Schneider et al. 2020, "Improving robustness against
common corruptions by covariate shift adaptation").
"""

import numpy as np
from numpy.typing import NDArray

from beton.loader import Loader
from beton.ops import Resize
from beton.reader import Reader

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

TALL = 0.7  # the quantile of a writer's heights that stands for the hand
ENOUGH = 10  # pages of a writer, to tell
ROWS = 144  # that heights are measured in
INK = 64  # grey levels from the background, of 255


def writers_of(file: Reader) -> Ids:
    """Return who wrote each page of a file that prep wrote: int64 (n,), -1 where nobody knows."""
    return np.asarray(file.column("writer").metadata).astype(np.int64)


def writer_scales(file: Reader, target: float) -> Floats:
    """Return how much larger each page must be shown: float32 (n,).

    So that a writer's tall characters fill the share `target` of a page's height. Where fewer than
    ten pages of a writer are known, all pages of the file stand for the writer.
    """
    heights, writers = ink_heights(file), writers_of(file)
    factors = np.full(len(file), _factor(heights, target))
    for writer in np.unique(writers[writers >= 0]):
        own = writers == writer
        if own.sum() >= ENOUGH:
            factors[own] = _factor(heights[own], target)
    return factors.astype(np.float32)


def _factor(heights: NDArray[np.float64], target: float) -> float:
    tall = float(np.quantile(heights, TALL))
    return float(np.clip(target / max(tall, 1e-3), 1 / 3, 3))


def ink_heights(file: Reader) -> NDArray[np.float64]:
    """Return the heights of the boxes around the ink, as shares of the pages': float64 (n,)."""
    backgrounds = file.column("image").metadata["background"].astype(np.int16)
    found = np.empty(len(file))
    with Loader(file, 64, {"image": Resize(ROWS, ROWS)}, order="sequential") as loader:
        for batch in loader:
            ids = batch.ids[batch.valid]
            pages = batch["image"][batch.valid].astype(np.int16)
            inked = (np.abs(pages - backgrounds[ids, None, None]) > INK).any(axis=2)
            first, last = inked.argmax(axis=1), ROWS - inked[:, ::-1].argmax(axis=1)
            found[ids] = np.where(inked.any(axis=1), (last - first) / ROWS, 0)
    return found
