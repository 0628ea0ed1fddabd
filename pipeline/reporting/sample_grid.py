"""Grids of sample images in a page: a strip of thumbnails for each class.

All thumbnails of a grid lie in a few PNG sheets, one row of a sheet for each strip, because
hundreds of separate images make a page large and slow. A strip shows its row as a background.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from pipeline.data.base import Pixels

TILE = 64  # pixels: the square of a thumbnail in a sheet, with its gap
GAP = 2  # white pixels at the right and lower edge of a thumbnail
SHEET_ROWS = 128  # strips in a sheet; browsers limit the height of an image


@dataclass(frozen=True)
class Strip:
    """Thumbnails (TILE, TILE) with a title, a remark beside it, and a text alternative."""

    title: str
    remark: str
    alt: str
    tiles: Sequence[Pixels]


@dataclass(frozen=True)
class SampleGrid:
    """Strips of thumbnails, as many side by side as the page's width allows."""

    strips: Sequence[Strip]

    def html(self, name: str) -> str:
        """Return the strips as HTML lists that contain their images."""
        columns = max((len(strip.tiles) for strip in self.strips), default=1) or 1
        lists = ""
        for start in range(0, len(self.strips), SHEET_ROWS):
            strips = self.strips[start : start + SHEET_ROWS]
            url = f"url(data:image/png;base64,{base64.b64encode(_sheet(strips, columns)).decode()})"
            style = f"--columns: {columns}; background-image: {url}"
            lists += f'<ul class="samples" id="{name}-{start}" style="{style}">\n'
            for row, strip in enumerate(strips):
                lists += f"<li><b>{escape(strip.title)}</b><span>{escape(strip.remark)}</span>"
                if strip.tiles:
                    # A background's position in percent is that of the free space.
                    place = 100 * row / max(len(strips) - 1, 1)
                    place_style = f"--tiles: {len(strip.tiles)}; --row: {place:.4f}%"
                    lists += f'<div class="strip" role="img" aria-label="{escape(strip.alt)}" '
                    lists += f'style="{place_style}"></div>'
                lists += "</li>\n"
            lists += "</ul>\n"
        return f'<div class="full">{lists}</div>'


def thumbnail(image: Pixels, paper: int) -> Pixels:
    """Return an image (h, w) as a tile: whole, in its proportions, on paper.

    Large images are area-averaged; small ones are magnified by a whole number.
    """
    inner = TILE - GAP
    height, width = image.shape
    longest = max(height, width)
    if longest <= inner:
        shown = image.repeat(inner // longest, 0).repeat(inner // longest, 1)
    else:
        size = max(1, round(width * inner / longest)), max(1, round(height * inner / longest))
        shown = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    tile = np.full((TILE, TILE), 255, np.uint8)
    tile[:inner, :inner] = paper
    top, left = (inner - shown.shape[0]) // 2, (inner - shown.shape[1]) // 2
    tile[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return tile


def _sheet(strips: Sequence[Strip], columns: int) -> bytes:
    """Return the PNG of strips, one below the other."""
    sheet = np.full((len(strips), TILE, columns, TILE), 255, np.uint8)
    for row, strip in enumerate(strips):
        for column, tile in enumerate(strip.tiles):
            sheet[row, :, column] = tile
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(len(strips) * TILE, columns * TILE)).save(file, "png")
    return file.getvalue()
