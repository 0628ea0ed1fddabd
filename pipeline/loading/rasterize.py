"""Runs of ink on a device → pictures at size: exact box filtering in torch operations alone.

The same code runs on a CPU and on a GPU, so what a CPU test proves is what a GPU executes. A batch
crosses to the device as runs, a few KB a page, and no full-size picture is ever made.

Area averaging is linear in the runs. In units of output pixels, a run is a rectangle, and its
overlap with the pixels of a line is the running sum of four numbers: +1 where it begins and -1
where it ends, each split over two neighbours in proportion to where it falls. A rectangle's overlap
with all pixels is the product of two such lines, so sixteen numbers per run are scattered and two
cumulative sums, along y and along x, finish the work: no loop, and no number of steps that depends
on the scale, be it down or up. (These are the summed-area tables of Crow 1984, read backwards.)

It trades a few more scattered numbers per run for that generality, and sums in float64: hundreds of
runs may begin and end in one pixel, and what is left of them is small. So the order in which a GPU
adds them does not show in the float32 result either, but for a last bit now and then.
"""

import torch
from torch import Tensor

from beton.codec.kernels import CENTRE, SHEAR, WINDOW_HEIGHT, WINDOW_WIDTH, X0, Y0


def rasterize(
    runs: Tensor,
    offsets: Tensor,
    background: Tensor,
    geometry: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Return windows of pictures made of runs: grey levels 0 to 255, float32 (B, 1, height, width).

    `runs` uint16 (capacity, 4) are rows of (row, start, end, value), end exclusive, which do not
    overlap. Picture i owns rows offsets[i] to offsets[i + 1] of them, `offsets` int64 (B + 1,);
    rows past the last may hold anything. `background` uint8 (B,) is the value where no run is, and
    outside the picture. `geometry` float64 (B, 6) are rows of (x0, y0, width, height, shear,
    centre) in source pixels: the window (x0, y0, width, height) fills the output, and source row y
    is seen shifted left by shear * (y + 1/2 - centre). Pictures without runs may have any geometry.
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

    # Two spare rows and columns take what falls on the far edge.
    lines = owner[:, None] * (height + 2) + rows
    pixels = lines[:, :, None] * (width + 2) + columns[:, None, :]
    numbers = weight[:, None, None] * along_y[:, :, None] * along_x[:, None, :]
    sums = torch.zeros(
        batch * (height + 2) * (width + 2), dtype=torch.float64, device=runs.device
    ).index_add_(0, pixels.flatten(), numbers.flatten())
    sums = sums.view(batch, height + 2, width + 2).cumsum(1).cumsum(2)[:, :height, :width]
    return (sums + background[:, None, None])[:, None].float()


def _split(begin: Tensor, end: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return where and what to add, (n, 4) each, for lines [begin, end) cut to [0, size]."""
    edges = torch.stack([begin, end], dim=1).clamp(0, size)
    whole = edges.floor()
    part = edges - whole
    at = whole.long()
    sign = torch.tensor([1.0, -1.0], dtype=edges.dtype, device=edges.device)
    return torch.cat([at, at + 1], dim=1), torch.cat([(1 - part) * sign, part * sign], dim=1)
