"""Placeholder until the pixels branch is merged."""
from dataclasses import dataclass
POLARITY_IN_WORDS = {"dark": "dark ink on light paper", "light": "light ink on dark paper", "each": "each image's most frequent value is its paper"}
@dataclass(frozen=True)
class Histogram:
    """Counts (n,) of values between edges (n + 1,)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Copies:
    """Groups of images with equal pixels; blank images are in none.

    `images` are in `groups` of two or more. `across_splits` of the groups are in several splits,
    `disagreeing` of them in several classes. `examples` are the names of the first two images of
    some groups, those that disagree first.
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
    images; `scale_in_words` explains it. `warnings` are sentences.
    """

    images: int
    modes: dict[str, int]
    changes: dict[str, int]
    sizes: tuple[tuple[int, int, int], ...]
    distinct_sizes: int
    height: Histogram
    width: Histogram
    ink: Histogram
    blank: int
    blank_by_class: dict[str, int]
    blank_classes: tuple[str, ...]
    copies: Copies
    polarity: str
    disagreeing: int
    inverted: int
    scale: tuple[float, float] | None
    scale_in_words: str
    warnings: tuple[str, ...]

