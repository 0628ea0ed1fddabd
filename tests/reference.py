"""Simple, slow float64 versions of the kernels, as references for tests."""

import numpy as np
from numpy.typing import NDArray


def cover(n: int, start: float, size: float, cells: int) -> NDArray[np.float64]:
    """Return the overlap (cells, n) of `cells` cells of a window with n unit pixels, in cells."""
    edges = start + np.arange(cells + 1) * size / cells
    pixels = np.arange(n)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    covered: NDArray[np.float64] = np.maximum(overlap, 0) * cells / size
    return covered


def box_resize(
    image: NDArray[np.uint8],
    background: int,
    geometry: tuple[float, float, float, float, float, float],
    height: int,
    width: int,
) -> NDArray[np.float64]:
    """Area-average a window of an image to (height, width); outside is background."""
    x0, y0, w, h, shear, centre = geometry
    contrast = image.astype(np.float64) - background
    if shear == 0:
        rows = contrast @ cover(image.shape[1], x0, w, width).T
    else:
        shifts = x0 + shear * (np.arange(len(image)) + 0.5 - centre)
        pairs = zip(shifts, contrast, strict=True)
        rows = np.stack([cover(image.shape[1], x, w, width) @ row for x, row in pairs])
    return background + cover(image.shape[0], y0, h, height) @ rows


def box_resize_rgb(
    image: NDArray[np.uint8], window: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """Area-average a window (x0, y0, width, height) of an image (h, w, 3) to (height, width, 3)."""
    x0, y0, w, h = window
    down, across = cover(image.shape[0], y0, h, height), cover(image.shape[1], x0, w, width)
    averaged: NDArray[np.float64] = np.einsum(
        "ih,hwc,jw->ijc", down, image.astype(np.float64), across, optimize=True
    )
    return averaged
