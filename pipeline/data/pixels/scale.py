"""The scale of deep grey levels: which value of a dataset becomes black, and which white.

One scale holds for all deep images of a dataset, so that equal values stay equal. It is the range
of the format where the dataset covers at least half of it, else the dataset's own range: 12 bits
stored in 16 would otherwise become almost one grey level.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.base import Grey, Pixels
from pipeline.data.pixels.measures import DEPTHS, Measures

# Of a format: the greatest value of 16 bits, and of fractions and bytes stored as float.
_WORD_RANGE = 65535.0
_FLOAT_RANGES = (1.0, 255.0)


@dataclass(frozen=True)
class Scale:
    """A linear map of grey levels to 8 bits: `low` becomes 0 and `high` becomes 255.

    If both are equal, all grey levels become 0.
    """

    low: float
    high: float

    def to_8bit(self, grey: Grey) -> Pixels:
        """Return grey levels (h, w) as uint8: uint8 unchanged, others mapped, rounded, clipped."""
        if grey.dtype == np.uint8:
            return grey
        if self.high <= self.low:
            return np.zeros(grey.shape, np.uint8)
        fractions = (grey.astype(np.float64) - self.low) / (self.high - self.low)
        levels: Pixels = np.rint(255 * fractions.clip(0, 1)).astype(np.uint8)
        return levels


def full_scale(dtype: np.dtype[Any]) -> Scale:
    """Return the range of a format: 0 to 1 for floats, else 16 bits; uint8 ignores it."""
    return Scale(0.0, _FLOAT_RANGES[0] if dtype.kind == "f" else _WORD_RANGE)


def choose_scale(measures: Measures) -> Scale | None:
    """Return the scale of a dataset's deep images, None if it has none."""
    deep = measures[measures["depth"] > 0]
    if not len(deep):
        return None
    return _format_range(deep) or Scale(float(deep["low"].min()), float(deep["high"].max()))


def _format_range(deep: Measures) -> Scale | None:
    """Return the range of the format that images cover at least half of, None without one."""
    low, high = float(deep["low"].min()), float(deep["high"].max())
    floats = deep["depth"] == DEPTHS.index("float32")
    tops = _FLOAT_RANGES if floats.all() else () if floats.any() else (_WORD_RANGE,)
    for top in tops:
        if low >= 0 and high <= top and high - low >= top / 2:
            return Scale(0.0, top)
    return None


def describe_scale(measures: Measures, scale: Scale | None) -> str:
    """Return in a sentence how deep grey levels become 8 bits, "" without deep images."""
    deep = measures[measures["depth"] > 0]
    if scale is None or not len(deep):
        return ""
    low, high = float(deep["low"].min()), float(deep["high"].max())
    kinds = " and ".join(DEPTHS[depth] for depth in np.unique(deep["depth"]))
    found = f"{len(deep):,} images have {kinds} grey levels from {low:,.6g} to {high:,.6g}"
    ends = f"{scale.low:,.6g} to {scale.high:,.6g}"
    if scale == _format_range(deep):
        return f"{found}; the range of the format, {ends}, becomes 0 to 255"
    if (scale.low, scale.high) == (low, high):
        return f"{found}; the dataset's own range becomes 0 to 255"
    return f"{found}; {ends} becomes 0 to 255"
