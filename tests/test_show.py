"""show: stored and augmented images of a training batch."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_set
from tiny_colours import write_colours

from jobs.tools import show as job
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting import run_plots
from pipeline.reporting.run_plots import Pair, plot_pairs
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import join_processes


def show(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["show", *words])
    return job.main()


def test_pairs_are_of_the_stored_images_and_the_mixed_batch(tmp_path: Path) -> None:
    stage = Stage(16, 1, 1e-3, mixing=Mixing(mixup=1.0))
    with (
        open_dataset(write_set(tmp_path / "tiny.beton")) as file,
        join_processes("no") as processes,
    ):
        data = DataModule(processes, Recipe((stage,), batch_size=8), file)
        pairs = job.pairs_of(data, stage, 5)
        with data.train_loader(stage) as loader:
            ids = next(next(loader.batches(0))).ids
        assert len(pairs) == 5
        assert len(job.pairs_of(data, stage, 100)) == 8
        for pair, sample in zip(pairs, ids[[0, 2, 4, 5, 7]], strict=True):
            assert np.array_equal(pair.stored, file.column("image").decode(int(sample)))
            label = file.info["classes"][file.column("label").metadata[sample]]
            assert pair.label == label
            assert pair.seen_label.startswith(f"{label} 0.") or pair.seen_label == "augmented"
            assert pair.seen.shape == (16, 16, 3)


def test_the_image_shows_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_colours(tmp_path / "petals.beton")
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))
    assert show(["petals.beton", "--augmented", "small-images", "--count", "6"], monkeypatch) == 0
    out = tmp_path / "petals-small-images.png"
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 60).mean() > 0.1  # in colour
    assert {path.name for path in tmp_path.iterdir()} == {out.name, data.name}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["petals.beton", "--augmented", "fast"], "recipe: got 'fast', expected one of auto"),
        (["part1", "--augmented", "photos"], "augmented: got 'photos', expected one of fast"),
        (["petals.beton", "--augmented", "auto", "--count", "0"], "count: got 0"),
        (["petals.beton", "--augmented", "auto", "--out", "a.gif"], "out: got 'a.gif', expected"),
        (["petals.beton", "--augmented", "auto", "--stage", "3"], "stage: got 3, expected 1 to 1"),
        (["runs/leaves", "--augmented", "auto"], "name: got 'runs/leaves', expected part1, emnist"),
        (["roots", "--augmented", "auto"], "roots.beton is not there; make it"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_colours(tmp_path / "petals.beton")
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))
    assert show(words, monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["petals.beton"]


def test_a_last_row_may_be_incomplete(tmp_path: Path) -> None:
    pair = Pair(np.zeros((9, 12), np.uint8), "a $x$", np.ones((5, 5, 3), np.float32), "augmented")
    for count in (1, run_plots.ACROSS_PAIRS + 1):
        plot_pairs([pair] * count, "title", tmp_path / "pairs.png")
        with Image.open(tmp_path / "pairs.png") as image:
            image.verify()
