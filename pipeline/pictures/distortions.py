"""Distorted images of clean pages, to measure what predictions lose by them.

A distortion makes an image file of a clean page, dark ink on white paper, and of a generator of
random numbers. The files are what people send: photographs, scans, drawings with transparency,
files of other formats, sizes and crops. All of them are synthetic.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Page = NDArray[np.uint8]
Floats = NDArray[np.float64]
Random = np.random.Generator
Distortion = Callable[[Page, Random], bytes]

_ORIENTATION = 0x0112  # the EXIF tag
# By orientation: what turns an upright image into the stored one.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _ink(page: Page) -> Floats:
    """Return how much of each pixel is ink: float64 (h, w), from 0 to 1."""
    ink: Floats = (255.0 - page) / 255
    return ink


def _blend(ink: Floats, paper: Any, pen: Any) -> Floats:
    """Return colours (h, w, 3) of ink on paper; both are colours, or images of colours."""
    covered = ink[:, :, None]
    colours: Floats = np.asarray(pen) * covered + np.asarray(paper) * (1 - covered)
    return colours


def _levels(values: Floats) -> Page:
    levels: Page = np.rint(values.clip(0, 255)).astype(np.uint8)
    return levels


def _file(values: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """Return an image file of values, which are clipped to 0 to 255."""
    pixels = values if values.dtype == np.uint8 else _levels(values)
    return _save(Image.fromarray(pixels), kind, **options)


def _save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    fast = {"compress_level": 1} if kind == "PNG" else {}
    image.save(stream, kind, **fast, **options)
    return stream.getvalue()


def _noise(shape: tuple[int, ...], random: Random, deviation: float) -> Floats:
    return random.normal(0, deviation, shape)


def _slope(shape: tuple[int, int], random: Random) -> Floats:
    """Return values from 0 to 1 that rise in a random direction."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = random.uniform(0, 2 * np.pi)
    values = np.cos(angle) * x / shape[1] + np.sin(angle) * y / shape[0]
    slope: Floats = (values - values.min()) / (values.max() - values.min())
    return slope


def _colour(random: Random, low: float, high: float) -> Floats:
    """Return a random colour whose luma is between two levels."""
    while True:
        colour = random.uniform(0, 255, 3)
        if low <= _luma(colour) <= high:
            return colour


def _luma(colour: Floats) -> float:
    return float(colour @ (0.299, 0.587, 0.114))


def gradient(page: Page, random: Random) -> bytes:
    """Return grey paper, lighter on one side."""
    light, dark = random.uniform(200, 255), random.uniform(110, 170)
    paper = dark + (light - dark) * _slope(page.shape, random)
    return _file(paper * (1 - 0.85 * _ink(page)))


def noise(page: Page, random: Random) -> bytes:
    """Return a page with the noise of a sensor."""
    values = 30 + 200 * (page / 255) + _noise(page.shape, random, random.uniform(10, 35))
    return _file(values)


def turned(page: Page, random: Random) -> bytes:
    """Return a photograph whose orientation is in its EXIF data."""
    orientation = int(random.integers(2, 9))
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    kind = "JPEG" if random.random() < 0.5 else "PNG"
    return _save(Image.fromarray(page).transpose(_STORED[orientation]), kind, exif=exif)


def pen(page: Page, random: Random) -> bytes:
    """Return a pen of any colour on white paper."""
    return _file(_blend(_ink(page), 255.0, _colour(random, 20, 180)))


def alpha(page: Page, random: Random) -> bytes:
    """Return ink in the alpha channel alone."""
    pixels = np.zeros((*page.shape, 4), np.uint8)
    pixels[:, :, :3] = random.choice([0, 0, 40, 255])
    pixels[:, :, 3] = 255 - page
    return _file(pixels)


def inverted(page: Page, _random: Random) -> bytes:
    """Return white ink on black."""
    return _file(255 - page)


def size(page: Page, random: Random) -> bytes:
    """Return a page from 30 to 3,000 pixels high."""
    height = round(30 * 100 ** random.random())
    width = max(round(height * page.shape[1] / page.shape[0]), 1)
    filter_ = Image.Resampling.BOX if height < page.shape[0] else Image.Resampling.BICUBIC
    return _save(Image.fromarray(page).resize((width, height), filter_))


