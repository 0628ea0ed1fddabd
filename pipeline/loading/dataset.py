"""A prepared dataset file: its splits, and the view of its pages that a network gets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from beton.arrays import Uint8Array
from beton.codec import ink
from beton.reader import Reader
from pipeline.data.sources import SPLITS
from pipeline.errors import UserError, check_range
from pipeline.loading.dataset_checks import Colour, Fit, Polarity, check_dataset

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


def open_dataset(path: Path) -> Reader:
    """Open a file that prep wrote, and check it (`check_dataset`).

    Raises BetonError for other files, OSError if it is missing.
    """
    file = Reader(path)
    try:
        check_dataset(file)
    except BaseException:
        file.close()
        raise
    return file


@dataclass(frozen=True)
class PixelRules:
    """How the images of a dataset became grey levels, and how these become a network's input.

    `polarity` says which side of the paper's grey level the ink is on; with "each", an image's most
    frequent value is its paper. `scale` holds the values that became 0 and 255, of images with more
    than 8 bits. `fit` is that of `View`. `colour` is "rgb" for images that are stored in colour,
    which have no paper and no ink. The defaults are the rules of files and runs made before there
    were others.
    """

    polarity: Polarity = "each"
    scale: tuple[float, float] | None = None
    fit: Fit = "stretch"
    colour: Colour = "grey"

    @classmethod
    def of(cls, file: Reader) -> "PixelRules":
        """Return the rules of a dataset."""
        return msgspec.convert(file.info.get("pixels", {}), cls)


def paper_greys(file: Reader) -> Uint8Array:
    """Return the grey level of each image's paper: uint8 (n,).

    It is the stored background, except where the dataset's polarity contradicts that.
    """
    greys: Uint8Array = file.column("image").metadata["background"].copy()
    paper = file.info.get("pixels", {}).get("paper", {"samples": [], "greys": []})
    greys[np.array(paper["samples"], np.int64)] = np.array(paper["greys"], np.uint8)
    return greys


def split_indices(file: Reader, splits: str, limit: int | None = None) -> Ids:
    """Return the sample numbers of a split, in the order of the file: int64 (n,), possibly none.

    "train+validation" joins both splits; "all" is every sample. A `limit` is a maximum number:
    each class keeps its fraction of the split, rounded up or down, evenly spaced in the file.
    Raises UserError for other names.
    """
    if splits == "all":
        indices = np.arange(len(file), dtype=np.int64)
    else:
        names = splits.split("+")
        if not {*names} <= {*SPLITS}:
            raise UserError(f"split: got {splits!r}, expected all, or {' + '.join(SPLITS)}")
        wanted = [SPLITS.index(name) for name in names]
        indices = np.flatnonzero(np.isin(file.column("split").metadata, wanted))
    total = len(indices)
    if limit is None or limit >= total:
        return indices
    # Evenly spaced in the file itself, they would miss classes that come in turns.
    by_class = indices[np.argsort(file.column("label").metadata[indices], kind="stable")]
    middles = (2 * np.arange(limit, dtype=np.int64) + 1) * total // (2 * limit)
    return np.sort(by_class[middles])


MAX_PROPORTION = 64  # of a median image, width / height or height / width
WIDER, VARIED = 1.05, 0.005  # factor of the proportion; fraction of pages that makes a file varied
MAX_CANVAS = 1 << 25  # pixels of one, of which a batch has many


@dataclass(frozen=True)
class Normalize:
    """The mean and standard deviation of each channel, which a network's input is normalised by.

    They are of values in [0, 1]: for ink, 0 is paper. Raises UserError for values out of range, and
    for different numbers of channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise UserError(
                f"normalize: got {len(self.mean)} means and {len(self.std)} deviations, expected "
                "one of each for every channel"
            )
        for mean, std in zip(self.mean, self.std, strict=True):
            check_range("normalize mean", mean, 0, 1)
            check_range("normalize std", std, 1e-6, 1)


def channel_statistics(file: Reader) -> Normalize:
    """Return the mean and deviation of the training images of a dataset in colour."""
    pixels = file.info["pixels"]
    return Normalize(tuple(pixels["mean"]), tuple(pixels["std"]))


