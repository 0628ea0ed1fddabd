"""Synthetic garments in Fashion-MNIST's format: silhouettes of its ten classes, with shading.

A garment is a few polygons with random measures: a body with sleeves, legs, a shoe in profile, a
bag. Cloth, folds, prints, collars and fastenings vary too. As in the real dataset, tops differ in
little: a coat has an open front and a shirt has a collar, but both may be faint. Directions are
rounded and everything else is sums, products, quotients and square roots, so an image is the same
on every machine.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from beton import rng
from pipeline.data.base import Floats, Pixels
from pipeline.data.sources.known_sets import FASHION
from pipeline.data.synth import polygons
from pipeline.data.synth.source import ImageCounts, SyntheticClasses

VERSION = 1  # of the generator: raise it when a seed gives other images
SIDE = 28  # pixels
_MIDDLE = SIDE / 2
_COUNT = 96 + SIDE**2  # random numbers of an image
_Y, _X = np.mgrid[:SIDE, :SIDE] + 0.5  # pixels' centres


FASHION_COUNTS = ImageCounts(60_000, 10_000)


class SyntheticGarments(SyntheticClasses):
    """Garments, uint8 (28, 28), light on black, equally many of each class.

    Raises SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, counts: ImageCounts = FASHION_COUNTS, seed: int = 0) -> None:
        super().__init__("garments", VERSION, FASHION, counts, seed)

    def name(self, index: int) -> str:
        """Return the split, the class's number as a folder, and the index as a file name."""
        return f"{self._split(index)}/{self.annotations.labels[index]}/{index:05d}.png"

    def image(self, index: int) -> Pixels:
        """Generate a garment: uint8 (28, 28), light on black."""
        numbers = self._numbers(index, rng.GARMENT, _COUNT)
        return draw_garment(int(self.annotations.labels[index]), numbers)


