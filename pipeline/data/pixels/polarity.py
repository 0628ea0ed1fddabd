"""The polarity of a dataset, dark ink on light paper or light on dark, and each image's paper.

Polarity belongs to the dataset, because one image may show more ink than paper. An image is
evidence in one of two cases, given here for dark ink; light ink is the mirror image:

- Its border is paper: at most BORDER_INK of the outermost ring is dark, no more than of the whole
  image, and most of a second ring is light. A tight crop of a stroke fails, because ink fills its
  border; a scan with a black frame fails, because its second ring contradicts.
- Its thin lines are dark, at most half of the image is dark, and the border is no darker than the
  image, or hardly darker where much is dark. This holds on paper whose light varies so much that
  the border crosses the threshold, and not for a tight crop with some specks of paper at its edge.

The dataset is decided if at least half of its images are evidence and nine tenths of the evidence
agree. In experiments, digits, letters, clothes and pages, on even paper and on photographed paper,
reached nine tenths. Tight crops of single strokes and letters stayed below half, or their evidence
was correct. Only crops of frames thicker than a twelfth of the image are decided against the
user's intention: they are the same images as light squares on dark paper. Noise and textures have
no paper and stay undecided.

An image that was composited on paper shows its paper, whatever its pixels are.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.pixels.measures import ON_BLACK, ON_WHITE, Measures, has_change

Ink = Literal["dark", "light", "each"]  # "each": the paper is every image's own background
DARK: Ink = "dark"
LIGHT: Ink = "light"
EACH: Ink = "each"

BLANK_CONTRAST = 16  # grey levels: compression leaves less than this on blank paper
BORDER_INK = 0.25
LOBES_OPPOSED, LOBES_CLEAR = 0.3, 0.4
BORDER_EXCESS, SHADED = 0.15, 0.02
ENOUGH_EVIDENCE, AGREEMENT = 0.5, 0.9

Mask = NDArray[np.bool_]
Column = NDArray[np.float64]


def is_blank(measures: Measures) -> Mask:
    """Return which images (n,) show nothing: their 8-bit values differ by less than 16.

    In colour, these are the values of each channel.
    """
    blank: Mask = measures["contrast"] < BLANK_CONTRAST
    return blank


def _is_evidence(border: Column, inner: Column, whole: Column, lobes: Column) -> Mask:
    """Return which images show dark ink, given the dark fractions and the lobes of MEASURES."""
    on_paper = (border <= BORDER_INK) & (border <= whole) & (inner <= 0.5)
    excess = np.where(whole >= SHADED, BORDER_EXCESS, 0)
    thin = (lobes <= -LOBES_CLEAR) & (whole <= 0.5) & (border <= whole + excess)
    return (on_paper & (lobes <= LOBES_OPPOSED)) | thin


def shows_ink(measures: Measures, ink: str) -> Mask:
    """Return which images (n,) are evidence for "dark" or "light" ink."""
    border, inner, whole, lobes = (
        measures[name].astype(np.float64) for name in ("border_dark", "inner_dark", "dark", "lobes")
    )
    composited, otherwise = ON_WHITE, ON_BLACK
    if ink == LIGHT:
        border, inner, whole, lobes = 1 - border, 1 - inner, 1 - whole, -lobes
        composited, otherwise = otherwise, composited
    evidence = _is_evidence(border, inner, whole, lobes) & ~has_change(measures, otherwise)
    return (evidence | has_change(measures, composited)) & ~is_blank(measures)


def decide_polarity(measures: Measures) -> Ink | None:
    """Return the ink of a dataset, "dark" or "light", or None if the images do not decide it."""
    measures = measures[~is_blank(measures)]
    if not len(measures):
        return None
    votes = {ink: int(np.count_nonzero(shows_ink(measures, ink))) for ink in (DARK, LIGHT)}
    total = sum(votes.values())
    if total < ENOUGH_EVIDENCE * len(measures):
        return None
    ink = max(votes, key=lambda name: votes[name])
    return ink if votes[ink] >= AGREEMENT * total else None


def _has_dark_background(measures: Measures) -> Mask:
    """Return whether each image's most frequent value is up to the image's threshold."""
    levels = measures["dark_level"].astype(np.int64) + measures["light_level"]
    dark: Mask = measures["background"] <= levels // 2
    return dark


def _has_light_paper(measures: Measures, polarity: str) -> Mask:
    """Return whether the paper of each image is lighter than its ink."""
    if polarity == EACH:
        return ~_has_dark_background(measures)
    light = has_change(measures, ON_WHITE)
    return light if polarity == LIGHT else light | ~has_change(measures, ON_BLACK)


def paper(measures: Measures, polarity: str) -> NDArray[np.uint8]:
    """Return each image's grey level of the paper, uint8 (n,).

    It is the stored background, the most frequent value, unless that is on the side of the ink;
    then it is the most frequent value on the other side of the threshold. The paper of a blank
    image, and of every image for polarity "each", is the stored background.
    """
    light = _has_light_paper(measures, polarity)
    inked = (light == _has_dark_background(measures)) & ~is_blank(measures)
    other = np.where(light, measures["light_paper"], measures["dark_paper"])
    return np.where(inked, other, measures["background"])


def ink_fraction(measures: Measures, polarity: str) -> Column:
    """Return the fraction of each image's pixels (n,) on the side of the ink; 0 if blank."""
    dark = measures["dark"].astype(np.float64)
    ink = np.where(_has_light_paper(measures, polarity), dark, 1 - dark)
    return np.where(is_blank(measures), 0.0, ink)
