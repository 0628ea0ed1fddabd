"""What only pixels show of a dataset: sizes, modes, blank images, copies, polarity and scale.

A survey is computed from one record per image (`measures.py`), which the pass that decodes all
images collects. It is stored in the manifest and shown on the data card.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.data.base import SPLITS, TRAIN, VALIDATION, Ints
from pipeline.data.pixels.colour import Colours
from pipeline.data.pixels.measures import (
    CHANGES,
    DEPTHS,
    DOUBTFUL,
    PROFILED,
    UNREADABLE,
    Measures,
    has_change,
)
from pipeline.data.pixels.polarity import (
    DARK,
    EACH,
    LIGHT,
    Ink,
    ink_fraction,
    is_blank,
    paper,
    shows_ink,
)
from pipeline.data.pixels.scale import Scale, describe_scale

COMMON_SIZES = 10
BINS = 20
EXAMPLES = 3  # groups of equal images that are named
WIDE_PROPORTIONS = 2.0  # ratio of the 95th to the 5th percentile of width / height
POLARITY_IN_WORDS = {
    DARK: "dark ink on light paper",
    LIGHT: "light ink on dark paper",
    EACH: "each image's most frequent value is its paper",
}
_SIDE = 1 << 16  # above every height and width
_GREY_MODES = (b"1", b"L", b"LA", b"La", b"I", b"F")  # and all of I;16


@dataclass(frozen=True)
class Histogram:
    """Counts (n,) of values between ascending edges (n + 1,); two edges may be equal.

    Raises ValueError for other values, which the manifest of another program may hold.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        pairs = list(pairwise(self.edges))
        ascending = all(a < b or (a == b and len(pairs) == 1) for a, b in pairs)
        if not len(pairs) == len(self.counts) > 0 or not ascending:
            raise ValueError(f"histogram: got the edges {self.edges}, expected ascending ones")
        if min(self.counts) < 0:
            raise ValueError(f"histogram: got the counts {self.counts}, expected 0 or more")

    @classmethod
    def of(cls, values: NDArray[np.generic]) -> Self:
        """Count values (n,), n > 0, in BINS bins from the least to the greatest."""
        if values.min() == values.max():
            return cls((float(values.min()), float(values.max())), (len(values),))
        counts, edges = np.histogram(values, BINS)
        return cls(tuple(edges.tolist()), tuple(counts.tolist()))


