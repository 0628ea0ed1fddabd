"""Decisions on the pixels of a whole dataset: scale, blank images, polarity; or errors that ask."""

from pathlib import Path

import numpy as np

from pipeline.data.base import Ints, LayoutError, Source, SourceError
from pipeline.data.pixels.measures import Measures
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.pixels.polarity import (
    DARK,
    LIGHT,
    Ink,
    Mask,
    decide_polarity,
    is_blank,
    shows_ink,
)
from pipeline.data.pixels.scale import Scale, choose_scale

FEW_LEVELS = 32  # of 256: images that use fewer hold numbers, such as 0 and 1
MAX_BLANK = 0.01  # fraction of a dataset's images
# Of a given scale: by how much other images may exceed it. Their values are clipped.
SCALE_TOLERANCE = 0.1


def check_scale(path: Path, options: PixelOptions, measures: Measures) -> Scale | None:
    """Return the scale of deep grey levels: the given one if there is one, else the images' own.

    Raises SourceError for images that exceed the given scale.
    """
    scale = choose_scale(measures)
    if options.scale is None:
        return scale
    given = Scale(*options.scale)
    if scale is None:
        return None
    deep = measures[measures["depth"] > 0]
    low, high = float(deep["low"].min()), float(deep["high"].max())
    tolerated = SCALE_TOLERANCE * (given.high - given.low)
    if low < given.low - tolerated or high > given.high + tolerated:
        raise SourceError(
            f"{path}: got grey levels from {low:g} to {high:g}, expected "
            f"{given.low:g} to {given.high:g}, the scale of the training dataset"
        )
    return given


def check_blank(
    source: Source, options: PixelOptions, kept: Ints, measures: Measures, scale: Scale | None
) -> None:
    """Raise LayoutError if too many of the images `kept`, or all images of a class, are blank."""
    blank: Mask = is_blank(measures)
    if options.allow_blank or not blank.any():
        return
    annotations = source.annotations
    labels = annotations.labels[kept]
    counts = np.bincount(labels, minlength=len(annotations.classes))
    of_class = np.bincount(labels[blank], minlength=len(annotations.classes))
    whole = np.flatnonzero((counts > 0) & (of_class == counts))
    if len(whole):
        reason = f"all {counts[whole[0]]:,} images of class {annotations.classes[whole[0]]!r}"
        blank = labels == whole[0]
    elif blank.mean() > MAX_BLANK:
        reason = f"{blank.sum():,} of {len(blank):,} images"
    else:
        return
    example = source.name(int(kept[blank.argmax()]))
    if scale is not None and (measures["depth"][blank] > 0).any():
        reason += f", with the grey levels {scale.low:g} to {scale.high:g} as black and white,"
    if 0 < (lightest := int(measures["lightest"].max())) < FEW_LEVELS:
        raise SourceError(
            f"{source.path}: got grey levels from 0 to {lightest}, for example in "
            f"{example}, expected 0 to 255: multiply them"
        )
    raise LayoutError(
        f"{source.path}: {reason} are blank, for example {example}", ["--allow-blank"]
    )


def settle_polarity(path: Path, options: PixelOptions, measures: Measures) -> Ink:
    """Return the polarity of the dataset. Raises LayoutError if it is undecided."""
    if options.polarity != "auto":
        return options.polarity
    decided, expected = decide_polarity(measures), options.expected_polarity
    if decided is None and expected is None:
        dark, light = (int(shows_ink(measures, ink).sum()) for ink in (DARK, LIGHT))
        raise LayoutError(
            f"{path}: dark ink on light paper, or light ink on dark paper? of "
            f"{len(measures):,} images, {dark:,} show dark ink and {light:,} light ink",
            ["--polarity dark", "--polarity light", "--polarity each"],
        )
    if decided and expected and decided != expected:
        raise LayoutError(
            f"{path}: got images with {decided} ink, expected {expected} ink, like the "
            "training dataset",
            [f"--polarity {decided}"],
        )
    result = decided or expected
    assert result is not None
    return result
