"""The benchmark of time to an accuracy: equal images for both trainings, table, conclusion."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny import CLASSES, page, write_set

from beton.loader import Loader
from beton.ops import Resize
from jobs.bench import reach as bench_reach
from jobs.bench.reach import Config, Outcome, closing_table, conclusion
from pipeline.benchmarks.trainings import PillowPages
from pipeline.data.charset import CHARACTERS
from pipeline.loading.dataset import View, open_dataset

FAST = Outcome("inkrun", "small", 48, 24, 2_000, 48_000, 48.0, 0.01, 0.93, 12.0)
PUBLISHED = Outcome("DataLoader", "resnet18", 224, 30, 1_000, 1_500, 240.0, 0.05, 0.04, None)


def test_pillow_and_the_engine_give_equal_images(tmp_path: Path) -> None:
    files: list[Path] = []
    for number in range(2):
        for name in CLASSES:
            files.append(tmp_path / f"{len(files)}.png")
            Image.fromarray(page(name, number)).save(files[-1])
    ids = np.array([5, 0, 3])
    with open_dataset(write_set(tmp_path / "tiny.beton", train=1, validation=1)) as file:
        canvas = View.of(file, 30, 1.0).canvas  # a third of the page: no pixel straddles a border
        with Loader(file, 3, {"image": Resize(*canvas)}, order="sequential", indices=ids) as loader:
            (batch,) = loader
            engine = batch["image"].astype(int)
    pages = PillowPages(files, canvas, Image.Resampling.BOX)
    pillow = [pages[number] for number in ids.tolist()]
    assert [number for _, number in pillow] == ids.tolist()
    for (image, _), expected in zip(pillow, engine, strict=True):
        assert expected.std() > 0
        assert np.abs(image.numpy().astype(int) - expected).max() <= 1


def write_pages(folder: Path, writers: int) -> Path:
    """Write a folder of small pages in the MIDAS layout."""
    for label, name in enumerate(CHARACTERS, start=1):
        (folder / f"Sample{label:03}").mkdir(parents=True)
        for writer in range(1, writers + 1):
            image = Image.new("L", (60, 45), 255)
            ImageDraw.Draw(image).text((20 + writer, 10), name, 0)
            image.save(folder / f"Sample{label:03}" / f"img{label:03}-{writer:03}.png")
    return folder


def test_it_trains_both_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_pages(tmp_path / "pages", writers=3)
    source = Path(shutil.make_archive(str(tree), "zip", tree))
    bench_reach.main(
        Config(source, auxiliary_writers=1, held_out=1, accuracy=0, epochs=1, size=32, times=1e3)
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "real data: pages.zip; 124 training pages, 62 validation pages of 1 other writers" in out
    assert "published, epoch 1 of 30: loss" in out
    assert "| loader | inkrun | DataLoader (2 workers), Pillow |" in out
    assert "| epochs trained | 1.00 | 1.00 |" in out
    assert "To 0 % accuracy, the published solution takes" in out


def test_an_accuracy_that_is_not_reached_gives_a_bound() -> None:
    table = closing_table(FAST, PUBLISHED, 0.85)
    cells = [list(column.cells) for column in table.columns]
    figures = {name: both for name, *both in zip(*cells, strict=True)}
    assert figures["images/s"] == ["1,000", "6"]
    assert figures["seconds per epoch"] == ["2.0", "160.0"]
    assert figures["epochs trained"] == ["24.00", "1.50"]
    assert figures["time to 85 % accuracy (s)"] == ["12.0", "not reached"]
    words = conclusion(FAST, PUBLISHED, 0.85)
    assert words.startswith(
        "To 85 % accuracy, the published solution takes more than 20.0 times as long."
    )
    assert "would take 4,800 s: 400 times as long" in words
