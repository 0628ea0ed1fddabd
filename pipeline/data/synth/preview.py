"""Preview images of synthetic data: a table of glyphs, a grid mixed with real pages, samples."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from beton import rng
from pipeline.data.base import Pixels, Source
from pipeline.data.synth import pen
from pipeline.data.synth.glyphs import CAPITAL_HEIGHT, load_glyphs

CELL = 64  # pixels: a character's square in a preview
TABLE_COLUMNS = 26
GRID_ROWS, GRID_COLUMNS = 8, 16
WINDOW = 680  # pixels of a page in a cell of the grid


def glyph_table() -> Image.Image:
    """Draw all forms of the 62 characters: plain forms black, joined-up forms grey."""
    cells = []
    unit = 0.55 * CELL / CAPITAL_HEIGHT
    for glyphs in load_glyphs().values():
        for glyph in glyphs:
            points = glyph.sharp * (unit, -unit)
            points += (CELL / 2 - (points[:, 0].min() + points[:, 0].max()) / 2, 0.72 * CELL)
            cover = np.zeros((CELL, CELL), np.uint8)
            path = np.column_stack([points, np.full(len(points), 1.5)])
            pen.draw_strokes(path, glyph.starts, True, cover)
            cells.append(255 - (cover // 2 if glyph.script else cover))
    return _grid(cells, TABLE_COLUMNS)


def mixed_grid(real: Source, synthetic: Source, seed: int = 0) -> tuple[Image.Image, list[str]]:
    """Return a grid of random images, half of them from each source, and its key.

    The key has a line per row of the grid, with R or S for each cell.
    """
    count = GRID_ROWS * GRID_COLUMNS
    numbers = rng.uniform(seed, 1, np.arange(count), rng.PLACE, 2)
    is_real = np.argsort(numbers[:, 0]) < count // 2
    cells = []
    for cell, fraction in enumerate(numbers[:, 1]):
        source = real if is_real[cell] else synthetic
        cells.append(_thumbnail(source.image(int(fraction * len(source)))))
    letters = np.where(is_real, "R", "S").reshape(GRID_ROWS, GRID_COLUMNS)
    return _grid(cells, GRID_COLUMNS), [" ".join(row) for row in letters]


def sample_sheet(source: Source, per_class: int, columns: int) -> Image.Image:
    """Return `per_class` evenly spaced images of each class in turn, `columns` in a row.

    The source's images have one size and are shown twice as large, with their colours.
    """
    labels = source.annotations.labels
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    steps = np.arange(per_class)
    cells = []
    for row in np.concatenate([rows[steps * len(rows) // per_class] for rows in of_class]).tolist():
        decoded = source.decoded(row)
        grey = np.repeat(decoded.grey[:, :, None], 3, axis=2)
        cells.append(grey if decoded.colour is None else decoded.colour)
    height, width, _ = cells[0].shape
    lines = -(-len(cells) // columns)
    sheet = np.zeros((lines * columns, height, width, 3), np.uint8)
    sheet[: len(cells)] = cells
    pixels = sheet.reshape(lines, columns, height, width, 3).swapaxes(1, 2)
    image = Image.fromarray(pixels.reshape(lines * height, columns * width, 3))
    return image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)


def _thumbnail(image: Pixels) -> Pixels:
    """Return the square around the ink as a cell, uint8 (CELL, CELL), black on white."""
    if np.median(image) < 128:
        image = 255 - image
    window = min(WINDOW, *image.shape)
    inked = np.argwhere(image < 128)
    middle = (inked.min(axis=0) + inked.max(axis=0) + 1) // 2 if len(inked) else (0, 0)
    top, left = np.clip(middle - np.array(window // 2), 0, np.array(image.shape) - window)
    square = Image.fromarray(image[top : top + window, left : left + window])
    return np.asarray(square.resize((CELL, CELL), Image.Resampling.BOX))


def _grid(cells: Sequence[Pixels], columns: int) -> Image.Image:
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * columns, CELL, CELL), 255, np.uint8)
    sheet[: len(cells)] = cells
    pixels = sheet.reshape(rows, columns, CELL, CELL).swapaxes(1, 2)
    return Image.fromarray(pixels.reshape(rows * CELL, columns * CELL))
