"""Synthetic writers: a style per writer, and characters that deviate a little from the style.

A writer has a random style (slant, size, width and so on), and for each character one usual form
and one usual deviation from the style. Each sample adds a smaller deviation. So samples of one
writer are similar, and writers differ.

The model combines three ideas. Handwriting is a sum of overlapping strokes whose corners round with
speed (the sigma-lognormal model, Plamondon 1995; Galbally et al. 2012 generate variants with it).
Writers differ by affine maps and smooth elastic displacements (Simard, Steinkraus and Platt 2003).
People choose from a few forms of each character (allographs). All numbers are functions of (seed,
writer, character, copy), so any sample can be generated alone.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton import rng
from pipeline.data.base import Floats
from pipeline.data.charset import CHARACTERS
from pipeline.data.synth.glyphs import CAPITAL_HEIGHT, HALF_WAVES, X_HEIGHT, Glyph, load_glyphs

MAX_STROKES = 4  # of a character
TREMOR = (2.0, 3.1, 4.7)  # wavelengths in units of glyphs.txt


@dataclass(frozen=True)
class WriterStyle:
    """One writer's style. Lengths are in units of glyphs.txt, in which a capital is 16 high."""

    script: float  # preference for joined-up forms, 0 to 1
    slant: float  # units to the right per unit upwards
    width: float  # factor
    capital_width: float  # additional factor for capitals and digits
    size: float  # factor
    x_height: float  # factors of heights
    ascender: float
    descender: float
    digit_size: float
    pen_radius: float
    taper: float  # how much thinner strokes are at their ends, 0 to 1
    pressure: float  # relative variation of the pen's width along a stroke
    nib: float  # how much thinner strokes are along the nib's edge, 0 for a round pen
    softness: float  # how much corners are rounded, 0 to 1
    bend: float  # bending of strokes
    warp: float  # elastic displacement of whole characters
    looseness: float  # displacement of strokes against each other
    overshoot: float  # length of strokes beyond their ends, negative if they stop short
    tremor: float
    variability: float  # factor of the deviation of samples


class PenPath(NamedTuple):
    """A pen's path in s strokes: `points` (n, 3) are x, y (downwards) and the pen's radius.

    `starts` (s + 1,) are the strokes' first points.
    """

    points: Floats
    starts: NDArray[np.int64]


@lru_cache(1024)
def writer_style(seed: int, writer: int) -> WriterStyle:
    """Generate a writer's style."""
    n = _normal(seed, 0, writer, rng.HAND, 20)
    u = rng.uniform(seed, 1, np.array([writer]), rng.HAND, 6)[0]
    return WriterStyle(
        script=0.04 if u[0] < 0.6 else 0.1 + 0.7 * u[1],
        slant=0.08 + 0.13 * n[0],
        width=math.exp(0.02 + 0.17 * n[1]),
        capital_width=math.exp(0.2 + 0.13 * n[14]),
        size=math.exp(0.04 * n[2]),
        x_height=math.exp(-0.03 + 0.14 * n[3]),
        ascender=math.exp(0.06 * n[4]),
        descender=math.exp(0.08 + 0.2 * n[5]),
        digit_size=math.exp(-0.05 + 0.09 * n[6]),
        pen_radius=0.96 * math.exp(0.28 * n[7]),
        taper=0.5 * max(0.0, 0.6 * n[8] - 0.2),
        pressure=0.06 + 0.05 * abs(n[9]),
        nib=max(0.0, 0.35 * n[10] - 0.25),
        softness=min(1.0, abs(0.45 * n[11])),
        bend=0.3 + 0.4 * u[2],
        warp=0.6 + 0.6 * u[3],
        looseness=0.5 + u[4],
        overshoot=0.1 + 0.35 * n[12],
        tremor=0.025 * abs(n[13]),
        variability=0.6 + 0.8 * u[5],
    )


def write_character(seed: int, writer: int, character: str, copy: int = 0) -> PenPath:
    """Generate a writer's `copy`-th sample of a character, in units of glyphs.txt."""
    style = writer_style(seed, writer)
    letter = writer * len(CHARACTERS) + CHARACTERS.index(character)
    usual = _normal(seed, 0, letter, rng.LETTER, _Deviation.COUNT)
    sample = _normal(seed, copy, letter, rng.WRITING, _Deviation.COUNT)
    choice = rng.uniform(seed, copy, np.array([letter]), rng.WRITING, 2)[0]
    if choice[1] > 0.06:  # else a random form instead of the usual one
        choice = rng.uniform(seed, 0, np.array([letter]), rng.LETTER, 1)[0]
    glyph = _choose(load_glyphs()[character], style.script, choice[0])
    # A writer's usual characters deviate about twice as much as samples do from the usual.
    deviation = _Deviation(usual + 0.5 * style.variability * sample)
    points = _shape(glyph, style, deviation)
    _transform(points, style, deviation, character)
    radii = _pen_radii(glyph, points, style, deviation)
    points[:, 1] *= -1
    return PenPath(np.column_stack([points, radii]), glyph.starts)


class _Deviation:
    """Normal numbers, named by their use."""

    COUNT = 11 + 10 + MAX_STROKES * (6 + 2 * HALF_WAVES + 4 * len(TREMOR) + 3)

    def __init__(self, numbers: Floats) -> None:
        self.whole, self.warp = numbers[:11], numbers[11:21].reshape(5, 2)
        n = 6 + 2 * HALF_WAVES
        parts = np.split(numbers[21:].reshape(MAX_STROKES, -1), (6, n, n + 4 * len(TREMOR)), axis=1)
        self.stroke, bend, tremor, self.pressure = parts
        self.bend = bend.reshape(MAX_STROKES, HALF_WAVES, 2)
        self.tremor = tremor.reshape(MAX_STROKES, -1, 2)