@dataclass(frozen=True)
class Copies:
    """Groups of images with equal pixels; blank images are in none.

    `images` are in `groups` of two or more. `across_splits` of the groups are in several splits,
    `disagreeing` of them in several classes. `examples` are the names of two images of some groups,
    groups of several classes first.
    """

    groups: int
    images: int
    across_splits: int
    disagreeing: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Survey:
    """What only pixels show of n images.

    `modes` and `changes` count images by Pillow's mode and by what decoding changed. `sizes` are
    the commonest (height, width, count), of `distinct_sizes`. `blank` counts blank images, by
    class in `blank_by_class`; `blank_classes` have no other images. `polarity` is "dark" or "light"
    ink, or "each"; the stored background of `disagreeing` images is ink, `inverted` images show the
    other polarity. `scale` are the deep grey levels that become 0 and 255, None without deep
    images; `scale_in_words` explains it. `warnings` are sentences. `colour` is None for images that
    show no colour and are stored as grey; in colour, there is no `ink` and no polarity.
    """

    images: int
    modes: dict[str, int]
    changes: dict[str, int]
    sizes: Annotated[tuple[tuple[int, int, int], ...], Meta(min_length=1)]
    distinct_sizes: int
    height: Histogram
    width: Histogram
    ink: Histogram | None
    blank: int
    blank_by_class: dict[str, int]
    blank_classes: tuple[str, ...]
    copies: Copies
    polarity: Ink
    disagreeing: int
    inverted: int
    scale: tuple[float, float] | None
    scale_in_words: str
    warnings: tuple[str, ...]
    colour: Colours | None = None

    @classmethod
    def of(
        cls,
        measures: Measures,
        labels: Ints,
        splits: Ints,
        classes: Sequence[str],
        name: Callable[[int], str],
        polarity: Ink,
        scale: Scale | None,
        colour: Colours | None = None,
    ) -> Self:
        """Survey n > 0 images: `measures`, `labels` into `classes`, and `splits` are (n,).

        `name` returns the name of an image, given its row.
        """
        blank, has_ink = is_blank(measures), colour is None or colour.stored == "grey"
        blank_in_class = np.bincount(labels[blank], minlength=len(classes))
        in_class = np.bincount(labels, minlength=len(classes))
        wholly = (blank_in_class == in_class) & (in_class > 0)
        sizes, size_counts = _count_sizes(measures)
        opposite = {DARK: LIGHT, LIGHT: DARK}.get(polarity)
        groups = copy_groups(measures)
        survey = cls(
            images=len(measures),
            modes=_count_modes(measures),
            changes=_count_changes(measures),
            sizes=tuple(
                (*divmod(int(sizes[i]), _SIDE), int(size_counts[i]))
                for i in np.argsort(-size_counts, kind="stable")[:COMMON_SIZES]
            ),
            distinct_sizes=len(sizes),
            height=Histogram.of(measures["height"]),
            width=Histogram.of(measures["width"]),
            ink=Histogram.of(ink_fraction(measures, polarity)) if has_ink else None,
            blank=int(blank.sum()),
            blank_by_class={
                classes[i]: int(count) for i, count in enumerate(blank_in_class) if count
            },
            blank_classes=tuple(one for one, alone in zip(classes, wholly, strict=True) if alone),
            copies=_copies(groups, labels, splits, name),
            polarity=polarity,
            disagreeing=int(np.count_nonzero(paper(measures, polarity) != measures["background"])),
            inverted=int(np.count_nonzero(shows_ink(measures, opposite))) if opposite else 0,
            scale=None if scale is None else (scale.low, scale.high),
            scale_in_words=describe_scale(measures, scale),
            warnings=(),
            colour=colour,
        )
        warnings = (
            *_split_warnings(splits),
            *_copy_warnings(survey.copies, groups, splits),
            *_blank_warnings(survey),
            *_polarity_warnings(survey),
            *_shape_warnings(measures, "fitted into" if has_ink else "cropped to"),
            *_mode_warnings(measures),
            *_colour_warnings(survey.colour, measures),
        )
        return replace(survey, warnings=warnings)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for the manifest."""
        plain = asdict(self)
        if self.colour is None:
            del plain["colour"]
        return plain


def copy_groups(measures: Measures) -> Ints:
    """Return the index of the first image with the same pixels, (n,).

    A blank image shows nothing that another could repeat: it is a group of its own.
    """
    one, other = measures["hash"][:, 0], measures["hash"][:, 1]
    order = np.lexsort((other, one))  # stable: the first of equal images comes first
    one, other = one[order], other[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    groups = np.empty(len(order), np.int64)
    groups[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return np.where(is_blank(measures), np.arange(len(order)), groups)


def _count_sizes(measures: Measures) -> tuple[Ints, Ints]:
    """Return the distinct sizes, as height * _SIDE + width, and how often each occurs."""
    return np.unique(
        measures["height"].astype(np.int64) * _SIDE + measures["width"], return_counts=True
    )


def _count_modes(measures: Measures) -> dict[str, int]:
    modes, counts = np.unique(measures["mode"], return_counts=True)
    return {mode.decode(): int(count) for mode, count in zip(modes, counts, strict=True)}


def _count_changes(measures: Measures) -> dict[str, int]:
    found = {change: int(np.count_nonzero(has_change(measures, change))) for change in CHANGES}
    return {change: count for change, count in found.items() if count}


def _copies(groups: Ints, labels: Ints, splits: Ints, name: Callable[[int], str]) -> Copies:
    """Return the copies among images (n,), given the first equal image of each."""
    copied = np.flatnonzero(groups != np.arange(len(groups)))
    firsts = groups[copied]
    across = np.unique(firsts[splits[copied] != splits[firsts]])
    disagreeing = np.unique(firsts[labels[copied] != labels[firsts]])
    # One pair of a group, most telling first: different classes, then splits, then any.
    importance = 2 * (labels[copied] != labels[firsts]) + (splits[copied] != splits[firsts])
    pairs: dict[int, int] = {}
    for i in np.argsort(-importance, kind="stable"):
        pairs.setdefault(int(firsts[i]), int(copied[i]))
        if len(pairs) == EXAMPLES:
            break
    return Copies(
        groups=len(np.unique(firsts)),
        images=len(np.unique(firsts)) + len(copied),
        across_splits=len(across),
        disagreeing=len(disagreeing),
        examples=tuple((name(first), name(copy)) for first, copy in pairs.items()),
    )


def _split_warnings(splits: Ints) -> Iterator[str]:
    if not (splits == TRAIN).any():
        yield "the source gives no training images: the dataset is for evaluation, not for training"


def _copy_warnings(copies: Copies, groups: Ints, splits: Ints) -> Iterator[str]:
    if not copies.groups:
        return
    examples = "; ".join(f"{first!r} and {copy!r}" for first, copy in copies.examples)
    groups_found = "one group" if copies.groups == 1 else f"{copies.groups:,} groups"
    yield f"{copies.images:,} images form {groups_found} of equal pixels: {examples}"
    for split in range(VALIDATION, len(SPLITS)):
        in_split = splits == split
        for earlier in range(split):
            repeated = np.isin(groups[in_split], groups[splits == earlier]).sum()
            if repeated:
                yield (
                    f"{repeated:,} of {in_split.sum():,} {SPLITS[split]} images are copies of "
                    f"{SPLITS[earlier]} images"
                )
    if copies.disagreeing:
        yield f"groups of equal images with different labels: {copies.disagreeing:,}"


def _blank_warnings(survey: Survey) -> Iterator[str]:
    if survey.blank:
        few = "1 image is" if survey.blank == 1 else f"{survey.blank:,} images are"
        yield f"{few} blank ({survey.blank / survey.images:.1%})"
    if survey.blank_classes:
        shown = ", ".join(repr(name) for name in survey.blank_classes[:COMMON_SIZES])
        yield f"classes with only blank images: {shown}"


def _polarity_warnings(survey: Survey) -> Iterator[str]:
    words = POLARITY_IN_WORDS[survey.polarity]
    if survey.disagreeing:
        yield (
            f"images whose most frequent value is ink, not paper ({words}): "
            f"{survey.disagreeing:,}; their paper is the most frequent value on the other side"
        )
    if survey.inverted:
        few = "1 image looks" if survey.inverted == 1 else f"{survey.inverted:,} images look"
        yield f"{few} inverted, against {words} in the dataset"


def _shape_warnings(measures: Measures, fit: str) -> Iterator[str]:
    proportions = measures["width"].astype(np.float64) / measures["height"]
    low, high = np.quantile(proportions, (0.05, 0.95))
    if high > WIDE_PROPORTIONS * low:
        yield (
            f"proportions (width / height) vary from {proportions.min():.3g} to "
            f"{proportions.max():.3g}; all images are {fit} one canvas"
        )


def _mode_warnings(measures: Measures) -> Iterator[str]:
    if unreadable := int(np.count_nonzero(has_change(measures, UNREADABLE))):
        yield f"images whose orientation cannot be read, taken as upright: {unreadable:,}"
    if doubtful := int(np.count_nonzero(has_change(measures, DOUBTFUL))):
        yield f"JPEG files with a flaw in their data, whose pixels may be wrong: {doubtful:,}"
    if profiled := int(np.count_nonzero(has_change(measures, PROFILED))):
        yield (
            f"images with a colour profile other than sRGB, which is ignored: {profiled:,}; their "
            "colours are read as sRGB"
        )
    depths = np.unique(measures["depth"])
    if len(depths) > 1:
        kinds = ", ".join(DEPTHS[depth] for depth in depths)
        yield f"images mix grey levels of types {kinds}; one scale applies to all but uint8"


def _colour_warnings(colour: Colours | None, measures: Measures) -> Iterator[str]:
    n = len(measures)
    if colour is None:
        modes = measures["mode"]
        grey = np.isin(modes, _GREY_MODES) | np.char.startswith(modes, b"I;")
        coloured = int(np.count_nonzero(~grey))
        if 0 < coloured < n:
            yield f"{coloured:,} of {n:,} images are in colour; all are stored as grey"
    elif colour.stored == "grey" and colour.in_colour < n:
        yield (
            f"{colour.in_colour:,} of {n:,} images are in colour; all are stored as grey, and "
            "--colour rgb keeps colours"
        )
    elif colour.stored == "rgb" and not colour.in_colour:
        yield f"all {n:,} images are grey; in colour, their grey levels are repeated"
