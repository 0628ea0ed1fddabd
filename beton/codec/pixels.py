"""The compiled kernels between pixels and runs; `beton.codec.ink` explains runs."""

import numpy as np

from beton.arrays import RunArray, Uint8Array
from beton.jit import kernel

LINE = 64  # pixels that are compared at once


@kernel
def _is_blank(row: Uint8Array, background: int) -> bool:
    # Most rows are blank; without an early exit, the comparison compiles to vector instructions.
    differing = np.uint8(0)
    for x in range(row.size):
        differing |= row[x] ^ np.uint8(background)
    return bool(differing == 0)


@kernel
def count_runs(image: Uint8Array, background: int) -> int:
    """Return the number of runs of an image."""
    count = 0
    for y in range(image.shape[0]):
        row = image[y]
        if _is_blank(row, background):
            continue
        before = background
        for start in range(0, row.size, LINE):
            block = row[start : start + LINE]
            if _is_blank(block, background):
                before = background
                continue
            for x in range(block.size):
                count += (block[x] != before) & (block[x] != background)
                before = block[x]
    return count


@kernel
def find_runs(image: Uint8Array, background: int, runs: RunArray) -> int:
    """Write the image's runs to `runs`; return their number, or -3 if they do not fit."""
    n = 0
    width = image.shape[1]
    for y in range(image.shape[0]):
        row = image[y]
        if _is_blank(row, background):
            continue
        x = 0
        while x < width:
            value = row[x]
            start = x
            while x < width and row[x] == value:
                blank = value == background and x % LINE == 0
                if blank and _is_blank(row[x : x + LINE], background):
                    x = min(x + LINE, width)
                else:
                    x += 1
            if value != background:
                if n == runs.shape[0]:
                    return -3
                runs[n, 0], runs[n, 1], runs[n, 2], runs[n, 3] = y, start, x, value
                n += 1
    return n


@kernel
def paint(runs: RunArray, image: Uint8Array) -> None:
    """Paint runs on an image of the background."""
    for i in range(runs.shape[0]):
        image[runs[i, 0], runs[i, 1] : runs[i, 2]] = runs[i, 3]
