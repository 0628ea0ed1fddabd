"""Data cards and the terminal's lines about datasets, for data with doubts and hostile names."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console, RenderableType
from test_html import HOSTILE, Parsed

from beton import writer
from beton.errors import BetonError
from beton.fields import BytesField, InkField, IntField
from pipeline.data.base import NO_SPLIT, TEST, TRAIN, VALIDATION, Annotations, Decoded, Layout
from pipeline.data.pixels.measures import measure, read_measures
from pipeline.data.pixels.survey import Survey
from pipeline.reporting import data_card
from pipeline.reporting.card_elements import FRAME, TILE, Bins, Histograms, thumbnail
from pipeline.reporting.data_card import write_card
from pipeline.reporting.data_tables import layout_lines, origin_of, survey_lines, visible

ORIGIN = {"kind": "real", "source": "digits.zip", "digest": "sha256:0"}
LAYOUT = Layout("folder", "folder:1", "folder:0", left_out={"__MACOSX": 12, "Thumbs.db": 1})

names = st.text(st.characters(codec="utf-8"), max_size=12)


def pixels(number: int, height: int = 12, width: int = 9) -> Any:
    """White paper with dark ink that depends on `number`."""
    image = np.full((height, width), 255, np.uint8)
    image[2 : 4 + number % 5, 3:5] = number % 97
    return image


def survey_of(images: Sequence[Any], labels: Sequence[int], classes: Sequence[str]) -> Survey:
    records = read_measures(b"".join(measure(Decoded(image), image) for image in images))
    splits = np.zeros(len(images), np.int64)
    splits[1::2] = VALIDATION
    return Survey.of(records, np.array(labels), splits, classes, "image {}".format, "dark", None)


def dataset(
    folder: Path,
    images: Sequence[Any],
    labels: Sequence[int],
    classes: Sequence[str],
    splits: Sequence[int] | None = None,
    **info: Any,
) -> Path:
    """A file as prep writes it; `info` adds to its manifest."""
    samples = [
        {"image": image, "label": label, "split": split, "writer": -1, "name": b"image %d" % i}
        for i, (image, label, split) in enumerate(
            zip(images, labels, splits or [TRAIN] * len(images), strict=True)
        )
    ]
    path = folder / "digits.beton"
    integers = dict.fromkeys(("label", "split", "writer"), IntField())
    fields = {"image": InkField(), **integers, "name": BytesField()}
    everything = {"classes": list(classes), "provenance": ORIGIN, **info}
    writer.write(path, fields, samples, info=everything)
    return path


def card(path: Path, name: str = "digits") -> str:
    out = path.with_suffix(".html")
    write_card(out, path, name=name)
    return out.read_text(encoding="utf-8")


def shown(text: str) -> str:
    """All text of a page, without its style."""
    parsed = Parsed(text)
    return "\n".join("".join(words) for tag, words in parsed.words.items() if tag != "style")


def printed(lines: RenderableType, colour: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=80,
        force_terminal=colour,
        color_system="standard" if colour else None,
        markup=False,
        highlight=False,
    )
    console.print(lines)
    return file.getvalue()


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """A dataset with a doubt of each kind, and with hostile names."""
    classes = [HOSTILE, "cat", "cat ", " "]
    images = [pixels(i, 12 + i % 3, 9 + i) for i in range(24)]
    images[5] = images[4]
    images[6] = np.full((20, 20), 255, np.uint8)
    labels = [i % 4 for i in range(24)]
    splits = [VALIDATION if i % 2 or label == 2 else TRAIN for i, label in enumerate(labels)]
    layout = replace(LAYOUT, notes=("a note <b>",), warnings=("a doubt <b>",))
    return dataset(
        tmp_path,
        images,
        labels,
        classes,
        splits,
        layout=asdict(layout),
        survey=asdict(survey_of(images, labels, classes)),
        pixels={"polarity": "dark", "fit": "letterbox", "paper": {"samples": [8], "greys": [7]}},
        prepare={"split": "90-10", "seed": 3, "skipped": [["train/<i>.png", "truncated"]]},
    )


def test_a_card_states_size_classes_and_splits_in_a_sentence(doubtful: Path) -> None:
    assert "24 images of 4 classes: 6 for training, 18 for validation, none for testing." in shown(
        card(doubtful)
    )


def test_warnings_of_layout_pixels_and_skipped_images_come_first(doubtful: Path) -> None:
    text = card(doubtful)
    titles = [title.strip() for title in Parsed(text).words["h2"]]
    assert re.fullmatch(r"[0-9]+ warnings", titles[0])
    warned = re.findall(r"<li>(.*?)</li>", text.split('<ul class="warnings"')[1].split("</ul>")[0])
    assert titles[0] == f"{len(warned)} warnings"
    assert warned[0] == "a doubt &lt;b&gt;"
    for part in (
        "equal pixels",
        "blank",
        "skipped 1 image that cannot be decoded: train/&lt;i&gt;.png",
    ):
        assert any(part in sentence for sentence in warned), part


def test_classes_are_counted_by_split_and_untrained_ones_are_marked(doubtful: Path) -> None:
    text = card(doubtful)
    rows = re.findall(r'<tr( class="highlight")?>(<th scope="row".*?)</tr>', text)
    cells = [re.findall(r">([^<]*)</t[hd]>", row) for _, row in rows]
    assert [row[1:] for row in cells] == [
        ["6", "0", "0", "6"],
        ["0", "6", "0", "6"],
        ["0", "6", "0", "6"],
        ["0", "6", "0", "6"],
    ]
    assert [bool(mark) for mark, _ in rows] == [False, True, True, True]


@settings(max_examples=20)
@given(name=names, classes=st.lists(names.filter(bool), min_size=1, max_size=4, unique=True))
def test_names_from_the_data_are_text_and_nothing_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, name: str, classes: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    classes.append(HOSTILE)
    labels = [i % len(classes) for i in range(10)]
    layout = replace(LAYOUT, dataset=name, left_out={name: 2}, notes=(name,), warnings=(HOSTILE,))
    images = [pixels(i) for i in range(10)]
    text = card(dataset(folder, images, labels, classes, layout=asdict(layout)), name)
    parsed = Parsed(text)
    tags = {tag for tag, _ in parsed.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object"})
    assert "comment" not in parsed.words
    assert parsed.words["h1"] == [visible(name)]
    for value in parsed.values("style"):
        assert value.count("url(") == value.count("url(data:image/png;base64,")
    assert all(visible(one).replace("\n", " ") in shown(text) for one in classes)


def test_a_file_without_layout_and_survey_has_a_card(tmp_path: Path) -> None:
    path = dataset(tmp_path, [pixels(i) for i in range(6)], [0, 1] * 3, "ab")
    text = shown(card(path))
    assert "6 images of 2 classes" in text
    assert "an earlier version wrote it" in text
    assert "stretched" in text
    assert "warning" not in text


def test_equal_files_have_equal_cards(doubtful: Path) -> None:
    assert card(doubtful) == card(doubtful)


def test_images_in_doubt_are_shown(doubtful: Path) -> None:
    text = card(doubtful).split("Images to check")[1]
    for part in ("train/&lt;i&gt;.png: truncated", "one grey level", "most frequent value is ink"):
        assert part in text
    assert "<b>image 4, image 5</b><span>equal pixels</span>" in text


def sheet(text: str) -> Any:
    """The pixels of the first sheet of a page."""
    found = re.search(r"url\(data:image/png;base64,([^)]*)\)", text)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def test_samples_are_training_images_evenly_spaced(tmp_path: Path) -> None:
    levels = np.arange(100)
    images = [np.full((4, 4), level, np.uint8) for level in levels]
    splits = [VALIDATION if level % 10 == 0 else TRAIN for level in levels]
    text = card(dataset(tmp_path, images, [0] * 50 + [1] * 50, "ab", splits))
    tiles = sheet(text)[TILE // 2 :: TILE, TILE // 2 :: TILE].tolist()
    for label, shown_levels in enumerate(tiles):
        trained = [level for level in range(50 * label, 50 * label + 50) if level % 10]
        gaps = np.diff([trained.index(level) for level in shown_levels])
        assert (shown_levels[0], shown_levels[-1]) == (trained[0], trained[-1])
        assert len(gaps) == data_card.SAMPLES - 1
        assert np.ptp(gaps) <= 1


def test_many_classes_have_fewer_samples_and_the_limit_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_card, "MOST_CLASSES", 30)
    monkeypatch.setattr(data_card, "MOST_SAMPLES", 90)
    classes = [f"class {i}" for i in range(40)]
    labels = [i % 40 for i in range(200)]
    text = card(dataset(tmp_path, [pixels(i) for i in labels], labels, classes))
    assert text.count('class="strip"') == 30
    assert "Up to 2 images" in text
    assert "30 of 40 classes are shown, evenly spaced" in text
    assert "The 30 classes with the fewest images are listed" in text
    assert text.count("<table>") == data_card.TABLES


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 255))
def test_a_thumbnail_keeps_proportions_on_the_paper_of_its_image(
    height: int, width: int, paper: int
) -> None:
    image = np.full((height, width), 255 - paper if paper != 255 - paper else 0, np.uint8)
    tile = thumbnail(image, paper)
    inner = tile[1:-1, 1:-1]
    assert tile.shape == (TILE, TILE)
    assert all((edge == FRAME).all() for edge in (tile[0], tile[-1], tile[:, 0], tile[:, -1]))
    rows, columns = (np.ptp(np.flatnonzero((inner != paper).any(axis))) + 1 for axis in (1, 0))
    scale = rows / height if height >= width else columns / width
    assert abs(rows - max(1, scale * height)) <= 1
    assert abs(columns - max(1, scale * width)) <= 1
    assert max(rows, columns) > (TILE - 2) / 2


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_every_bar_that_is_not_empty_is_visible(counts: list[int]) -> None:
    counts.append(1)
    html = Histograms({"x <b>": Bins(list(range(len(counts) + 1)), counts)}, "words").html("plot")
    tops = [float(top) for top in re.findall(r"V([0-9.]+)H", html)]
    assert len(tops) == sum(count > 0 for count in counts)
    assert all(20 <= top <= 91 for top in tops)
    assert len(Parsed(html).all("svg")) == 1


def test_damaged_files_have_no_card(doubtful: Path) -> None:
    data = bytearray(doubtful.read_bytes())
    data[-5] ^= 1
    doubtful.write_bytes(data)
    with pytest.raises(BetonError):
        card(doubtful)
    assert not doubtful.with_suffix(".html").exists()


def test_a_card_does_without_matplotlib() -> None:
    script = "import sys, pipeline.reporting.data_card; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def annotations(classes: Sequence[str], splits: Sequence[int] = (NO_SPLIT,)) -> Annotations:
    n = 2 * len(classes) * len(splits)
    labels = np.arange(n) % len(classes)
    return Annotations.of(classes, labels, splits=np.repeat(splits, n // len(splits)))


@pytest.mark.parametrize("classes", ["0123456789", [str(i) for i in range(62)]])
def test_a_clean_dataset_takes_at_most_twelve_lines(classes: Sequence[str]) -> None:
    images = [np.pad(np.full((4, 2), i, np.uint8), 3, constant_values=255) for i in range(30)]
    clean = survey_of(images, [0] * 30, "a")
    assert clean.warnings == ()
    layout = printed(layout_lines(LAYOUT, annotations(classes, [TRAIN, TEST])))
    assert len(layout.splitlines()) + len(printed(survey_lines(clean)).splitlines()) <= 12


def test_the_terminal_shows_each_part_of_a_layout() -> None:
    layout = replace(LAYOUT, writer_from="table:a.csv", notes=("a fact",), warnings=("a doubt",))
    text = printed(layout_lines(layout, annotations("ab", [TRAIN, NO_SPLIT])), colour=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for part in (
        "folder:1 (the second folder, the outermost first); 2 classes",
        "folder:0 (the outermost folder)",
        "table:a.csv; 0 writers",
        "__MACOSX ×12, Thumbs.db ×1",
        "a fact",
        "to divide",
    ):
        assert part in plain
    assert re.search(r"\x1b\[33m *warning: a doubt", text)


def test_many_classes_are_the_first_and_a_summary() -> None:
    text = printed(layout_lines(Layout("folder"), annotations([str(i) for i in range(62)])))
    assert "… 52 more; 2 images in each class" in text


@given(st.lists(names, min_size=1, max_size=12, unique=True))
def test_names_in_the_terminal_are_neither_markup_nor_control_characters(
    classes: list[str],
) -> None:
    layout = Layout("folder", left_out=dict.fromkeys(classes, 1), warnings=tuple(classes))
    text = printed(layout_lines(layout, annotations(["[red]", *classes], [TRAIN, VALIDATION])))
    assert "[red]" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_spaces_at_the_ends_of_a_name_can_be_seen() -> None:
    assert [visible(name) for name in ("cat", "cat ", " ", "", "a b", "\x1b[31m")] == [
        "cat",
        "cat␣",
        "␣",
        "(empty name)",
        "a b",
        "\\x1b[31m",
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("folder:0", "folder:0 (the outermost folder)"),
        ("folder:-1", "folder:-1 (the innermost folder)"),
        ("folder:1,2", "folder:1,2 (the second and third folders, the outermost first)"),
        ("folder:-2,-1", "folder:-2,-1 (the second and first folders, the innermost first)"),
        ("folder:0,-1", "folder:0,-1"),
        ("name:folder:0", "name:folder:0"),
        ("IDX labels", "IDX labels"),
    ],
)
def test_folder_levels_are_explained(rule: str, words: str) -> None:
    assert origin_of(rule) == words


def test_the_terminal_shows_what_pixels_show() -> None:
    images = [pixels(1), pixels(1), np.full((7, 5), 9, np.uint8), pixels(2, 30)]
    text = printed(survey_lines(survey_of(images, [0, 1, 0, 1], ["a", "b"])))
    for part in (
        "12 × 9 (2)",
        "L ×4",
        "dark ink on light paper",
        "1 image; by class: a ×1",
        "2 images in 1 group of equal pixels",
        "groups in several splits: 1",
        "warning: ",
    ):
        assert part in text
