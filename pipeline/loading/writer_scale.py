"""The scale of each writer's handwriting, measured without labels.

Often only size tells a capital from a small letter (o and O, s and S), and writers differ in size:
the small letters of one are as tall as the capitals of another. If a file names the writers, pages
can be shown at their writer's scale, and a network can take batch statistics from the writer's
pages (Li et al. 2017, "Revisiting batch normalization for practical domain adaptation"; Schneider
et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation").
"""

import numpy as np
from numpy.typing import NDArray

from beton.codec.resizing import WINDOW_HEIGHT
from beton.loader import Loader
from beton.ops import Resize
from beton.reader import Reader
from beton.transforms import full_geometry
from pipeline.loading.dataset import Floats, Ids, paper_greys

TALL_QUANTILE = 0.7  # of a writer's ink heights: the height of the tall characters
MIN_PAGES = 10  # of a writer, for a scale of their own
SIDE = 144  # pixels of the square in which heights are measured
INK_THRESHOLD = 64  # grey levels from the paper, of 255


def writers_of(file: Reader) -> Ids:
    """Return the writer of each page of a prepared file: int64 (n,), -1 if unknown."""
    return np.asarray(file.column("writer").metadata).astype(np.int64)


def writer_scales(file: Reader, target: float, proportion: float | None = None) -> Floats:
    """Return the magnification of each page: float32 (n,).

    It brings the writer's tall characters to the fraction `target` of the page's height. Writers
    with fewer than ten pages get the scale of the whole file. `proportion` is that of the view;
    where pages are letterboxed, heights are fractions of the letterbox.
    """
    heights, writers = _heights(file, proportion), writers_of(file)
    scales = np.full(len(file), _scale(heights, target))
    for writer in np.unique(writers[writers >= 0]):
        own = writers == writer
        if own.sum() >= MIN_PAGES:
            scales[own] = _scale(heights[own], target)
    return scales.astype(np.float32)


def typical_scale(file: Reader, target: float, proportion: float | None = None) -> float:
    """Return the magnification of a page whose writer is unknown; see `writer_scales`."""
    return _scale(_heights(file, proportion), target)


def _heights(file: Reader, proportion: float | None) -> NDArray[np.float64]:
    heights = ink_heights(file)
    if proportion is not None:
        records = file.column("image").metadata
        sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int64)
        heights *= sizes[:, 0] / full_geometry(sizes, proportion)[:, WINDOW_HEIGHT]
    return heights


def _scale(heights: NDArray[np.float64], target: float) -> float:
    tall = float(np.quantile(heights, TALL_QUANTILE))
    return float(np.clip(target / max(tall, 1e-3), 1 / 3, 3))


def ink_heights(file: Reader) -> NDArray[np.float64]:
    """Return the height of the ink of each page, as a fraction of the page: float64 (n,)."""
    papers = paper_greys(file).astype(np.int16)
    heights = np.empty(len(file))
    with Loader(file, 64, {"image": Resize(SIDE, SIDE)}, order="sequential") as loader:
        for batch in loader:
            ids = batch.ids[batch.valid]
            pages = batch["image"][batch.valid].astype(np.int16)
            distance = np.abs(pages - papers[ids, None, None])
            inked = (distance > INK_THRESHOLD).any(axis=2)
            first, last = inked.argmax(axis=1), SIDE - inked[:, ::-1].argmax(axis=1)
            heights[ids] = np.where(inked.any(axis=1), (last - first) / SIDE, 0)
    return heights
