"""Plain, slow float64 versions of the fast kernels, to test them against."""

import numpy as np
from numpy.typing import NDArray


def cover(n: int, start: float, size: float, cells: int) -> NDArray[np.float64]:
    """Overlap, in cells, of n unit pixels with `cells` cells of the window [start, start + size)."""
    edges = start + np.arange(cells + 1) * size / cells
    pixels = np.arange(n)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * cells / size


def box_resize(
    image: NDArray[np.uint8],
    background: int,
    geometry: tuple[float, float, float, float, float, float],
    height: int,
    width: int,
) -> NDArray[np.float64]:
    """Area-average a window of a picture to (height, width); outside of it is background."""
    x0, y0, w, h, shear, centre = geometry
    contrast = image.astype(np.float64) - background
    rows = np.stack(
        [
            cover(image.shape[1], x0 + shear * (y + 0.5 - centre), w, width) @ contrast[y]
            for y in range(len(image))
        ]
    )
    return background + cover(image.shape[0], y0, h, height) @ rows
