"""What only pixels show of a dataset: its records, scale, polarity, paper, blanks and copies."""

import dataclasses
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from beton.codec import ink
from pipeline.data.base import TEST, TRAIN, VALIDATION, Decoded
from pipeline.data.pixels.measures import (
    MEASURES,
    ON_BLACK,
    ON_WHITE,
    TURNED,
    UNREADABLE,
    Measures,
    measure,
    read_measures,
)
from pipeline.data.pixels.polarity import (
    decide_polarity,
    ink_fraction,
    is_blank,
    paper,
    shows_ink,
)
from pipeline.data.pixels.scale import Scale, choose_scale, describe_scale
from pipeline.data.pixels.survey import Survey, copy_groups

Pixels = NDArray[np.uint8]


def records(images: Sequence[Pixels]) -> Measures:
    return read_measures(b"".join(measure(Decoded(image), image) for image in images))


def deep_records(images: Sequence[NDArray[Any]]) -> Measures:
    flat = np.zeros((2, 2), np.uint8)
    return read_measures(b"".join(measure(Decoded(image), flat) for image in images))


# One image


def ring(pixels: Pixels, inset: int) -> Pixels:
    height, width = pixels.shape
    y, x = np.mgrid[:height, :width]
    depth = np.minimum.reduce([y, x, height - 1 - y, width - 1 - x])
    outline: Pixels = pixels[depth == inset]
    return outline


images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.sampled_from((0, 1, 7, 100, 127, 128, 200, 254, 255)),
)


