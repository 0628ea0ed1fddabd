"""Rasterize runs of ink at any size on a device: exact box filtering in torch operations.

The same code runs on a CPU and on a GPU, so a CPU test covers the GPU code. A batch is copied to
the device as runs, a few KB a page, and no full-size image is ever made.

Area averaging is linear in the runs. In output pixels, a run is a rectangle. Its overlap with the
pixels of a line is the running sum of four numbers: +1 at the start and -1 at the end, each split
over two neighbouring pixels in proportion to its position. A rectangle's overlap with all pixels is
the product of two such lines. So sixteen numbers per run are scattered, and two cumulative sums,
along y and along x, finish the work: no loop, and the same number of steps at any scale. (These are
the summed-area tables of Crow 1984, read backwards.)

Sums are in float64: hundreds of runs may start and end in one pixel, and their sum is small. So the
order in which a GPU adds them changes at most the last bit of the float32 result.
"""

import torch
from torch import Tensor

from beton.codec.resizing import CENTRE, SHEAR, WINDOW_HEIGHT, WINDOW_WIDTH, X0, Y0


def rasterize(
    runs: Tensor, offsets: Tensor, background: Tensor, geometry: Tensor, height: int, width: int
) -> Tensor:
    """Return windows of images made of runs: grey levels 0 to 255, float32 (B, 1, height, width).

    `runs`, uint16 (capacity, 4), are rows of (row, start, end, value), end exclusive, that do not
    overlap. Image i has the runs offsets[i] to offsets[i + 1]; `offsets` are int64 (B + 1,), and
    later runs may hold anything. `background`, uint8 (B,), is the value outside runs and outside
    the image. `geometry`, float64 (B, 6), are rows of (x0, y0, width, height, shear, centre) in
    source pixels: the window (x0, y0, width, height) fills the output, and source row y is shifted
    left by shear * (y + 1/2 - centre). Images without runs may have any geometry.
    """
    batch = len(background)
    row, start, end, value = runs.to(torch.float64).unbind(1)
    position = torch.arange(len(runs), device=runs.device)
    owner = torch.searchsorted(offsets, position, right=True) - 1
    used = owner < batch
    owner = owner.clamp(max=batch - 1)
    window = geometry[owner].where(used[:, None], 1.0)

    to_column = width / window[:, WINDOW_WIDTH]
    to_row = height / window[:, WINDOW_HEIGHT]
    left = window[:, X0] + window[:, SHEAR] * (row + 0.5 - window[:, CENTRE])
    columns, along_x = _split((start - left) * to_column, (end - left) * to_column, width)
    top = row - window[:, Y0]
    rows, along_y = _split(top * to_row, (top + 1) * to_row, height)
    weight = torch.where(used, value - background[owner], 0.0)

    # Two spare rows and columns hold the numbers at the far edge.
    lines = owner[:, None] * (height + 2) + rows
    pixels = lines[:, :, None] * (width + 2) + columns[:, None, :]
    numbers = weight[:, None, None] * along_y[:, :, None] * along_x[:, None, :]
    sums = torch.zeros(
        batch * (height + 2) * (width + 2), dtype=torch.float64, device=runs.device
    ).index_add_(0, pixels.flatten(), numbers.flatten())
    sums = sums.view(batch, height + 2, width + 2).cumsum(1).cumsum(2)[:, :height, :width]
    return (sums + background[:, None, None])[:, None].float()


def _split(begin: Tensor, end: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the positions and numbers to add, (n, 4) each, for lines [begin, end) in [0, size]."""
    edges = torch.stack([begin, end], dim=1).clamp(0, size)
    whole = edges.floor()
    part = edges - whole
    at = whole.long()
    numbers = torch.cat([1 - part, part], dim=1)
    numbers[:, 1::2] *= -1  # at the ends
    return torch.cat([at, at + 1], dim=1), numbers
