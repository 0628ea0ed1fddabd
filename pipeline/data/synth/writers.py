"""Writers: habits drawn once, and characters that deviate from them a little each time.

A writer is a draw of habits (how the hand slants, how large and wide it writes, which form of each
character it knows); a letter of a writer is a habit too (its own bend and proportions); a sample is
a small deviation around both. So two samples of one writer look alike and two writers differ.

What lies behind each: handwriting as the sum of overlapping strokes, whose corners round with speed
(the sigma-lognormal model, Plamondon 1995, and its use to make variants of a style, Galbally et al.
2012); affine maps and smooth elastic displacements as the difference between two hands (Simard,
Steinkraus and Platt 2003); allographs, the few forms that people choose from. All numbers are
functions of (seed, writer, character, copy), so any sample can be drawn alone.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton import rng
from pipeline.data.charset import CHARACTERS
from pipeline.data.synth.glyphs import CAPITAL_HEIGHT, HALF_WAVES, X_HEIGHT, Glyph, load_glyphs

Floats = NDArray[np.float64]

MAX_STROKES = 4  # the most a character has
TREMOR = (2.0, 3.1, 4.7)  # wave lengths of an unsteady style, in units of glyphs.txt
_SMALL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class WriterStyle:
    """One writer's ways. Lengths are in units of glyphs.txt, in which a capital is 16 high."""

    script: float  # how joined-up, 0 to 1
    slant: float  # units to the right per unit upwards
    aspect: float  # width, as a factor
    capital: float  # the same for capitals and digits, besides
    size: float  # of everything, as a factor
    small: float  # heights of small letters, ascenders, descenders and digits, as factors
    ascender: float
    descender: float
    digit: float
    pen: float  # the pen's radius
    taper: float  # how much thinner strokes end, 0 to 1
    pressure: float  # how much the pen's width varies along a stroke, as a share
    nib: float  # how much thinner strokes along the nib's edge are, 0 for a round one
    softness: float  # how far corners are cut, 0 to 1
    bend: float  # how crooked strokes are
    warp: float  # how far forms are from the usual
    looseness: float  # how badly strokes meet
    overshoot: float  # how far strokes go beyond their ends; below 0 they stop short
    tremor: float
    care: float  # how much samples differ, as a factor


class PenPath(NamedTuple):
    """What the pen does: `points` (n, 3), x and y (downwards) and radius; `starts` (s + 1,)."""

    points: Floats
    starts: NDArray[np.int64]


@lru_cache(1024)
def writer_style(seed: int, writer: int) -> WriterStyle:
    """Return the habits of a writer."""
    n = _normal(seed, 0, writer, rng.HAND, 20)
    u = rng.uniform(seed, 1, np.array([writer]), rng.HAND, 6)[0]
    return WriterStyle(
        script=0.04 if u[0] < 0.6 else 0.1 + 0.7 * u[1],
        slant=0.08 + 0.13 * n[0],
        aspect=math.exp(0.02 + 0.17 * n[1]),
        capital=math.exp(0.2 + 0.13 * n[14]),
        size=math.exp(0.04 * n[2]),
        small=math.exp(-0.03 + 0.14 * n[3]),
        ascender=math.exp(0.06 * n[4]),
        descender=math.exp(0.08 + 0.2 * n[5]),
        digit=math.exp(-0.05 + 0.09 * n[6]),
        pen=0.96 * math.exp(0.28 * n[7]),
        taper=0.5 * max(0.0, 0.6 * n[8] - 0.2),
        pressure=0.06 + 0.05 * abs(n[9]),
        nib=max(0.0, 0.35 * n[10] - 0.25),
        softness=min(1.0, abs(0.45 * n[11])),
        bend=0.3 + 0.4 * u[2],
        warp=0.6 + 0.6 * u[3],
        looseness=0.5 + u[4],
        overshoot=0.1 + 0.35 * n[12],
        tremor=0.025 * abs(n[13]),
        care=0.6 + 0.8 * u[5],
    )


def write_character(seed: int, writer: int, character: str, copy: int = 0) -> PenPath:
    """Return how a writer writes a character, the `copy`-th time, in units of glyphs.txt."""
    style = writer_style(seed, writer)
    letter = writer * len(CHARACTERS) + CHARACTERS.index(character)
    usual = _normal(seed, 0, letter, rng.LETTER, _Deviation.NUMBERS)
    sample = _normal(seed, copy, letter, rng.WRITING, _Deviation.NUMBERS)
    choice = rng.uniform(seed, copy, np.array([letter]), rng.WRITING, 2)[0]
    if choice[1] > 0.06:  # else another form than usual, for once
        choice = rng.uniform(seed, 0, np.array([letter]), rng.LETTER, 1)[0]
    glyph = _choose(load_glyphs()[character], style.script, choice[0])
    # Letters have their own habits, about twice as far from the table as samples are from habits.
    deviation = _Deviation(usual + 0.5 * style.care * sample)
    points = _shape(glyph, style, deviation)
    _transform(points, style, deviation, character)
    radii = _pen_radii(glyph, points, style, deviation)
    points[:, 1] *= -1
    return PenPath(np.column_stack([points, radii]), glyph.starts)