def jpeg(page: Page, random: Random) -> bytes:
    """Return a JPEG of low quality, of a reduced image."""
    height = int(random.integers(150, 500))
    image = Image.fromarray(page).resize((height * page.shape[1] // page.shape[0], height))
    return _save(image.convert("RGB"), "JPEG", quality=int(random.integers(5, 25)))


def shadow(page: Page, random: Random) -> bytes:
    """Return a photograph with the shadow of a hand: a soft edge across the page."""
    slope = _slope(page.shape, random)
    edge, width = random.uniform(0.3, 0.7), random.uniform(0.01, 0.15)
    light = 1 - random.uniform(0.3, 0.6) / (1 + np.exp(-(slope - edge) / width))
    values = (40 + 190 * (page / 255)) * light
    return _file(values + _noise(page.shape, random, 4), "JPEG", quality=80)


def vignette(page: Page, random: Random) -> bytes:
    """Return a photograph with dark corners."""
    y, x = np.mgrid[-1 : 1 : page.shape[0] * 1j, -1 : 1 : page.shape[1] * 1j]
    light = 1 - random.uniform(0.25, 0.4) * (x**2 + y**2)
    return _file((40 + 200 * (page / 255)) * light + _noise(page.shape, random, 3))


def _lines(page: Page, random: Random, both: bool) -> bytes:
    height = page.shape[0]
    step = height * random.uniform(0.06, 0.14)
    thick = max(round(height * random.uniform(0.002, 0.005)), 1)
    line = np.array([random.uniform(130, 180), random.uniform(150, 200), 220.0])
    drawn = np.zeros(page.shape, bool)
    for axis in (0, 1) if both else (0,):
        for place in np.arange(random.uniform(0, step), page.shape[axis] - thick, step).astype(int):
            drawn[(slice(None),) * axis + (slice(place, place + thick),)] = True
    paper = np.where(drawn[:, :, None], line, np.array([250.0, 250, 245]))
    return _file(
        _blend(_ink(page), paper, _colour(random, 10, 80)) + _noise((*page.shape, 3), random, 2)
    )


def ruled(page: Page, random: Random) -> bytes:
    """Return ruled paper."""
    return _lines(page, random, both=False)


def squared(page: Page, random: Random) -> bytes:
    """Return squared paper."""
    return _lines(page, random, both=True)


def border(page: Page, random: Random) -> bytes:
    """Return a photograph of the page on a dark table, which shows on all sides."""
    values = 40 + 195 * (page / 255)
    around = [
        (round(side * random.uniform(0.02, 0.06)), round(side * random.uniform(0.02, 0.06)))
        for side in page.shape
    ]
    table = np.pad(values, around, constant_values=random.uniform(20, 70))
    return _file(table + _noise(table.shape, random, 4))


def salt(page: Page, random: Random) -> bytes:
    """Return a page with salt and pepper."""
    values, chance = page.copy(), random.random(page.shape)
    rate = random.uniform(0.01, 0.05)
    values[chance < rate] = 0
    values[chance > 1 - rate] = 255
    return _file(values)


def blur(page: Page, random: Random) -> bytes:
    """Return a page out of focus."""
    return _file(ndimage.gaussian_filter(page.astype(np.float64), random.uniform(3, 10)))


def thin(page: Page, random: Random) -> bytes:
    """Return a thin pen."""
    inside = ndimage.distance_transform_edt(page < 128)
    least = float(np.quantile(inside[inside > 0], 0.7)) * random.uniform(0.3, 0.6)
    return _file(255 * (1 - (inside - least).clip(0, 1)))


def thick(page: Page, random: Random) -> bytes:
    """Return a thick pen."""
    outside = ndimage.distance_transform_edt(page >= 128)
    grown = page.shape[0] * random.uniform(0.005, 0.012)
    return _file(255 * (outside - grown).clip(0, 1))


def pencil(page: Page, random: Random) -> bytes:
    """Return a pencil: low contrast on grey paper with noise."""
    paper = random.uniform(190, 235)
    values = paper - random.uniform(35, 70) * _ink(page)
    return _file(values + _noise(page.shape, random, random.uniform(2, 6)))


def coloured_paper(page: Page, random: Random) -> bytes:
    """Return a dark pen on coloured paper."""
    return _file(_blend(_ink(page), _colour(random, 120, 230), _colour(random, 0, 50)))


def same_luma(page: Page, random: Random) -> bytes:
    """Return coloured ink on coloured paper of similar luma."""
    while True:
        paper = _colour(random, 90, 190)
        ink = _colour(random, _luma(paper) - 12, _luma(paper) + 12)
        if np.linalg.norm(paper - ink) > 110:
            return _file(_blend(_ink(page), paper, ink) + _noise((*page.shape, 3), random, 3))


def deep(page: Page, random: Random) -> bytes:
    """Return a PNG of 16 bits, of which a scanner used 12 or 16."""
    top = random.choice([4095, 65535])
    return _save(Image.fromarray((page.astype(np.uint32) * top // 255).astype(np.uint16)))


def palette(page: Page, random: Random) -> bytes:
    """Return a palette of few colours."""
    colours = _levels(_blend(_ink(page), _colour(random, 180, 255), _colour(random, 0, 90)))
    kind = "PNG" if random.random() < 0.5 else "GIF"
    return _save(Image.fromarray(colours).quantize(int(random.integers(2, 17))), kind)


def one_bit(page: Page, random: Random) -> bytes:
    """Return one bit a pixel, dithered or not."""
    image = Image.fromarray(page)
    if random.random() < 0.5:
        image = Image.fromarray(_levels(40 + 200 * (page / 255)))  # dithering gives it specks
        return _save(image.resize((600, 450)).convert("1"), "PNG")
    return _save(image.convert("1", dither=Image.Dither.NONE), "TIFF")


def cmyk(page: Page, random: Random) -> bytes:
    """Return a JPEG in CMYK."""
    colours = _levels(_blend(_ink(page), 250.0, _colour(random, 0, 90)))
    return _save(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=85)


def _box(page: Page) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((page < 128).any(1)), np.flatnonzero((page < 128).any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def tight(page: Page, random: Random) -> bytes:
    """Return a page cropped tightly."""
    top, bottom, left, right = _box(page)
    margin = int(page.shape[0] * random.uniform(0.01, 0.06))
    return _file(
        page[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
    )


def wide(page: Page, random: Random) -> bytes:
    """Return wide margins of other proportions."""
    around = [
        (int(side * random.uniform(0.3, 2)), int(side * random.uniform(0.3, 2)))
        for side in page.shape
    ]
    return _file(np.pad(page, around, constant_values=255))


def off_centre(page: Page, random: Random) -> bytes:
    """Return the character elsewhere on a page of the same size."""
    top, bottom, left, right = _box(page)
    moved = np.full_like(page, 255)
    height, width = bottom - top, right - left
    y = int(random.integers(0, page.shape[0] - height + 1))
    x = int(random.integers(0, page.shape[1] - width + 1))
    moved[y : y + height, x : x + width] = page[top:bottom, left:right]
    return _file(moved)


def premultiplied(page: Page, random: Random) -> bytes:
    """Return colours that are multiplied by their alpha."""
    ink, colour = _ink(page), _colour(random, 0, 120)
    pixels = np.dstack([ink[:, :, None] * colour, 255 * ink])
    return _file(pixels)


def half_transparent(page: Page, random: Random) -> bytes:
    """Return ink that is half transparent, on transparent paper."""
    pixels = np.zeros((*page.shape, 4))
    pixels[:, :, :3] = _colour(random, 0, 90)
    pixels[:, :, 3] = 255 * random.uniform(0.3, 0.7) * _ink(page)
    return _file(pixels)


def inverted_alpha(page: Page, random: Random) -> bytes:
    """Return opaque paper of which the ink is cut out."""
    pixels = np.zeros((*page.shape, 4), np.uint8)
    pixels[:, :, :3] = random.choice([0, 255])
    pixels[:, :, 3] = page
    return _file(pixels)


REQUIRED: dict[str, Distortion] = {
    "gradient paper": gradient,
    "noise": noise,
    "turned, EXIF": turned,
    "coloured pen": pen,
    "alpha only": alpha,
    "white on black": inverted,
    "30 to 3,000 pixels": size,
}
FURTHER: dict[str, Distortion] = {
    "JPEG, low quality": jpeg,
    "shadow": shadow,
    "vignette": vignette,
    "ruled paper": ruled,
    "squared paper": squared,
    "dark border": border,
    "salt and pepper": salt,
    "blur": blur,
    "thin pen": thin,
    "thick pen": thick,
    "pencil": pencil,
    "coloured paper": coloured_paper,
    "ink of the paper's luma": same_luma,
    "16 bits": deep,
    "palette": palette,
    "1 bit": one_bit,
    "CMYK": cmyk,
    "tight crop": tight,
    "wide margins": wide,
    "off-centre": off_centre,
    "premultiplied alpha": premultiplied,
    "half-transparent ink": half_transparent,
    "inverted alpha": inverted_alpha,
}
