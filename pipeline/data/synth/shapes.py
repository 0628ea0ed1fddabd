"""Synthetic colour images: ten classes of shapes with a texture, in CIFAR-10's format.

A class is a shape with a texture. Each shape has two textures and each texture two shapes, so only
both together name the class. Everything else is random: colours, position, size, rotation and
proportions of the shape, scale and direction of the texture, the background with a faint texture
and other things of its own, lighting and noise. So no pixel and no colour names the class.
Directions are rounded and everything else is sums, products, quotients and square roots, so an
image is the same on every machine.
"""

import math

import numpy as np

from beton import rng
from pipeline.data.base import Decoded, Floats, Grey, Pixels
from pipeline.data.pixels.luma import LUMA, luma
from pipeline.data.synth import polygons
from pipeline.data.synth.source import ImageCounts, SyntheticClasses

VERSION = 1  # of the generator: raise it when a seed gives other images
SIDE = 32  # pixels
SHAPES = ("disc", "square", "star", "triangle", "cross")
TEXTURES = ("plain", "striped", "spotted", "checked", "ringed")
# Pairs of a texture and a shape.
_PAIRS = tuple((i, (i + step) % len(SHAPES)) for i in range(len(TEXTURES)) for step in (0, 1))
CLASSES = tuple(f"{TEXTURES[texture]} {SHAPES[shape]}" for texture, shape in _PAIRS)
_CLOUD = 5  # points per side of the grid that a smooth background is interpolated from
_COUNT = 64 + 3 * _CLOUD**2 + 3 * SIDE**2  # random numbers of an image
# Pixels' centres.
_Y, _X = np.mgrid[:SIDE, :SIDE] + 0.5


CIFAR10_COUNTS = ImageCounts(10_000, 2_000)


class SyntheticShapes(SyntheticClasses):
    """Coloured shapes with textures, uint8 (32, 32, 3), equally many of each class.

    Raises SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, counts: ImageCounts = CIFAR10_COUNTS, seed: int = 0) -> None:
        super().__init__("shapes", VERSION, CLASSES, counts, seed)

    def name(self, index: int) -> str:
        """Return the split, the class as a folder, and the index as a file name."""
        return f"{self._split(index)}/{CLASSES[self.annotations.labels[index]]}/{index:05d}.png"

    def image(self, index: int) -> Grey:
        """Generate an image and return its grey levels: uint8 (32, 32)."""
        return self.decoded(index).grey

    def decoded(self, index: int) -> Decoded:
        """Generate an image: its colours uint8 (32, 32, 3) and its grey levels."""
        numbers = self._numbers(index, rng.SHAPE, _COUNT)
        colour = draw_shape(int(self.annotations.labels[index]), numbers)
        return Decoded(luma(np.moveaxis(colour, 2, 0)), "RGB", colour=colour)


def draw_shape(label: int, numbers: Floats) -> Pixels:
    """Draw an image of a class, uint8 (32, 32, 3), from random numbers (_COUNT,) in [0, 1)."""
    texture, shape = _PAIRS[label]
    few, cloud, noise = np.split(numbers, (64, 64 + 3 * _CLOUD**2))
    background, colours = few[:32], few[32:64]
    ground = background[:3]
    image = _background(ground, background[3:], cloud.reshape(_CLOUD, _CLOUD, 3))

    # The shape: its colour differs from the background's in each channel, its texture is the same
    # colour much darker or lighter.
    size, aspect = 9 + 5 * colours[0], 0.8 + 0.4 * colours[1]
    centre = (colours[2:4] - 0.5) * (SIDE - 2 * size + 4) + SIDE / 2
    outline = _OUTLINES[SHAPES[shape]] * (size, size * aspect)
    cover = polygons.fill(
        polygons.turned(outline, *_direction(0.2 * colours[4] - 0.1)) + centre, SIDE, SIDE
    )
    paint = (ground + 0.35 + 0.3 * colours[5:8]) % 1
    second = paint * 0.3 if paint @ LUMA > sum(LUMA) / 2 else 1 - 0.3 * (1 - paint)
    weight = _texture(TEXTURES[texture], 4 + 2 * colours[8], colours[9:12], centre)
    painted = paint + weight[:, :, None] * (second - paint)
    image += cover[:, :, None] * (painted - image)

    # Light from one side, and noise.
    sine, cosine = _direction(colours[12])
    ahead = (_X / SIDE - 0.5) * sine + (_Y / SIDE - 0.5) * cosine
    light = 0.9 + 0.2 * colours[13] + 0.3 * colours[14] * ahead
    image *= light[:, :, None]
    grain = (0.05 + 0.2 * colours[15]) * (noise.reshape(SIDE, SIDE, 3) - 0.5)
    pixels: Pixels = np.clip((image + grain) * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels


def _background(ground: Floats, numbers: Floats, cloud: Floats) -> Floats:
    """Return a background around a colour: clouds, a faint texture and things without one."""
    image = ground + 0.35 * (_enlarged(cloud) - 0.5)
    kind = TEXTURES[int(numbers[0] * len(TEXTURES))]
    faint = _texture(kind, 4 + 6 * numbers[1], numbers[2:5], np.full(2, SIDE / 2))
    image += (0.2 * numbers[5] * (faint - 0.5))[:, :, None]
    for thing in (numbers[6:14], numbers[14:22]):
        outline = _OUTLINES["square"] * (2 + 3 * thing[0], 2 + 3 * thing[1])
        place = thing[2:4] * SIDE
        cover = polygons.fill(polygons.turned(outline, *_direction(thing[4])) + place, SIDE, SIDE)
        image += 0.5 * cover[:, :, None] * (thing[5:8] - image)
    return image


def _texture(kind: str, period: float, numbers: Floats, centre: Floats) -> Floats:
    """Return the weight of a texture's second colour in [0, 1]: float64 (SIDE, SIDE).

    `period` is in pixels; `numbers` (3,) are the direction and the position; rings lie around
    `centre` (x, y).
    """
    if kind == "plain":
        return np.zeros((SIDE, SIDE))
    x, y = _X - centre[0], _Y - centre[1]
    if kind == "ringed":
        return _bands(np.sqrt(x * x + y * y) / period + numbers[1], period)
    sine, cosine = _direction(numbers[0])
    along = (x * cosine + y * sine) / period + numbers[1]
    across = (y * cosine - x * sine) / period + numbers[2]
    if kind == "striped":
        return _bands(along, period)
    if kind == "checked":
        first, second = _bands(along / 1.5, 1.5 * period), _bands(across / 1.5, 1.5 * period)
        return first + second - 2 * first * second
    along, across = _distance(along), _distance(across)
    radius = np.sqrt(along * along + across * across)
    spots: Floats = np.clip((0.36 - radius) * period + 0.5, 0, 1)
    return spots


def _bands(positions: Floats, period: float) -> Floats:
    """Return the weight of bands at whole positions, half a period of `period` pixels wide."""
    bands: Floats = np.clip((0.25 - _distance(positions)) * period + 0.5, 0, 1)
    return bands


def _distance(positions: Floats) -> Floats:
    """Return each position's distance to the nearest whole number, 0 to 0.5."""
    distances: Floats = np.abs(positions - np.floor(positions + 0.5))
    return distances


