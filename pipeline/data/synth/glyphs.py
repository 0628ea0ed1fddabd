"""The skeletons of the 62 characters, read from glyphs.txt and interpolated.

Curves through the points of a stroke are Hobby's splines ("Smooth, easy to compute interpolating
splines", 1986, used by METAFONT), which look like handwriting from few points.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from pipeline.data.base import Floats
from pipeline.data.charset import CHARACTERS

Complex = NDArray[np.complex128]

CAPITAL_HEIGHT, X_HEIGHT = 16.0, 10.0  # in units of glyphs.txt
SPACING = 0.4  # units between the points of a stroke, approximately
SOFTNESS = 1.0  # units: standard deviation of the smoothing that rounds corners
HALF_WAVES = 3  # sine modes by which a stroke can bend
POINTS_PER_PIECE = 6  # of a curve between two points of glyphs.txt, before resampling


@dataclass(frozen=True)
class Glyph:
    """One form of a character: n points along s strokes, in units of glyphs.txt.

    `weight` is the form's frequency; `script` forms belong to joined-up handwriting. `sharp` (n, 2)
    is the skeleton and `soft` (n, 2) the skeleton with round corners; `stroke` (n,) is the stroke
    of each point, `starts` (s + 1,) are the strokes' first points; `before` and `after` (n,) are
    the lengths of the stroke before and after each point; `waves` (n, HALF_WAVES) are sine modes
    along the stroke; `centres` (s, 2) are the strokes' mean points, `leaving` and `arriving` (s, 2)
    their directions at both ends.
    """

    weight: float
    script: bool
    sharp: Floats
    soft: Floats
    stroke: NDArray[np.int64]
    starts: NDArray[np.int64]
    before: Floats
    after: Floats
    waves: Floats
    centres: Floats
    leaving: Floats
    arriving: Floats


@cache
def load_glyphs() -> dict[str, tuple[Glyph, ...]]:
    """Return the forms of each character. Raises ValueError for an invalid line."""
    found: dict[str, list[Glyph]] = {character: [] for character in CHARACTERS}
    for number, line in enumerate(_text().splitlines(), 1):
        if line and not line.startswith("#"):
            try:
                character, weight, path = line.split(maxsplit=2)
                strokes = path.removeprefix("script ").split("/")
                points = [_resample(_join(_sections(stroke))) for stroke in strokes]
                found[character].append(_measure(float(weight), path.startswith("script "), points))
            except (KeyError, ValueError, IndexError) as error:
                raise ValueError(f"glyphs.txt line {number}: {line!r}: {error}") from error
    assert all(found.values())
    return {character: tuple(glyphs) for character, glyphs in found.items()}


def digest() -> str:
    """Return the SHA-256 of glyphs.txt, in hexadecimal."""
    return hashlib.sha256(_text().encode()).hexdigest()


def _text() -> str:
    return files(__package__).joinpath("glyphs.txt").read_text("utf-8")


@dataclass
class _Section:
    """Points joined by lines or by a curve; the first point is the previous section's last."""

    curved: bool
    points: list[complex]
    corner: bool  # between the previous section and this one


def _sections(stroke: str) -> list[_Section]:
    sections: list[_Section] = []
    corner = False
    for word in stroke.split():
        if word == "!":
            corner = True
        elif word in ("L", "C"):
            first = [sections[-1].points[-1]] if sections else []
            sections.append(_Section(word == "C", first, corner))
            corner = False
        else:
            x, y = word.split(",")
            sections[-1].points.append(complex(float(x), float(y)))
    if not sections or any(len(section.points) < 2 for section in sections):
        raise ValueError("a section of a stroke needs two points")
    return sections


def _join(sections: list[_Section]) -> Complex:
    """Return a stroke's points (n,), with interpolated curves."""
    parts = []
    for index, section in enumerate(sections):
        points = np.array(section.points)
        if section.curved:
            before = sections[index - 1] if index and not section.corner else None
            after = sections[index + 1] if index + 1 < len(sections) else None
            leaving = arriving = None
            if before is not None and not before.curved:
                leaving = before.points[-1] - before.points[-2]
            if after is not None and not after.curved and not after.corner:
                arriving = after.points[1] - after.points[0]
            closed = len(sections) == 1 and points[0] == points[-1]
            points = _close(points) if closed else _hobby(points, leaving, arriving)
        parts.append(points[int(index > 0) :])
    return np.concatenate(parts)


def _close(points: Complex) -> Complex:
    """Return a smooth closed curve (n,): the second of three turns through the points."""
    around = np.concatenate([points[:-1]] * 3 + [points[:1]])
    once = POINTS_PER_PIECE * (len(points) - 1)
    return _hobby(around, None, None)[once : 2 * once + 1]