class _Random:
    """Random numbers that are used one after the other."""

    def __init__(self, numbers: Floats) -> None:
        self._numbers: Iterator[float] = iter(numbers.tolist())

    def between(self, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        return low + self._next() * (high - low)

    def happens(self, probability: float) -> bool:
        """Return whether an event of this probability happens."""
        return self._next() < probability

    def _next(self) -> float:
        return next(self._numbers)


class _Piece(NamedTuple):
    """A polygon (n, 2) in pixels around the garment's middle, and its brightness.

    `shade` is relative to the garment's brightness.
    """

    outline: Floats
    shade: float = 1.0


def draw_garment(label: int, numbers: Floats) -> Pixels:
    """Draw a garment of a class, uint8 (28, 28), from random numbers (_COUNT,) in [0, 1)."""
    few, noise = np.split(numbers, (96,))
    random = _Random(few)
    brightness = random.between(0.3, 1)
    cloth = brightness * _cloth(random)
    sine, size = random.between(-0.06, 0.06), random.between(0.92, 1.04)
    place = np.array([_MIDDLE + random.between(-1, 1), _MIDDLE + random.between(-0.7, 0.7)])
    cosine = (1 - sine * sine) ** 0.5
    image = np.zeros((SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE))
    for outline, shade in _CUTS[label](random):
        placed = polygons.turned(outline * size, sine, cosine) + place
        cover = polygons.fill(placed, SIDE, SIDE)
        image += cover * (shade * cloth - image)
        mask = np.maximum(mask, cover)
    grain = random.between(0.02, 0.14) * (noise.reshape(SIDE, SIDE) - 0.5)
    pixels: Pixels = np.clip((image + grain) * mask * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels


def _cloth(random: _Random) -> Floats:
    """Return the relative brightness of cloth (SIDE, SIDE): a pattern, folds and light."""
    light = (
        1
        + random.between(-0.3, 0.3) * (_X / SIDE - 0.5)
        + random.between(-0.3, 0.1) * (_Y / SIDE - 0.5)
    )
    # Folds: long waves, mostly along the garment.
    tilt, length, phase = random.between(-0.4, 0.4), random.between(4, 9), random.between(0, 1)
    light += random.between(0, 0.3) * (_wave((_X + tilt * _Y) / length + phase) - 0.25)
    period, phase = random.between(2.5, 6), random.between(0, 1)
    contrast = random.between(0.2, 0.8)
    kind = random.between(0, 1)
    across = _wave(_Y / period + phase) > 0.25
    along = _wave(_X / period + phase) > 0.25
    if kind < 0.15:
        light -= contrast * across
    elif kind < 0.22:
        light -= contrast * along
    elif kind < 0.3:
        light -= contrast * (across ^ along)
    cloth: Floats = np.clip(light, 0.15, 1.4)
    return cloth


def _wave(positions: Floats) -> Floats:
    """Return each position's distance to the nearest whole number, 0 to 0.5."""
    distances: Floats = np.abs(positions - np.floor(positions + 0.5))
    return distances


def _mirrored(*right: tuple[float, float]) -> Floats:
    """Return a symmetric outline (2 n, 2) from the points of its right half."""
    half = np.array(right)
    return np.concatenate([half, half[::-1] * (-1, 1)])


def _box(x0: float, y0: float, x1: float, y1: float) -> Floats:
    """Return the corners (4, 2) of a rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _body(
    random: _Random,
    *,
    sleeve: tuple[float, float],
    spread: tuple[float, float],
    width: tuple[float, float],
    hem: tuple[float, float],
    flare: tuple[float, float] = (-0.5, 0.8),
    waist: tuple[float, float] = (-0.6, 0.2),
) -> Floats:
    """Return the outline of a top.

    Ranges are of the `sleeve`'s length, its `spread` to the side per unit of its length downwards,
    half the `width`, the lower end `hem` from the middle, and by how much the hem and the waist are
    wider than the chest.
    """
    top, chest = random.between(-12.5, -11), random.between(*width)
    neck, depth = random.between(2, 3.6), random.between(0.4, 3.5)
    shoulder = chest + random.between(-0.6, 0.8)
    length, side, thick = random.between(*sleeve), random.between(*spread), random.between(3, 4.4)
    norm = (1 + side * side) ** 0.5
    right, down = side / norm, 1 / norm
    drop = top + random.between(0.8, 2.2)
    end_x, end_y = shoulder + length * right, drop + length * down
    bottom = random.between(*hem)
    return _mirrored(
        (0, top + depth),
        (neck * 0.7, top + 0.6 * depth),
        (neck, top),
        (shoulder, drop),
        (end_x, end_y),
        (end_x - thick * down, end_y + thick * right),
        (chest, drop + thick + random.between(0, 1)),
        (chest + random.between(*waist), (drop + bottom) / 2 + 1),
        (chest + random.between(*flare), bottom),
    )


def _details(
    random: _Random, *, front: float, collar: float, printed: float, faint: tuple[float, float]
) -> list[_Piece]:
    """Return an open front, a collar and a print, each with its probability.

    `faint` is the range of the front's shade.
    """
    pieces = []
    shade = random.between(*faint)
    if random.happens(front):
        half, top, shift = random.between(0.2, 0.7), random.between(-10, -8), random.between(-1, 1)
        pieces.append(_Piece(_box(shift - half, top, shift + half, 12), shade))
    if random.happens(collar):
        wide, low = random.between(2, 3.8), random.between(-9.5, -6.5)
        lapel = _mirrored((0.2, low), (wide, -10.5), (wide * 0.6, -12.2))
        pieces.append(_Piece(lapel[:3], random.between(0.6, 1.25)))
        pieces.append(_Piece(lapel[3:], pieces[-1].shade))
    if random.happens(printed):
        x, y = random.between(1.5, 4.5), random.between(1, 4)
        height = random.between(-5, 1)
        pieces.append(_Piece(_box(-x, height - y, x, height + y), random.between(0.4, 1.5)))
    return pieces


def _t_shirt(random: _Random) -> list[_Piece]:
    body = _body(random, sleeve=(3, 7.5), spread=(0.5, 2.2), width=(5.2, 7.5), hem=(9.5, 12.5))
    details = _details(random, front=0.03, collar=0.06, printed=0.4, faint=(0.6, 1.2))
    return [_Piece(body), *details]


def _pullover(random: _Random) -> list[_Piece]:
    body = _body(random, sleeve=(14, 20), spread=(0.05, 0.45), width=(5.2, 7.5), hem=(9, 12.5))
    details = _details(random, front=0.08, collar=0.12, printed=0.25, faint=(0.6, 1.2))
    return [_Piece(body), *details]


def _coat(random: _Random) -> list[_Piece]:
    body = _body(
        random,
        sleeve=(15, 21),
        spread=(0.05, 0.4),
        width=(5.2, 7.5),
        hem=(10.5, 13),
        flare=(-0.3, 1.5),
    )
    details = _details(random, front=0.85, collar=0.5, printed=0.02, faint=(0.25, 0.9))
    return [_Piece(body), *details]


def _shirt(random: _Random) -> list[_Piece]:
    short = random.happens(0.35)
    body = _body(
        random,
        sleeve=(3, 8) if short else (14, 20),
        spread=(0.3, 1.8) if short else (0.05, 0.45),
        width=(5, 7.3),
        hem=(9.5, 12.8),
    )
    details = _details(random, front=0.6, collar=0.75, printed=0.08, faint=(0.6, 1.3))
    return [_Piece(body), *details]


def _dress(random: _Random) -> list[_Piece]:
    body = _body(
        random,
        sleeve=(0.5, 6) if random.happens(0.75) else (8, 17),
        spread=(0.1, 0.7),
        width=(3.2, 5.2),
        hem=(11, 13.3),
        flare=(0, 5),
        waist=(-1.2, 0.6),
    )
    details = _details(random, front=0.06, collar=0.05, printed=0.08, faint=(0.5, 1.2))
    return [_Piece(body), *details]


def _trouser(random: _Random) -> list[_Piece]:
    top, waist, hip = random.between(-13, -12), random.between(2.8, 4.2), random.between(3.4, 5)
    crotch, end = random.between(-7, -3), random.between(11.5, 13.3)
    gap, leg = random.between(0.2, 1.8), random.between(1.8, 3.2)
    legs = _mirrored(
        (0, top), (waist, top), (hip, crotch), (gap + leg, end), (gap, end), (0.1, crotch + 1)
    )
    belt = _box(-waist, top, waist, top + 1.2)
    return [_Piece(legs), _Piece(belt, random.between(0.5, 1.2))]


def _shoe(random: _Random, shaft: float, sole: float, toe: float) -> tuple[Floats, Floats]:
    """Return the outlines of a shoe in profile, the toe to the left, and of its sole."""
    length, bottom = random.between(11, 13), random.between(4.5, 7)
    heel, low = random.between(9.5, 12.5), bottom - sole
    instep = random.between(-3, 1)
    upper = np.array(
        [
            (-length, low),
            (-length + 0.5, low - toe),
            (-length * 0.55, low - toe - random.between(0.5, 1.5)),
            (instep, bottom - shaft * random.between(0.65, 0.85)),
            (instep + random.between(1, 2.5), bottom - shaft),
            (heel, bottom - shaft - random.between(-0.8, 0.8)),
            (heel + random.between(-0.8, 0.6), low),
        ]
    )
    return upper, _box(-length - 0.3, low, heel + 0.3, bottom)


def _sneaker(random: _Random) -> list[_Piece]:
    upper, sole = _shoe(
        random, random.between(6, 9.5), random.between(1, 2.2), random.between(1.2, 2.6)
    )
    pieces = [_Piece(upper), _Piece(sole, random.between(0.5, 1.7))]
    if random.happens(0.6):
        x, lean = random.between(-4, 3), random.between(0.5, 3)
        stripe = np.array([(x, 3.0), (x + 1.4, 3), (x + 1.4 + lean, -1), (x + lean, -1)])
        pieces.append(_Piece(stripe, random.between(0.4, 1.6)))
    return pieces


def _ankle_boot(random: _Random) -> list[_Piece]:
    upper, sole = _shoe(
        random, random.between(10.5, 17.5), random.between(0.8, 2.2), random.between(1.5, 3)
    )
    lower = np.array([0, random.between(2, 4)])
    upper, sole = upper + lower, sole + lower
    pieces = [_Piece(upper), _Piece(sole, random.between(0.5, 1.5))]
    if random.happens(0.6):  # a heel
        x, high = sole[1, 0], random.between(1, 3.5)
        y = sole[2, 1]
        block = _box(x - random.between(2, 5), y - 0.5, x, y + high)
        pieces.append(_Piece(block, pieces[1].shade))
    return pieces


def _sandal(random: _Random) -> list[_Piece]:
    length, bottom = random.between(11, 13), random.between(4, 7.5)
    rise = random.between(0, 6) if random.happens(0.6) else 0.0
    thick = random.between(0.8, 2.2)
    sole = np.array(
        [
            (-length, bottom - thick),
            (0, bottom - thick - 0.3 * rise),
            (length, bottom - thick - rise),
            (length, bottom - rise),
            (0, bottom - 0.2 * rise),
            (-length, bottom),
        ]
    )
    pieces = [_Piece(sole)]
    if rise > 2:  # a heel
        wide = random.between(0.8, 5)
        pieces.append(_Piece(_box(length - wide, bottom - rise - 0.5, length, bottom), 0.9))
    for x in (-0.75 * length, -0.3 * length, 0.35 * length, 0.75 * length):
        if random.happens(0.75):
            high, lean, wide = random.between(2, 8), random.between(-3, 4), random.between(1, 3.2)
            foot = bottom - thick - max(0, x / length) * rise
            strap = np.array(
                [(x, foot + 0.5), (x + wide, foot + 0.5), (x + wide + lean, foot - high)]
            )
            tip = (x + lean - 0.4, foot - high)
            pieces.append(_Piece(np.append(strap, [tip], axis=0), random.between(0.6, 1.3)))
    return pieces


def _bag(random: _Random) -> list[_Piece]:
    wide, top = random.between(8, 13), random.between(-5, 0)
    bottom, slope = random.between(7, 12.5), random.between(-2, 2.5)
    body = polygons.rounded(
        _mirrored((0, top), (wide - slope, top), (wide, (top + bottom) / 2), (wide, bottom)), 1
    )
    pieces = []
    if random.happens(0.8):  # a handle: a band with a hole
        reach, high = random.between(3, 8), random.between(3, 8)
        band = random.between(0.8, 1.6)
        outer = polygons.rounded(_mirrored((0, top - high), (reach, top - high), (reach, top + 1)))
        inner = polygons.rounded(
            _mirrored(
                (0, top - high + band), (reach - band, top - high + band), (reach - band, top + 1)
            )
        )
        pieces += [_Piece(np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]]), 0.9)]
    pieces.append(_Piece(body))
    if random.happens(0.6):  # a flap
        low = random.between(top + 2, top + 6)
        flap = np.array([(-wide * 0.9, top + 0.5), (wide * 0.9, top + 0.5), (0, low)])
        pieces.append(_Piece(flap, random.between(0.6, 1.3)))
    return pieces


# In the order of the classes.
_CUTS: tuple[Callable[[_Random], list[_Piece]], ...] = (
    *(_t_shirt, _trouser, _pullover, _dress, _coat),
    *(_sandal, _shirt, _sneaker, _bag, _ankle_boot),
)