def _enlarged(grid: Floats) -> Floats:
    """Return a grid (n, n, c) interpolated bilinearly to (SIDE, SIDE, c)."""
    at = np.arange(SIDE) * (len(grid) - 1) / (SIDE - 1)
    low = np.minimum(at.astype(np.int64), len(grid) - 2)
    weight = (at - low)[:, None, None]
    rows = grid[low] + weight * (grid[low + 1] - grid[low])
    columns = rows.swapaxes(0, 1)
    image: Floats = (columns[low] + weight * (columns[low + 1] - columns[low])).swapaxes(0, 1)
    return image


def _direction(turn: float) -> tuple[float, float]:
    """Return the sine and cosine of a turn in [0, 1), rounded to 2^-12."""
    angle = 2 * math.pi * turn
    return round(math.sin(angle) * 4096) / 4096, round(math.cos(angle) * 4096) / 4096


def _regular(corners: int, radii: tuple[float, ...]) -> Floats:
    """Return corners (n, 2) around the origin, at the radii in turn."""
    turns = [_direction(i / corners) for i in range(corners)]
    outline: Floats = np.array(turns) * np.resize(radii, corners)[:, None]
    return outline


_ARM = 0.36  # half the width of the cross's arms
_OUTLINES = {
    "disc": _regular(24, (0.95,)),
    "square": _regular(4, (1.2,)),
    "triangle": _regular(3, (1.3,)),
    "star": _regular(10, (1.3, 0.55)),
    "cross": np.array(
        [
            *((_ARM, _ARM), (1.15, _ARM), (1.15, -_ARM), (_ARM, -_ARM), (_ARM, -1.15)),
            *((-_ARM, -1.15), (-_ARM, -_ARM), (-1.15, -_ARM), (-1.15, _ARM), (-_ARM, _ARM)),
            *((-_ARM, 1.15), (_ARM, 1.15)),
        ]
    ),
}
