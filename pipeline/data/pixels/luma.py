"""Luma: the grey level of a colour, by ITU-R 601-2 in units of 2^-16, as Pillow computes it."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import Grey

LUMA = (19595, 38470, 7471)  # of red, green and blue


def luma(values: NDArray[Any]) -> Grey:
    """Return the luma (h, w) of red, green and blue (3, h, w), rounded for bytes."""
    if values.dtype == np.uint8:
        wide = sum(values[i].astype(np.uint32) * np.uint32(LUMA[i]) for i in range(3))
        return cast(Grey, ((wide + np.uint32(1 << 15)) >> np.uint32(16)).astype(np.uint8))
    weighed = sum(values[i] * np.float64(LUMA[i] / (1 << 16)) for i in range(3))
    return np.asarray(weighed, np.float32)
