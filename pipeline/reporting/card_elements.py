"""Elements of a data card: grids of sample images, histograms, and tables side by side.

All thumbnails of a grid lie in a few PNG sheets, one row of a sheet for each strip, because
hundreds of separate images make a page large and slow. A strip shows its row as a background.
Histograms are drawn without matplotlib, whose import takes several times as long as the card.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from pipeline.data.base import Pixels
from pipeline.reporting.html import Table

TILE = 64  # pixels: the square of a thumbnail in a sheet, with a frame of one pixel
FRAME = 200  # the frame's grey: visible on black and on white
SHEET_ROWS = 128  # strips in a sheet; browsers limit the height of an image
PLOT = 240, 132  # pixels: width and height of a histogram, with its labels
TOP, BASE = 20, 92  # pixels: the ends of its y axis


@dataclass(frozen=True)
class Strip:
    """Thumbnails with a title, a remark beside it, and a text alternative.

    They are (TILE, TILE), or (TILE, TILE, 3) in colour, all of a grid alike.
    """

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


@dataclass(frozen=True)
class SideBySide:
    """Tables beside each other where the page is wide enough, else one below the other."""

    tables: Sequence[Table]

    def html(self, name: str) -> str:
        """Return the tables as HTML."""
        parts = [table.html(f"{name}-{number}") for number, table in enumerate(self.tables)]
        width = " full" if len(parts) > 1 else ""
        return f'<div class="side-by-side{width}">{"".join(parts)}</div>'


@dataclass(frozen=True)
class Bins:
    """The numbers of images (n,) between edges (n + 1,)."""

    edges: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True)
class Histograms:
    """Histograms beside each other, by the label of their x axis."""

    panels: Mapping[str, Bins]
    caption: str

    def html(self, name: str) -> str:
        """Return the histograms as inline SVG."""
        plots = "".join(_histogram(label, bins) for label, bins in self.panels.items())
        return (
            f'<figure class="card" id="{name}"><div class="scroll histograms">{plots}</div>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def thumbnail(image: Pixels, paper: int) -> Pixels:
    """Return an image (h, w) or (h, w, 3) as a tile: whole, in its proportions, on paper.

    Large images are area-averaged; small ones are magnified by a whole number.
    """
    inner = TILE - 2
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= inner:
        shown = image.repeat(inner // longest, 0).repeat(inner // longest, 1)
    else:
        size = max(1, round(width * inner / longest)), max(1, round(height * inner / longest))
        shown = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    tile = np.full((TILE, TILE, *image.shape[2:]), FRAME, np.uint8)
    tile[1:-1, 1:-1] = paper
    top, left = ((TILE - side) // 2 for side in shown.shape[:2])
    tile[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return tile


def _sheet(strips: Sequence[Strip], columns: int) -> bytes:
    """Return the PNG of strips, one below the other."""
    channels = next((tile.shape[2:] for strip in strips for tile in strip.tiles), ())
    sheet = np.full((len(strips), TILE, columns, TILE, *channels), 255, np.uint8)
    for row, strip in enumerate(strips):
        for column, tile in enumerate(strip.tiles):
            sheet[row, :, column] = tile
    file = io.BytesIO()
    pixels = sheet.reshape(len(strips) * TILE, columns * TILE, *channels)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _histogram(label: str, bins: Bins) -> str:
    width, height = PLOT
    low, high, most = bins.edges[0], bins.edges[-1], max(bins.counts)
    places = [1 + (width - 2) * (edge - low) / (high - low) for edge in bins.edges]
    bars = ""
    for left, right, count in zip(places, places[1:], bins.counts, strict=False):
        if count:  # even one image in a million is a line of one pixel
            top = BASE - max(1, (BASE - TOP) * count / most)
            bars += f"M{left:.1f} {BASE}V{top:.1f}H{right:.1f}V{BASE}Z"
    ends = _short(low), _short(high)
    alt = f"{label} from {ends[0]} to {ends[1]}, at most {most:,} images in a bar"
    return f"""<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">
<path d="{bars}" fill="#0072b2"/><path d="M0 {BASE}H{width}" stroke="#000"/>
<text x="0" y="13">{most:,} images</text>
<text x="0" y="{BASE + 16}">{ends[0]}</text>
<text x="{width}" y="{BASE + 16}" text-anchor="end">{ends[1]}</text>
<text x="{width / 2}" y="{BASE + 33}" text-anchor="middle">{escape(label)}</text></svg>
"""


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
