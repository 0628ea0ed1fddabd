import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beton import rng
from pipeline.data.charset import CHARACTERS
from pipeline.data.synth import pen
from pipeline.data.synth import writers as synth_writers
from pipeline.data.synth.glyphs import load_glyphs
from pipeline.data.synth.writers import PenPath, write_character, writer_style

seeds = st.integers(0, 2**63 - 1)
writers = st.integers(0, 5000)
characters = st.sampled_from(CHARACTERS)
copies = st.integers(0, 10_000)


def as_bytes(line: PenPath) -> bytes:
    return line.points.tobytes() + line.starts.tobytes()


@given(seeds, writers, characters, copies)
def test_a_line_is_one_that_a_pen_can_draw(
    seed: int, writer: int, character: str, copy: int
) -> None:
    points, starts = write_character(seed, writer, character, copy)
    assert points.shape == (starts[-1], 3)
    assert np.isfinite(points).all()
    assert starts[0] == 0
    assert (np.diff(starts) >= 2).all()
    assert (points[:, 2] > 0.05).all()
    assert (points[:, 2] < 5).all()
    assert np.abs(points[:, :2]).max() < 60
    assert len(points) in {len(glyph.sharp) for glyph in load_glyphs()[character]}


@given(seeds, writers)
def test_habits_are_sane(seed: int, writer: int) -> None:
    style = writer_style(seed, writer)
    assert all(np.isfinite(value) for value in dataclasses.astuple(style))
    for name in ("script", "taper", "softness", "nib", "pressure"):
        assert 0 <= getattr(style, name) <= 1, name
    for name in (
        "width",
        "capital_width",
        "size",
        "x_height",
        "ascender",
        "descender",
        "digit_size",
        "pen_radius",
    ):
        assert 1 / 3 < getattr(style, name) < 3, name


def test_a_line_depends_on_nothing_else_that_is_generated() -> None:
    asked = [(7, writer, name, copy) for writer in range(3) for name in "a8Q" for copy in (0, 5)]
    lines = {arguments: as_bytes(write_character(*arguments)) for arguments in asked}
    assert len(set(lines.values())) == len(asked)
    writer_style.cache_clear()
    for number in np.random.default_rng(0).permutation(len(asked)):
        assert as_bytes(write_character(*asked[number])) == lines[asked[number]]
        write_character(8, int(number), "x")
    assert as_bytes(write_character(8, 0, "a")) != lines[7, 0, "a", 0]


def test_what_is_generated_does_not_change_the_table() -> None:
    before = {c: [glyph.sharp.copy() for glyph in forms] for c, forms in load_glyphs().items()}
    for character in CHARACTERS:
        write_character(0, 0, character)
    for character, forms in load_glyphs().items():
        for glyph, sharp in zip(forms, before[character], strict=True):
            np.testing.assert_array_equal(glyph.sharp, sharp)


def test_samples_of_one_writer_are_closer_than_those_of_two() -> None:
    """In normalised images, and in the pen's path where the form is the same."""
    images: dict[bool, list[float]] = {True: [], False: []}
    paths: dict[bool, list[float]] = {True: [], False: []}
    for writer in range(0, 24, 2):
        for character in CHARACTERS:
            one = write_character(1, writer, character, 0)
            for same, other in (
                (True, write_character(1, writer, character, 1)),
                (False, write_character(1, writer + 1, character, 1)),
            ):
                a, b = (pen.draw_digit(*line).astype(float) for line in (one, other))
                images[same].append(np.abs(a - b).mean())
                if one.starts.tolist() == other.starts.tolist():
                    distance = np.linalg.norm((one.points - other.points)[:, :2], axis=1)
                    paths[same].append(distance.mean())
    for distances in (images, paths):
        assert len(distances[False]) > 100
        assert np.mean(distances[True]) < 0.75 * np.mean(distances[False])


def test_a_writer_mostly_keeps_to_one_form_of_a_character() -> None:
    same = [
        len(write_character(2, writer, character, copy).points)
        == len(write_character(2, writer, character, 0).points)
        for writer in range(10)
        for character in "a417zgQ"
        for copy in range(1, 11)
    ]
    assert 0.85 < np.mean(same) < 1


def test_writers_use_different_forms() -> None:
    for character, forms in load_glyphs().items():
        used = {len(write_character(3, writer, character).points) for writer in range(30)}
        assert len(used) > 1 or len(forms) == 1, character


@given(seeds, copies, st.integers(0, 2**40), st.integers(1, 300))
def test_numbers_deviate_no_further_than_said(
    seed: int, copy: int, sample: int, count: int
) -> None:
    numbers = synth_writers._normal(seed, copy, sample, rng.WRITING, count)
    assert numbers.shape == (count,)
    assert (np.abs(numbers) <= 3.5).all()


def test_numbers_are_normal() -> None:
    numbers = synth_writers._normal(0, 0, 0, rng.WRITING, 100_000)
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.02
    assert abs((np.abs(numbers) < 1).mean() - 0.68) < 0.02
    other = synth_writers._normal(0, 0, 0, rng.LETTER, 100_000)
    assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.02