def _hobby(points: Complex, leaving: complex | None, arriving: complex | None) -> Complex:
    """Return points on the smooth curve through `points`, POINTS_PER_PIECE for each piece.

    `leaving` and `arriving` are the directions at the ends, None for free ends. The unknowns are
    the angles between the curve and the chord from each point to the next.
    """
    chords = np.diff(points)
    n = len(chords)
    near = 1 / np.abs(chords)
    turn = np.zeros(n + 1)
    turn[1:n] = np.angle(chords[1:] / chords[:-1])
    matrix, rhs = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
    for k in range(1, n):
        matrix[k, k - 1 : k + 2] = near[k - 1], 2 * (near[k - 1] + near[k]), near[k]
        rhs[k] = -2 * near[k - 1] * turn[k] - near[k] * turn[k + 1]
    matrix[0, 0] = matrix[n, n] = 1
    if leaving is None:
        matrix[0, 1], rhs[0] = 1, -turn[1]
    else:
        rhs[0] = np.angle(leaving / chords[0])
    if arriving is None:
        matrix[n, n - 1] = 1
    else:
        rhs[n] = np.angle(arriving / chords[-1])
    straight = n == 1 and leaving is None and arriving is None
    angles: Floats = rhs if straight else np.linalg.solve(matrix, rhs).astype(np.float64)
    out, into = angles[:-1], -turn[1:] - angles[1:]
    control_1 = points[:-1] + chords * np.exp(1j * out) * _velocity(out, into)
    control_2 = points[1:] - chords * np.exp(-1j * into) * _velocity(into, out)
    t = np.arange(POINTS_PER_PIECE)[None] / POINTS_PER_PIECE
    pieces = (
        points[:-1, None] * (1 - t) ** 3
        + control_1[:, None] * (3 * t * (1 - t) ** 2)
        + control_2[:, None] * (3 * t**2 * (1 - t))
        + points[1:, None] * t**3
    )
    return np.append(pieces.ravel(), points[-1])


def _velocity(here: Floats, there: Floats) -> Floats:
    """Return Hobby's velocity at one end of each piece: a third of rho."""
    sines = (np.sin(here) - np.sin(there) / 16) * (np.sin(there) - np.sin(here) / 16)
    above = 2 + np.sqrt(2) * sines * (np.cos(here) - np.cos(there))
    below = 1 + (np.sqrt(5) - 1) / 2 * np.cos(here) + (3 - np.sqrt(5)) / 2 * np.cos(there)
    velocity: Floats = above / below / 3
    return velocity


def _resample(points: Complex) -> Complex:
    """Return points at equal distances of about SPACING on the same line."""
    lengths = np.append(0, np.cumsum(np.abs(np.diff(points))))
    count = max(4, round(lengths[-1] / SPACING) + 1)
    spaced: Complex = np.interp(np.linspace(0, lengths[-1], count), lengths, points)
    return spaced


def _measure(weight: float, script: bool, strokes: list[Complex]) -> Glyph:
    sharp = [np.stack([stroke.real, stroke.imag], 1) for stroke in strokes]
    width = SOFTNESS / SPACING
    soft = [gaussian_filter1d(stroke, width, axis=0, mode="nearest") for stroke in sharp]
    for hard, round_ in zip(sharp, soft, strict=True):
        # Smoothing moves the ends; move them back.
        fraction = np.linspace(0, 1, len(hard))[:, None]
        round_ += (1 - fraction) * (hard[0] - round_[0]) + fraction * (hard[-1] - round_[-1])
    lengths = [np.append(0, np.cumsum(np.abs(np.diff(stroke)))) for stroke in strokes]
    fraction = np.concatenate([length / length[-1] for length in lengths])
    orders = np.arange(1, HALF_WAVES + 1)
    counts = [len(stroke) for stroke in strokes]
    return Glyph(
        weight=weight,
        script=script,
        sharp=np.concatenate(sharp),
        soft=np.concatenate(soft),
        stroke=np.repeat(np.arange(len(strokes)), counts),
        starts=np.append(0, np.cumsum(counts)),
        before=np.concatenate(lengths),
        after=np.concatenate([length[-1] - length for length in lengths]),
        waves=np.sin(np.pi * fraction[:, None] * orders) / orders,
        centres=np.array([stroke.mean(axis=0) for stroke in sharp]),
        leaving=np.array([_direction(stroke[0], stroke[2]) for stroke in sharp]),
        arriving=np.array([_direction(stroke[-3], stroke[-1]) for stroke in sharp]),
    )


def _direction(start: Floats, end: Floats) -> Floats:
    direction: Floats = (end - start) / np.linalg.norm(end - start)
    return direction