def _normal(seed: int, copy: int, sample: int, purpose: int, count: int) -> Floats:
    """Return `count` numbers of mean 0 and deviation 1, within ±3.5: sums of four uniform numbers.

    Unlike functions of the C library, these sums are exact on any machine.
    """
    uniform = rng.uniform(seed, copy, np.array([sample]), purpose, 2 + 4 * count)[0, 2:]
    normal: Floats = (uniform.reshape(4, count).sum(axis=0) - 2) * 3**0.5
    return normal


def _choose(glyphs: tuple[Glyph, ...], script: float, choice: float) -> Glyph:
    weights = np.cumsum([g.weight * (2 * script if g.script else 1 - script) for g in glyphs])
    return glyphs[int(np.searchsorted(weights, choice * weights[-1], "right"))]


def _shape(glyph: Glyph, style: WriterStyle, deviation: _Deviation) -> Floats:
    """Return points (n, 2): the glyph's strokes, bent, displaced and extended by the style."""
    whole, own = deviation.whole, deviation.stroke[glyph.stroke]
    softness = min(1.0, max(0.0, style.softness + 0.12 * whole[0]))
    points = glyph.sharp + softness * (glyph.soft - glyph.sharp)

    # A smooth displacement of the whole character.
    x = points[:, 0] / CAPITAL_HEIGHT * np.pi
    y = points[:, 1] / CAPITAL_HEIGHT * np.pi
    basis = np.stack([np.sin(x), np.sin(y), np.cos(2 * y), np.sin(x + y), np.cos(x - 2 * y)], 1)
    shift = basis @ (deviation.warp * (0.42 * style.warp))

    # Bend, tremor, rotation, growth and displacement of each stroke.
    bends = glyph.waves[:, :, None] * deviation.bend[glyph.stroke]
    shift += 0.42 * style.bend * bends.sum(axis=1)
    if style.tremor:
        turns = 2 * np.pi * glyph.before[:, None] / TREMOR
        shakes = np.concatenate([np.sin(turns), np.cos(turns)], 1)[:, :, None]
        shift += style.tremor * (shakes * deviation.tremor[glyph.stroke]).sum(axis=1)
    arm = points - glyph.centres[glyph.stroke]
    angle, growth = 0.035 * own[:, 0], 0.03 * own[:, 1]
    shift[:, 0] += growth * arm[:, 0] - angle * arm[:, 1]
    shift[:, 1] += growth * arm[:, 1] + angle * arm[:, 0]
    shift += 0.3 * style.looseness * own[:, 2:4]

    # Strokes extend beyond their ends or stop short.
    for beyond, length, direction in (
        (own[:, 4], glyph.before, -glyph.leaving),
        (own[:, 5], glyph.after, glyph.arriving),
    ):
        reach = np.maximum(0, 1 - length / 3) * (style.overshoot + 0.35 * beyond)
        shift += reach[:, None] * direction[glyph.stroke]
    shaped: Floats = points + shift
    return shaped


def _transform(points: Floats, style: WriterStyle, deviation: _Deviation, character: str) -> None:
    """Apply the style's proportions, slant and size to a character's points, in place."""
    whole = deviation.whole
    x, y = points[:, 0], points[:, 1]
    if character.islower():
        # Descender, x-height and ascender zones have separate heights.
        middle = style.x_height * math.exp(0.03 * whole[1])
        above = CAPITAL_HEIGHT * style.ascender - X_HEIGHT * middle
        y[:] = (
            np.minimum(y, 0) * style.descender * math.exp(0.06 * whole[2])
            + np.clip(y, 0, X_HEIGHT) * middle
            + np.maximum(y - X_HEIGHT, 0) * (above / (CAPITAL_HEIGHT - X_HEIGHT))
        )
        x *= (1 + middle) / 2
    else:
        x *= style.capital_width
        if character.isdigit():
            points *= style.digit_size
    angle = 0.035 * whole[3]
    x *= style.width * math.exp(0.1 * whole[4])
    x += y * (style.slant + 0.03 * whole[5])
    turned = x * math.cos(angle) - y * math.sin(angle)
    y[:] = x * math.sin(angle) + y * math.cos(angle)
    x[:] = turned
    points *= style.size * math.exp(0.03 * whole[6])


def _pen_radii(glyph: Glyph, points: Floats, style: WriterStyle, deviation: _Deviation) -> Floats:
    """Return the pen's radius at each point."""
    presses = glyph.waves * deviation.pressure[glyph.stroke]
    radii: Floats = 1 + style.pressure * presses.sum(axis=1)
    if style.taper:
        ends = np.exp(-np.minimum(glyph.before, glyph.after) / 1.5)
        radii *= 1 - style.taper * ends
    if style.nib:
        ahead = np.gradient(points, axis=0)
        across = (ahead[:, 0] - ahead[:, 1]) ** 2 / (2 * (ahead**2).sum(axis=1) + 1e-9)
        radii *= 1 - style.nib * across
    radii *= style.pen_radius * math.exp(0.03 * deviation.whole[7])
    return np.maximum(radii, 0.3 * style.pen_radius)