@given(images)
@settings(max_examples=200)
def test_a_record_holds_what_the_pixels_show(pixels: Pixels) -> None:
    (record,) = records([pixels])
    height, width = pixels.shape
    ordered = np.sort(pixels.flat)
    rank = max(1, (height + width) // 16)
    low, high = (ordered[min(rank, len(ordered)) - 1], ordered[-min(rank, len(ordered))])
    if low >= high:
        low, high = ordered[0], ordered[-1]
    threshold = (int(low) + int(high)) // 2
    counts = np.bincount(pixels.flat, minlength=256)
    assert (record["height"], record["width"]) == pixels.shape
    assert (record["darkest"], record["lightest"]) == (pixels.min(), pixels.max())
    assert (record["low"], record["high"]) == (pixels.min(), pixels.max())
    assert (record["dark_level"], record["light_level"]) == (low, high)
    assert record["background"] == ink.encode(pixels).background
    assert counts[record["dark_paper"]] == counts[: threshold + 1].max()
    if pixels.max() > threshold:
        assert counts[record["light_paper"]] == counts[threshold + 1 :].max()
        assert record["light_paper"] > threshold
    inset = min(height, width) // 12 or int(min(height, width) > 2)
    for name, part in (("dark", pixels), ("border_dark", ring(pixels, 0))):
        assert record[name] == pytest.approx((part <= threshold).mean())
    assert record["inner_dark"] == pytest.approx((ring(pixels, inset) <= threshold).mean())
    assert -1 <= record["lobes"] <= 1
    assert -record["lobes"] == pytest.approx(records([255 - pixels])["lobes"][0], abs=1e-6)


@given(images, st.data())
def test_equal_hashes_are_equal_pixels(pixels: Pixels, data: st.DataObject) -> None:
    changed = pixels.copy()
    index = data.draw(st.integers(0, pixels.size - 1))
    changed.flat[index] ^= 1 << data.draw(st.integers(0, 7))
    unaligned = np.empty(pixels.size + 1, np.uint8)[1:].reshape(pixels.shape)
    unaligned[:] = pixels
    strided = np.repeat(pixels, 2, axis=1)[:, ::2]
    record = records([pixels])[0]
    assert record == records([unaligned])[0] == records([strided])[0]
    assert (records([changed])["hash"][0] != record["hash"]).any()
    if pixels.shape[0] != pixels.shape[1]:
        reshaped = pixels.reshape(pixels.shape[::-1])
        assert (records([reshaped])["hash"][0] != record["hash"]).any()


def test_sparse_changes_never_share_a_hash() -> None:
    """Two flipped bits, in every pair of places, in each half of the hash."""
    pixels = np.zeros((1, 48), np.uint8)
    flips = [(i, bit) for i in (0, 7, 8, 15, 16, 40, 47) for bit in (0, 3, 7)]
    variants = []
    for a, one in flips:
        for b, other in flips:
            changed = pixels.copy()
            changed.flat[a] ^= 1 << one
            changed.flat[b] ^= 1 << other
            variants.append(changed)
    distinct = len({variant.tobytes() for variant in variants})
    hashes = records(variants)["hash"]
    assert len(set(hashes[:, 0].tolist())) == len(set(hashes[:, 1].tolist())) == distinct


def test_ink_in_another_place_of_blank_paper_has_another_hash() -> None:
    """One to three marked words of a blank page, which lie in every place: each half differs."""
    places = [(a, b, c) for a in range(12) for b in range(a, 12) for c in range(b, 12)]
    variants = []
    for marked in places:
        pixels = np.full((8, 12), 255, np.uint8)
        pixels.reshape(12, 8)[list(marked)] = 255 - np.arange(8, dtype=np.uint8)
        variants.append(pixels)
    hashes = records(variants)["hash"]
    distinct = len({variant.tobytes() for variant in variants})
    assert len(set(hashes[:, 0].tolist())) == len(set(hashes[:, 1].tolist())) == distinct


def test_a_record_holds_how_the_file_stored_the_image() -> None:
    deep = np.array([[4000, 55000]], np.uint16)
    decoded = Decoded(deep, "I;16B", (TURNED, ON_WHITE, UNREADABLE))
    (record,) = read_measures(measure(decoded, Scale(0, 65535).to_8bit(deep)))
    assert len(measure(decoded, np.zeros((1, 1), np.uint8))) == MEASURES.itemsize
    assert (record["low"], record["high"], record["depth"]) == (4000, 55000, 1)
    assert (record["darkest"], record["lightest"]) == (16, 214)
    assert (record["mode"], record["changes"]) == (b"I;16B", 0b1011)


# Scale


@pytest.mark.parametrize(
    ("dtype", "values", "low", "high"),
    [
        (np.uint16, (4000, 55000), 0, 65535),
        (np.uint16, (0, 65535), 0, 65535),
        (np.uint16, (250, 4095), 250, 4095),  # 12 bits
        (np.uint16, (40000, 65535), 40000, 65535),
        (np.float32, (0, 1), 0, 1),
        (np.float32, (0.25, 0.75), 0, 1),
        (np.float32, (0.25, 0.5), 0.25, 0.5),
        (np.float32, (3, 250), 0, 255),
        (np.float32, (3, 100), 3, 100),
        (np.float32, (-1, 1), -1, 1),
        (np.int32, (100, 60000), 0, 65535),
        (np.int32, (-100, 60000), -100, 60000),
        (np.int32, (0, 1 << 20), 0, 1 << 20),
    ],
)
def test_the_scale_is_the_formats_range_or_the_datasets(
    dtype: type, values: tuple[float, float], low: float, high: float
) -> None:
    extremes: list[NDArray[Any]] = [np.array([[value]], dtype) for value in values]
    measures = deep_records(extremes)
    scale = choose_scale(measures)
    assert scale == Scale(low, high)
    expected = [round(255 * (value - low) / (high - low)) for value in values]
    assert [int(scale.to_8bit(grey)[0, 0]) for grey in extremes] == expected
    words = describe_scale(measures, scale)
    assert np.dtype(dtype).name in words
    of_format = low == 0 and high in (1, 255, 65535)
    assert ("of the format" in words, "own range" in words) == (of_format, not of_format)
    assert "\n" not in words


def test_eight_bits_need_no_scale() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    measures = records([pixels])
    assert choose_scale(measures) is None
    assert describe_scale(measures, None) == ""
    np.testing.assert_array_equal(Scale(2, 3).to_8bit(pixels), pixels)


def test_one_deep_value_is_black() -> None:
    grey = np.full((2, 2), 700, np.uint16)
    scale = choose_scale(deep_records([grey]))
    assert scale == Scale(700, 700)
    assert (scale.to_8bit(grey) == 0).all()


@given(
    hnp.arrays(np.float32, 9, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_a_scale_keeps_the_order_and_clips(
    grey: NDArray[np.float32], low: float, high: float
) -> None:
    low, high = min(low, high), max(low, high)
    grey = np.sort(grey)
    levels = Scale(low, high).to_8bit(grey)
    assert levels.dtype == np.uint8
    assert (np.diff(levels.astype(int)) >= 0).all()
    if low < high:
        assert (levels[grey.astype(float) <= low] == 0).all()
        assert (levels[grey.astype(float) >= high] == 255).all()


# Polarity


def strokes(
    count: int, widths: Sequence[float], size: int = 32, margin: float = 0.1, seed: int = 0
) -> list[Pixels]:
    """Lines of black ink on white with round ends; the pens take turns."""
    rng = np.random.default_rng(seed)
    drawn = []
    for i in range(count):
        width = 4 * widths[i % len(widths)]
        side = 4 * size
        image = Image.new("L", (side, side), 255)
        draw = ImageDraw.Draw(image)
        first, last = side * margin + width / 2, side * (1 - margin) - width / 2
        if first >= last:
            first = last = side / 2
        points = [tuple(rng.uniform(first, last, 2).tolist()) for _ in range(rng.integers(2, 5))]
        draw.line(points, fill=0, width=int(width), joint="curve")
        for x, y in points:
            r = width / 2
            draw.ellipse((x - r, y - r, x + r, y + r), fill=0)
        drawn.append(np.array(image.resize((size, size), Image.Resampling.BOX)))
    return drawn


def on_grain(drawn: Sequence[Pixels], slope: float = 0, seed: int = 0) -> list[Pixels]:
    """The same ink, saturated at 0, on grainy paper, whose light may have a slope."""
    rng = np.random.default_rng(seed)
    pages = []
    for pixels in drawn:
        y, x = (
            np.mgrid[: pixels.shape[0], : pixels.shape[1]] / np.array(pixels.shape)[:, None, None]
        )
        angle = rng.uniform(0, 2 * np.pi)
        light = rng.uniform(150, 220) + slope * (
            np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
        )
        light = light + rng.normal(0, 12, pixels.shape)
        pages.append(np.clip(np.rint(light * (pixels / 255)), 0, 255).astype(np.uint8))
    return pages


def cropped(drawn: Sequence[Pixels], margin: int = 0) -> list[Pixels]:
    """Dark ink, cropped to its bounding box."""
    crops = []
    for pixels in drawn:
        rows, columns = (np.flatnonzero((pixels < 128).any(axis)) for axis in (1, 0))
        top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
        crops.append(pixels[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin])
    return crops


def inverted(drawn: Sequence[Pixels]) -> list[Pixels]:
    return [255 - pixels for pixels in drawn]


def shapes(kind: str, count: int = 60, seed: int = 0) -> list[Pixels]:
    """Images of one shape, of noisy dark ink."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        image = Image.new("L", (120, 120), 255)
        draw = ImageDraw.Draw(image)
        thick, long, lean = rng.uniform(3, 8), rng.uniform(20, 50), rng.uniform(-4, 4)
        if kind == "1":
            corners = [(50, 30), (50 + thick, 30), (50 + thick + lean, 30 + long)]
            draw.polygon([*corners, (50 + lean, 30 + long)], fill=0)
        elif kind == "dash":
            corners = [(30, 50), (30, 50 + thick), (30 + long, 50 + thick + lean)]
            draw.polygon([*corners, (30 + long, 50 + lean)], fill=0)
        elif kind == "dot":
            draw.ellipse((60 - thick, 60 - thick, 60 + thick, 60 + thick), fill=0)
        else:  # a thicker frame is the same image as a light square on dark paper
            draw.rectangle((30, 30, 66 + long, 66 + long), outline=0, width=3)
        noisy = np.array(image) + rng.normal(0, 4, (120, 120))
        drawn.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return drawn


THICK = strokes(60, [24], margin=0.05)  # covers more than half of most images
DARK: dict[str, Callable[[], list[Pixels]]] = {
    "thin pen": lambda: strokes(60, [2]),
    **{
        f"pen of {width} pixels saturated at 0 on grain": (
            lambda width=width: on_grain(strokes(60, [width]))  # type: ignore[misc]
        )
        for width in (1, 4, 6, 8, 10)
    },
    "two classes with a thin and a thick pen": lambda: strokes(60, [2, 24], margin=0.05),
    "thick pen": lambda: THICK,
    "photograph in uneven light": lambda: on_grain(strokes(60, [2], 64), slope=120),
    "photograph in very uneven light": lambda: on_grain(strokes(60, [2], 64), slope=180),
    "crops with a margin": lambda: cropped(strokes(60, [3]), margin=3),
    "small images": lambda: strokes(60, [1.2], 8, margin=0.05),
    "pages": lambda: strokes(20, [3], 300),
    "dots on pages": lambda: [
        np.pad(np.zeros((5, 5), np.uint8), (100 + i, 150 - i), constant_values=255)
        for i in range(20)
    ],
}


@pytest.mark.parametrize("case", sorted(DARK))
def test_the_polarity_of_a_dataset_is_found(case: str) -> None:
    drawn = DARK[case]()
    assert decide_polarity(records(drawn)) == "dark"
    assert decide_polarity(records(inverted(drawn))) == "light"


def test_thick_pens_cover_more_than_half_of_the_image() -> None:
    """The case above is the one that per-image backgrounds get wrong."""
    measures = records(THICK)
    assert (measures["background"] == 0).mean() > 0.5
    assert (paper(measures, "dark") == 255).all()


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_mixture_of_normal_and_inverted_images_is_undecided(share: float) -> None:
    drawn = strokes(100, [2])
    few = int(share * 100)
    assert decide_polarity(records(drawn[few:] + inverted(drawn[:few]))) is None


def test_some_inverted_images_do_not_change_the_polarity() -> None:
    drawn = strokes(100, [2])
    measures = records(drawn[5:] + inverted(drawn[:5]))
    assert decide_polarity(measures) == "dark"
    labels = splits = np.zeros(100, np.int64)
    survey = Survey.of(measures, labels, splits, ["a"], str, "dark", None)
    assert (survey.inverted, survey.disagreeing) == (5, 5)
    assert any("5 images look inverted" in warning for warning in survey.warnings)


@pytest.mark.parametrize("kind", ["1", "dash", "dot", "frame"])
@pytest.mark.parametrize("seed", range(3))
def test_tight_crops_are_never_decided_wrongly(kind: str, seed: int) -> None:
    drawn = shapes(kind, seed=seed)
    for margin in (0, 1):
        crops = cropped(drawn, margin)
        assert decide_polarity(records(crops)) in (None, "dark")
        assert decide_polarity(records(inverted(crops))) in (None, "light")


@pytest.mark.parametrize("letters", [*"BDHILMOW1", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"])
@pytest.mark.parametrize("weight", ["", "-Bold"])
def test_tight_crops_of_letters_are_never_decided_wrongly(letters: str, weight: str) -> None:
    name = Path(matplotlib.get_data_path(), f"fonts/ttf/DejaVuSans{weight}.ttf")
    rng = np.random.default_rng(0)
    drawn = []
    for i in range(72):
        image = Image.new("L", (120, 120), 255)
        font = ImageFont.truetype(name, int(rng.integers(24, 60)))
        ImageDraw.Draw(image).text((30, 20), letters[i % len(letters)], font=font, fill=0)
        drawn.append(np.array(image.rotate(rng.uniform(-6, 6), fillcolor=255)))
    crops = cropped(drawn)
    assert decide_polarity(records(crops)) in (None, "dark")
    assert decide_polarity(records(inverted(crops))) in (None, "light")
    assert decide_polarity(records(drawn)) == "dark"


def test_pages_with_a_black_frame_are_never_decided_wrongly() -> None:
    framed = [np.pad(pixels, 5) for pixels in strokes(60, [2], 80)]
    assert decide_polarity(records(framed)) in (None, "dark")


def test_tight_crops_with_specks_of_paper_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    crops = []
    for height, width in [(60, 14), (12, 50), (16, 16)] * 20:
        crop = np.zeros((height, width), np.uint8)
        crop[rng.integers(0, height), rng.integers(0, width)] = 255
        crop[0, 0] = crop[-1, -1] = 255
        crops.append(crop)
    assert decide_polarity(records(crops)) is None


def test_blank_images_decide_nothing() -> None:
    assert decide_polarity(records([np.full((9, 9), 255, np.uint8)] * 9)) is None
    assert decide_polarity(np.zeros(0, MEASURES)) is None


@pytest.mark.parametrize("shape", [(5, 7), (28, 28), (90, 120)])
@pytest.mark.parametrize("levels", [2, 256])
def test_noise_has_no_paper_and_so_no_polarity(shape: tuple[int, int], levels: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, levels, (200, *shape)) * (255 // (levels - 1))
    assert decide_polarity(records(list(noise.astype(np.uint8)))) is None


def test_blank_images_do_not_count_against_a_polarity() -> None:
    blank = [np.full((32, 32), 250, np.uint8)] * 90
    assert decide_polarity(records([*blank, *strokes(10, [2])])) == "dark"


# Paper


@given(images)
@settings(max_examples=200)
def test_paper_is_the_commonest_value_on_the_side_of_the_paper(pixels: Pixels) -> None:
    measures = records([pixels])
    background = int(measures["background"][0])
    counts = np.bincount(pixels.flat, minlength=256)
    threshold = (int(measures["dark_level"][0]) + int(measures["light_level"][0])) // 2
    assert paper(measures, "each")[0] == background
    if is_blank(measures)[0]:
        assert paper(measures, "dark")[0] == paper(measures, "light")[0] == background
        return
    light, dark = int(paper(measures, "dark")[0]), int(paper(measures, "light")[0])
    assert dark <= threshold < light
    assert counts[light] == counts[threshold + 1 :].max()
    assert counts[dark] == counts[: threshold + 1].max()
    assert background in (light, dark)


def test_the_paper_of_a_saturated_pen_is_the_grain_and_not_the_pen() -> None:
    measures = records(on_grain(strokes(60, [6])))
    pen = measures["background"] == 0
    assert pen.mean() > 0.5
    assert (paper(measures, "dark") > 100).all()


# Blank images and copies


def test_an_image_without_contrast_is_blank() -> None:
    rng = np.random.default_rng(0)
    faint = rng.integers(240, 255, (20, 20), np.uint8)  # as compression leaves it
    dot = np.full((300, 300), 255, np.uint8)
    dot[100:103, 100:103] = 200
    constant = np.zeros((3, 3), np.uint8)
    assert is_blank(records([constant, faint, dot])).tolist() == [True, True, False]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_copies_are_grouped_with_the_first_of_them(numbers: list[int]) -> None:
    rng = np.random.default_rng(0)
    distinct = rng.integers(0, 256, (6, 5, 4), np.uint8)
    groups = copy_groups(records([distinct[i] for i in numbers]))
    assert groups.tolist() == [numbers.index(i) for i in numbers]


def test_blank_images_are_copies_of_none() -> None:
    blank = np.full((5, 5), 255, np.uint8)
    assert copy_groups(records([blank, blank, blank])).tolist() == [0, 1, 2]


# The survey


def survey_of(
    drawn: Sequence[Pixels],
    labels: Sequence[int],
    splits: Sequence[int],
    modes: Sequence[str] = (),
) -> Survey:
    decoded = [Decoded(image, mode) for image, mode in zip(drawn, modes or ["L"] * len(drawn))]  # noqa: B905
    measures = read_measures(b"".join(measure(one, one.grey) for one in decoded))
    classes = [f"class {i}" for i in range(max(labels) + 1)]
    return Survey.of(
        measures,
        np.array(labels),
        np.array(splits),
        classes,
        lambda i: f"{i}.png",
        decide_polarity(measures) or "each",
        choose_scale(measures),
    )


def test_a_survey_is_json_and_is_read_back() -> None:
    drawn = [*strokes(8, [2]), np.full((32, 32), 255, np.uint8)]
    survey = survey_of(drawn, [0, 1] * 4 + [2], [TRAIN] * 9)
    text = json.dumps(dataclasses.asdict(survey), allow_nan=False)
    assert msgspec.convert(json.loads(text), Survey) == survey
    assert msgspec.json.decode(msgspec.json.encode(survey), type=Survey) == survey
    assert survey.images == 9
    assert survey.modes == {"L": 9}
    assert survey.sizes == ((32, 32, 9),)
    assert survey.ink is not None
    assert sum(survey.ink.counts) == sum(survey.height.counts) == 9
    assert survey.polarity == "dark"
    assert (survey.blank, survey.blank_by_class, survey.blank_classes) == (
        *(1, {"class 2": 1}),
        ("class 2",),
    )
    assert survey.warnings == (
        "1 image is blank (11.1%)",
        "classes with only blank images: 'class 2'",
    )


def test_copies_across_splits_and_classes_are_counted_and_named() -> None:
    a, b, c, d = strokes(4, [2])
    drawn = [a, b, c, a, b, b, c, d]
    labels = [0, 0, 1, 0, 1, 0, 1, 1]
    splits = [TRAIN, TRAIN, TRAIN, TEST, VALIDATION, VALIDATION, TRAIN, TEST]
    survey = survey_of(drawn, labels, splits)
    assert dataclasses.astuple(survey.copies) == (
        *(3, 7, 2, 1),
        (("1.png", "4.png"), ("0.png", "3.png"), ("2.png", "6.png")),
    )
    assert "2 of 2 validation images are copies of train images" in survey.warnings
    assert "1 of 2 test images are copies of train images" in survey.warnings
    assert "groups of equal images with different labels: 1" in survey.warnings


def test_colour_among_grey_and_unequal_proportions_are_warnings() -> None:
    wide = [np.pad(a, ((0, 0), (0, 68)), constant_values=255) for a in strokes(5, [2], seed=1)]
    tall = [np.pad(a, ((0, 68), (0, 0)), constant_values=255) for a in strokes(5, [2])]
    survey = survey_of([*wide, *tall], [0, 1] * 5, [TRAIN] * 10, ["RGB"] * 4 + ["L"] * 6)
    assert "4 of 10 images are in colour; all are stored as grey" in survey.warnings
    assert any("vary from 0.32 to 3.12" in warning for warning in survey.warnings)
    assert survey.distinct_sizes == 2


def test_depths_of_several_types_are_a_warning() -> None:
    kinds = [np.full((2, 2), 9, dtype) for dtype in (np.uint16, np.float32)]
    measures = deep_records(kinds)
    scale = choose_scale(measures)
    zeros = np.zeros(2, np.int64)
    survey = Survey.of(measures, zeros, zeros, ["a"], str, "each", scale)
    assert any("uint16, float32" in warning for warning in survey.warnings)
    assert survey.scale == (9.0, 9.0)


def test_a_survey_of_many_images_takes_little_memory() -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    measures = np.repeat(records(strokes(1, [2])), n)
    measures["hash"] = rng.integers(0, n, (n, 2))
    labels, splits = rng.integers(0, 10, n), rng.integers(0, 3, n)
    tracemalloc.start()
    survey = Survey.of(measures, labels, splits, list("0123456789"), str, "dark", None)
    assert tracemalloc.get_traced_memory()[1] < 150 * n
    tracemalloc.stop()
    assert survey.images == n


def test_some_defective_pixels_do_not_determine_the_range_of_deep_values() -> None:
    deep = np.random.default_rng(0).integers(100, 4000, (40, 40)).astype(np.uint16)
    deep[3, 3], deep[30, 4] = 65535, 0
    (record,) = read_measures(measure(Decoded(deep), np.zeros((40, 40), np.uint8)))
    assert 100 <= record["low"] < 150
    assert 3950 < record["high"] < 4000
    few = np.full((40, 40), 4000, np.uint16)
    few[20, 20:23] = 100  # ink of fewer pixels than may be defective
    (record,) = read_measures(measure(Decoded(few), np.zeros((40, 40), np.uint8)))
    assert (record["low"], record["high"]) == (100, 4000)


def test_an_image_that_was_composited_shows_its_own_polarity() -> None:
    """A pen of light colour among dark ones, and a stroke that covers most of its image."""
    light, thick = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    light[4:16, 9:11], thick[:3] = 226, 255
    found = b"".join(
        measure(Decoded(one, "RGBA", changes), one)
        for one, changes in ((light, (ON_BLACK,)), (thick, (ON_WHITE,)), (thick, ()))
    )
    measures = read_measures(found)
    for polarity in ("dark", "light"):
        assert paper(measures, polarity).tolist()[:2] == [0, 255]
    assert paper(measures, "each").tolist() == [0, 0, 0]
    assert shows_ink(measures, "dark").tolist()[:2] == [False, True]
    assert shows_ink(measures, "light").tolist()[:2] == [True, False]
    assert ink_fraction(measures, "dark").tolist()[:2] == pytest.approx([24 / 400, 340 / 400])


def test_images_with_an_unreadable_orientation_are_a_warning() -> None:
    drawn = strokes(4, [2])
    changes = [(UNREADABLE,), (), (UNREADABLE,), (TURNED,)]
    decoded = [Decoded(one, "L", change) for one, change in zip(drawn, changes, strict=True)]
    measures = read_measures(b"".join(measure(one, one.grey) for one in decoded))
    zeros = np.zeros(4, np.int64)
    survey = Survey.of(measures, zeros, zeros, ["a"], str, "dark", None)
    assert survey.changes == {UNREADABLE: 2, TURNED: 1}
    assert any(warning.endswith("taken as upright: 2") for warning in survey.warnings)