@dataclass(frozen=True)
class View:
    """The part of a page that a network sees: a square of `size` pixels around the ink.

    The page is first resized to `canvas`, (height, width) in pixels, which sets the scale of the
    square. "stretch" stretches it to the canvas. "letterbox" keeps its proportions: the canvas
    shows a window of the `proportion` (width / height) around the page, filled up with paper. So
    wider pages become smaller; with `varied`, the file has some of them. With `whole`, the network
    sees the entire canvas.

    Images in colour have three `channels` and no paper. They are seen whole, and "crop" shows the
    largest window of the canvas' proportion in their middle. `normalize` is applied last.
    """

    size: int
    canvas: tuple[int, int]
    whole: bool = False
    fit: Fit = "stretch"
    proportion: float | None = None
    varied: bool = False
    channels: int = 1
    normalize: Normalize | None = None

    @classmethod
    def of(
        cls,
        file: Reader,
        size: int,
        window: float | None,
        fit: Fit | None = None,
        normalize: Normalize | None = None,
    ) -> "View":
        """Return the view whose square is `window` times the height of a page.

        The canvas has the median proportion of the file's pages. A `window` of None shows whole
        pages, `size` pixels high. `fit` is the file's, unless it is given. Raises UserError for
        pages that are too long for a canvas.
        """
        rules = PixelRules.of(file)
        fit, channels = fit or rules.fit, 3 if rules.colour == "rgb" else 1
        if channels == 3 and window is not None:
            raise UserError(
                f"{file.path}: got images in colour, expected handwriting: the recipe shows a "
                "window around the ink; ./launch.sh prep --colour grey makes them grey"
            )
        if normalize is not None and len(normalize.mean) != channels:
            raise UserError(
                f"{file.path}: got images of {channels} channel{'s' * (channels > 1)}, expected "
                f"{len(normalize.mean)}, as the recipe normalises them"
            )
        records = file.column("image").metadata
        proportions = records["width"] / records["height"]
        median = np.median if fit == "stretch" else _geometric_median
        proportion = float(median(proportions))
        height = max(round(size / (window or 1)), 1)
        canvas = height, max(round(height * proportion), 1)
        long = not 1 / MAX_PROPORTION <= proportion <= MAX_PROPORTION
        if long or max(canvas) > ink.LIMIT or math.prod(canvas) > MAX_CANVAS:
            medians = " × ".join(f"{np.median(records[side]):.0f}" for side in ("width", "height"))
            expected = (
                f"at most {MAX_PROPORTION} : 1; cut the images into characters"
                if long
                else f"at most {MAX_CANVAS} pixels, {ink.LIMIT} a side; choose a smaller size"
            )
            raise UserError(
                f"{file.path}: got images of {medians} pixels (the median width and height), which "
                f"would be resized to {canvas[1]} × {canvas[0]}; expected {expected}"
            )
        view = cls(size, canvas, window is None, channels=channels, normalize=normalize)
        if fit == "stretch":
            return view
        varied = float((proportions > WIDER * proportion).mean()) > VARIED
        return replace(view, fit=fit, proportion=proportion, varied=varied)

    def on(self, file: Reader, window: float | None) -> "View":
        """Return the view of another file's pages for a network that is trained on this one.

        Its canvas has the median proportion of the other file, so that a page's height sets the
        scale, as it did for the pages of this one. If these varied, a wide page became smaller, and
        has to become so in any other file too: then the view is the same.
        """
        if self.whole or self.varied:
            return self
        return View.of(file, self.size, window, self.fit, self.normalize)

    @property
    def shape(self) -> tuple[int, int]:
        """The height and width of an image, in pixels."""
        return self.canvas if self.whole else (self.size, self.size)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""
        return (self.channels, *self.shape)


def _geometric_median(values: NDArray[np.float64]) -> float:
    """Return the median, or the geometric mean of the two values in the middle.

    It treats tall and wide images alike: the median of 1/5 and 5 is 1.
    """
    ordered = np.sort(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    return float(low if low == high else np.sqrt(low * high))


MAX_EVAL_ROWS, MAX_EVAL_VALUES = 256, 1 << 22  # of a batch, where no gradients need memory


def eval_batch_size(view: View) -> int:
    """Return the number of images in a batch without gradients."""
    return max(1, min(MAX_EVAL_ROWS, MAX_EVAL_VALUES // math.prod(view.input_shape)))


class Provenance(TypedDict, total=False):
    """Where the images of a dataset come from, as `prep` writes it.

    `kind` is synthetic if any image is. `source` is the name of the archive, `reader` that of the
    code that read it; `digest` and `bytes` are of its images. `via` says how it was found.
    Earlier runs may lack some.
    """

    kind: Literal["real", "synthetic"]
    source: str
    digest: str
    reader: str
    bytes: int
    via: str


def source_line(provenance: Mapping[str, Any]) -> str:
    """Return the kind and source of a dataset, in one line."""
    return f"{provenance.get('kind', 'unknown')} data: {provenance.get('source', 'unknown')}"
