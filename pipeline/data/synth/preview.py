"""Pictures of the generator's work: the table of forms, synthetic characters among real ones."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from beton import rng
from pipeline.data.sources.base import Pixels, Source
from pipeline.data.synth import pen
from pipeline.data.synth.glyphs import CAPITAL_HEIGHT, load_glyphs

CELL = 64  # pixels: a character's square in a picture
ACROSS = 26  # forms in a row of the table
ROWS, COLUMNS = 8, 16  # characters in a mixed grid
WINDOW = 680  # pixels of a page in a cell of a mixed grid


def glyph_table() -> Image.Image:
    """Draw all forms of the 62 characters: plain ones black, those of joined-up hands grey."""
    cells = []
    unit = 0.55 * CELL / CAPITAL_HEIGHT
    for glyphs in load_glyphs().values():
        for glyph in glyphs:
            points = glyph.sharp * (unit, -unit)
            low, high = points.min(axis=0)[0], points.max(axis=0)[0]
            points += (CELL / 2 - (low + high) / 2, 0.72 * CELL)
            cover = np.zeros((CELL, CELL), np.uint8)
            line = np.column_stack([points, np.full(len(points), 1.5)])
            pen.draw_strokes(line, glyph.starts, True, cover)
            cells.append(255 - (cover // 2 if glyph.script else cover))
    return _grid(cells, ACROSS)


def mixed_grid(real: Source, synthetic: Source, seed: int = 0) -> tuple[Image.Image, list[str]]:
    """Draw real and synthetic characters side by side, and return the key to which is which.

    Every cell takes a picture at random from either source; the key has a line per row, R or S for
    each cell.
    """
    count = ROWS * COLUMNS
    numbers = rng.uniform(seed, 1, np.arange(count), rng.PLACE, 2)
    is_real = np.argsort(numbers[:, 0]) < count // 2  # as many of each
    cells = []
    for row, which in enumerate(numbers[:, 1]):
        source = real if is_real[row] else synthetic
        cells.append(_thumbnail(source.image(int(which * len(source)))))
    letters = np.where(is_real, "R", "S").reshape(ROWS, COLUMNS)
    return _grid(cells, COLUMNS), [" ".join(line) for line in letters]


def _thumbnail(image: Pixels) -> Pixels:
    """Return the square around the ink as a cell, black on white."""
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
    sheet = np.full((rows * CELL, columns * CELL), 255, np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = cell
    return Image.fromarray(sheet)
