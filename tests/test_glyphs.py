import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.charset import CHARACTERS
from pipeline.data.synth import glyphs
from pipeline.data.synth.glyphs import (
    CAPITAL_HEIGHT,
    POINTS_PER_PIECE,
    SPACING,
    Complex,
    Glyph,
    load_glyphs,
)
from pipeline.data.synth.writers import MAX_STROKES

FORMS = [(character, glyph) for character, forms in load_glyphs().items() for glyph in forms]
WITHOUT_ASCENDER = "acegmnopqrsuvwxyz"
BELOW_THE_LINE = "gjpqy"

# The table


def test_every_character_can_be_written_plainly() -> None:
    assert list(load_glyphs()) == list(CHARACTERS)
    for character, forms in load_glyphs().items():
        assert any(not glyph.script for glyph in forms), character


def test_characters_that_people_write_in_several_ways_have_several_forms() -> None:
    for character in "aebdfghjkmnpqrstuwyz0123456789AEFGIJKLMNQRTUWYZ":
        plain = [glyph for glyph in load_glyphs()[character] if not glyph.script]
        assert len(plain) >= 2, character


@pytest.mark.parametrize(
    ("character", "strokes"),
    [("1", {1, 2}), ("4", {1, 2}), ("7", {1, 2}), ("z", {1, 2}), ("I", {1, 3}), ("Q", {1, 2})],
)
def test_variants_differ_in_their_strokes(character: str, strokes: set[int]) -> None:
    assert strokes <= {len(glyph.starts) - 1 for glyph in load_glyphs()[character]}


@pytest.mark.parametrize(("character", "glyph"), FORMS)
def test_a_form_is_what_a_hand_can_bend(character: str, glyph: Glyph) -> None:
    del character
    assert glyph.weight > 0
    n, strokes = len(glyph.sharp), len(glyph.starts) - 1
    assert 1 <= strokes <= MAX_STROKES
    assert glyph.starts[0] == 0
    assert glyph.starts[-1] == n
    assert (np.diff(glyph.starts) >= 4).all()
    assert glyph.stroke.tolist() == np.repeat(np.arange(strokes), np.diff(glyph.starts)).tolist()
    for points in (glyph.sharp, glyph.soft):
        assert np.isfinite(points).all()
        assert (points >= (-3, -8)).all()
        assert (points <= (17, 18)).all()
    for first, end in zip(glyph.starts[:-1], glyph.starts[1:], strict=True):
        own = slice(first, end)
        steps = np.linalg.norm(np.diff(glyph.sharp[own], axis=0), axis=1)
        assert steps.max() <= 1.5 * SPACING
        np.testing.assert_allclose(glyph.before[own], np.append(0, np.cumsum(steps)))
        whole = glyph.before[own] + glyph.after[own]
        np.testing.assert_allclose(whole, whole[0])
        assert whole[0] > 0.3
        # Softer, but no stroke begins or ends elsewhere.
        for index in (first, end - 1):
            np.testing.assert_allclose(glyph.soft[index], glyph.sharp[index], atol=1e-9)
    for directions in (glyph.leaving, glyph.arriving):
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)


@pytest.mark.parametrize(("character", "glyph"), FORMS)
def test_a_form_is_as_high_as_its_kind(character: str, glyph: Glyph) -> None:
    low, high = glyph.sharp[:, 1].min(), glyph.sharp[:, 1].max()
    if character in WITHOUT_ASCENDER:
        assert 9 <= high <= 11
    elif character not in "ijt":
        assert CAPITAL_HEIGHT - 2 <= high <= CAPITAL_HEIGHT + 2
    if character in BELOW_THE_LINE:
        assert -7 <= low <= -3
    elif not glyph.script and character not in "Qf":
        assert -2 <= low <= 1
    assert np.ptp(glyph.sharp[:, 0]) > 1 or character in "1Iil"


# Curves


@st.composite
def places(draw: st.DrawFn) -> Complex:
    """Points of a stroke, none near the one before."""
    n = draw(st.integers(2, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = generator.uniform(1, 8, n) * np.exp(1j * generator.uniform(-3, 3, n))
    cumulated: Complex = np.cumsum(steps)
    return cumulated


@given(places())
def test_a_curve_goes_through_its_points(points: Complex) -> None:
    curve = glyphs._hobby(points, None, None)
    assert len(curve) == POINTS_PER_PIECE * (len(points) - 1) + 1
    np.testing.assert_allclose(curve[::POINTS_PER_PIECE], points, atol=1e-9)
    assert np.isfinite(curve).all()


@given(places(), st.floats(0.1, 10), st.floats(-3, 3), st.floats(-50, 50))
def test_a_curve_moves_turns_and_grows_with_its_points(
    points: Complex, size: float, angle: float, shift: float
) -> None:
    def move(these: Complex) -> Complex:
        moved: Complex = these * size * np.exp(1j * angle) + shift
        return moved

    moved = glyphs._hobby(move(points), None, None)
    np.testing.assert_allclose(moved, move(glyphs._hobby(points, None, None)), atol=1e-6)


def test_four_points_make_a_circle() -> None:
    circle = glyphs._join(glyphs._sections("C 10,5 5,10 0,5 5,0 10,5"))
    assert circle[0] == circle[-1]
    np.testing.assert_allclose(np.abs(circle - (5 + 5j)), 5, rtol=0.01)


@pytest.mark.parametrize(
    ("path", "joint", "smooth"),
    [
        ("L 0,0 0,8 C 5,15 10,8", 8j, True),
        ("L 0,0 0,8 ! C 5,15 10,8", 8j, False),
        ("C 1,12 5,16 8,12 L 8,0", 8 + 12j, True),
        ("C 1,12 5,16 8,12 ! L 8,0", 8 + 12j, False),
        ("L 8,9 8,-2 C 4,-6 1,-3", 8 - 2j, True),
        ("C 0,0 5,2 10,0 L 10,-5 5,-5", 10 + 0j, True),
        ("C 0,0 5,5 10,0 C 15,5 20,0", 10 + 0j, False),
    ],
)
def test_curves_meet_lines_smoothly_unless_there_is_a_corner(
    monkeypatch: pytest.MonkeyPatch, path: str, joint: complex, smooth: bool
) -> None:
    monkeypatch.setattr(glyphs, "POINTS_PER_PIECE", 1000)  # so that the first step is the direction
    points = glyphs._join(glyphs._sections(path))
    at = int(np.argmin(np.abs(points - joint)))
    assert points[at] == joint
    ahead, behind = points[at + 1] - points[at], points[at] - points[at - 1]
    assert (abs(np.angle(ahead / behind)) < 0.01) == smooth


# The file


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a 1",
        "a 1 script",
        "a some L 0,0 1,1",
        "? 1 L 0,0 1,1",
        "ab 1 L 0,0 1,1",
        "a 1 0,0 1,1",
        "a 1 L 0,0",
        "a 1 L 0,0 1",
        "a 1 L 0,0 1,x",
        "a 1 L 0,0 1,1 C",
        "a 1 L 0,0 1,1 /",
        "a 1 / L 0,0 1,1",
        "a 1 L 0,0 nan,1",
    ],
)
def test_a_line_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(glyphs, "_text", lambda: f"# A comment.\n\nb 1 L 0,0 1,1\n{line}\n")
    with pytest.raises(ValueError, match=r"^glyphs\.txt line 4: ") as caught:
        load_glyphs.__wrapped__()
    assert repr(line) in str(caught.value)