class _Deviation:
    """Normal numbers, by what they are for."""

    NUMBERS = 11 + 10 + MAX_STROKES * (6 + 2 * HALF_WAVES + 4 * len(TREMOR) + 3)

    def __init__(self, numbers: Floats) -> None:
        self.whole, self.warp = numbers[:11], numbers[11:21].reshape(5, 2)
        rest = numbers[21:].reshape(MAX_STROKES, -1)
        n = 6 + 2 * HALF_WAVES
        self.stroke = rest[:, :6]
        self.bend = rest[:, 6:n].reshape(MAX_STROKES, HALF_WAVES, 2)
        self.tremor = rest[:, n : n + 4 * len(TREMOR)].reshape(MAX_STROKES, -1, 2)
        self.press = rest[:, n + 4 * len(TREMOR) :]


def _normal(seed: int, copy: int, sample: int, purpose: int, count: int) -> Floats:
    """Return numbers of mean 0 and deviation 1, never beyond 3.5: sums of four uniform ones.

    Exact on any machine, as no function of the C library is.
    """
    uniform = rng.uniform(seed, copy, np.array([sample]), purpose, 2 + 4 * count)[0, 2:]
    normal: Floats = (uniform.reshape(4, count).sum(axis=0) - 2) * 3**0.5
    return normal


def _choose(glyphs: tuple[Glyph, ...], script: float, choice: float) -> Glyph:
    weights = np.cumsum([g.weight * (2 * script if g.script else 1 - script) for g in glyphs])
    return glyphs[int(np.searchsorted(weights, choice * weights[-1], "right"))]


def _shape(glyph: Glyph, style: WriterStyle, deviation: _Deviation) -> Floats:
    """Return the points of the strokes as this hand bends, places and ends them."""
    whole, own = deviation.whole, deviation.stroke[glyph.stroke]
    softness = min(1.0, max(0.0, style.softness + 0.12 * whole[0]))
    points = glyph.sharp + softness * (glyph.soft - glyph.sharp)

    # A smooth displacement of the whole character.
    x = points[:, 0] / CAPITAL_HEIGHT * np.pi
    y = points[:, 1] / CAPITAL_HEIGHT * np.pi
    basis = np.stack([np.sin(x), np.sin(y), np.cos(2 * y), np.sin(x + y), np.cos(x - 2 * y)], 1)
    shift = basis @ (deviation.warp * (0.42 * style.warp))

    # Each stroke bends, trembles, turns, grows and is set down somewhere else.
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

    # Ends are drawn out, or fall short.
    for beyond, length, direction in (
        (own[:, 4], glyph.before, -glyph.leaving),
        (own[:, 5], glyph.after, glyph.arriving),
    ):
        reach = np.maximum(0, 1 - length / 3) * (style.overshoot + 0.35 * beyond)
        shift += reach[:, None] * direction[glyph.stroke]
    shaped: Floats = points + shift
    return shaped


def _transform(points: Floats, style: WriterStyle, deviation: _Deviation, character: str) -> None:
    """Give the points of a character this hand's proportions, slant and size, in place."""
    whole = deviation.whole
    x, y = points[:, 0], points[:, 1]
    if character in _SMALL_LETTERS:
        # Three zones, each with a height of its own.
        middle = style.small * math.exp(0.03 * whole[1])
        above = CAPITAL_HEIGHT * style.ascender - X_HEIGHT * middle
        y[:] = (
            np.minimum(y, 0) * style.descender * math.exp(0.06 * whole[2])
            + np.clip(y, 0, X_HEIGHT) * middle
            + np.maximum(y - X_HEIGHT, 0) * (above / (CAPITAL_HEIGHT - X_HEIGHT))
        )
        x *= (1 + middle) / 2
    else:
        x *= style.capital
        if character.isdigit():
            points *= style.digit
    angle = 0.035 * whole[3]
    x *= style.aspect * math.exp(0.1 * whole[4])
    x += y * (style.slant + 0.03 * whole[5])
    turned = x * math.cos(angle) - y * math.sin(angle)
    y[:] = x * math.sin(angle) + y * math.cos(angle)
    x[:] = turned
    points *= style.size * math.exp(0.03 * whole[6])


def _pen_radii(glyph: Glyph, points: Floats, style: WriterStyle, deviation: _Deviation) -> Floats:
    """Return the pen's radius at each point."""
    presses = glyph.waves * deviation.press[glyph.stroke]
    radii: Floats = 1 + style.pressure * presses.sum(axis=1)
    if style.taper:
        ends = np.exp(-np.minimum(glyph.before, glyph.after) / 1.5)
        radii *= 1 - style.taper * ends
    if style.nib:
        ahead = np.gradient(points, axis=0)
        across = (ahead[:, 0] - ahead[:, 1]) ** 2 / (2 * (ahead**2).sum(axis=1) + 1e-9)
        radii *= 1 - style.nib * across
    radii *= style.pen * math.exp(0.03 * deviation.whole[7])
    return np.maximum(radii, 0.3 * style.pen)
