"""Tables for the terminal and plots of a run."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import result
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from tiny import CLASSES, write_set

from beton.reader import Reader
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.metrics import EpochMetrics, score, top_losses
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting import console, plots, run_plots
from pipeline.training import runner
from pipeline.training.runner import write_config

ORIGIN = {"kind": "synthetic", "source": "tiny", "digest": "sha256:tiny"}


def cells_of(table: Table) -> list[list[str]]:
    """The cells of a table as a terminal shows them, row by row."""
    shown = io.StringIO()
    Console(width=200, file=shown).print(table)
    lines = [line for line in shown.getvalue().splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


def epoch(number: int = 0, **changes: Any) -> EpochMetrics:
    return replace(EpochMetrics(number, 0, 0.01, 1.5, 0.25, 1.0, 0.9, 0.75, 12.5), **changes)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Reader]:
    with open_dataset(write_set(tmp_path / "tiny.beton", train=2, validation=2)) as opened:
        yield opened


@pytest.fixture
def run(file: Reader, tmp_path: Path) -> FinishedRun:
    """A run validated on 8 images, of which the last is classified as 1."""
    path = tmp_path / "run"
    path.mkdir()
    ids = torch.arange(8, 16)
    labels = torch.from_numpy(file.column("label").metadata[8:16].astype(np.int64))
    logits = 2 * torch.nn.functional.one_hot(labels, len(CLASSES)).float()
    logits[-1] = torch.tensor([9.0, 0, 0, 0])
    training = TrainingConfig("small", Recipe((Stage(16, 2, 1e-3),)))
    write_config(RunDir(path), "part1", training, file, {})
    return FinishedRun(
        path,
        RunDir(path).config(),
        result(provenance=ORIGIN, accuracy=0.875, samples=8),
        [epoch(0), epoch(1)],
        [1.0, 0.5],
        score(logits, labels, CLASSES),
        Predictions(ids, labels, logits),
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The saved figures by file name."""
    drawn: dict[str, Figure] = {}
    save = plots.save_png

    def keep(figure: Figure, path: Path) -> None:
        drawn[path.name] = figure
        save(figure, path)

    monkeypatch.setattr(run_plots, "save_png", keep)
    return drawn


def test_the_plots_of_a_run(run: FinishedRun, file: Reader, figures: dict[str, Figure]) -> None:
    run_plots.plot_run(run, "part 1", file)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "confusion.png",
        "curves.png",
        "worst.png",
    ]
    for name, figure in figures.items():
        with Image.open(run.path / name) as image:
            image.verify()
        title = figure.get_suptitle() or figure.axes[0].get_title()
        assert "part 1, small, synthetic data: tiny, accuracy 87.50% of 8" in title


def test_the_largest_loss_comes_first_with_its_prediction(
    run: FinishedRun, file: Reader, figures: dict[str, Figure]
) -> None:
    run_plots.plot_run(run, "part 1", file)
    (axes,) = figures["worst.png"].axes
    captions = [text.get_text() for text in axes.texts]
    assert captions[0] == "m→1, 1.00"
    assert run.predictions is not None
    worst = top_losses(run.predictions.logits, run.predictions.labels, CLASSES, 8)
    for shown, caption, one in zip(axes.images, captions, worst, strict=True):
        assert caption == f"{one.true}→{one.predicted}, {one.probability:.2f}"
        ink = 1 - np.asarray(shown.get_array()).mean(axis=-1)
        height, width = (np.ptp(places) + 1 for places in np.nonzero(ink > 0.5))
        page = file[int(run.predictions.ids[one.row])]["image"]
        rows, columns = (np.ptp(places) + 1 for places in np.nonzero(page < 128))
        scale = run_plots.WORST_SIDE / len(page)
        assert (height, width) == pytest.approx((rows * scale, columns * scale), abs=2)


def test_images_keep_their_proportions_in_a_grid(
    figures: dict[str, Figure], tmp_path: Path
) -> None:
    images = np.zeros((7, 10, 20), np.float32)
    run_plots.plot_images(images, list("abcdefg"), 3, "title", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width > 0.8 * image.height  # 3×3 pictures twice as wide as high
    (axes,) = figures["grid.png"].axes
    boxes = [image.get_window_extent() for image in axes.images]
    corners = [(round(box.x0), -round(box.y1)) for box in boxes]
    assert sorted(corners, key=lambda corner: corner[::-1]) == corners  # row by row
    assert len({x for x, _ in corners}) == len({y for _, y in corners}) == 3
    for i, (box, text) in enumerate(zip(boxes, axes.texts, strict=True)):
        assert box.width == pytest.approx(2 * box.height)
        assert not any(box.overlaps(other) for other in boxes[:i])
        caption = text.get_window_extent()
        assert caption.y0 > box.y1  # above its image, below the one of the row before
        assert not any(caption.overlaps(other) for other in boxes)


def test_a_run_without_validation_has_only_curves(run: FinishedRun, file: Reader) -> None:
    alone = replace(run, scores=None, predictions=None, history=[epoch(loss=None, accuracy=None)])
    run_plots.plot_run(alone, "part 1", file)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "curves.png"]


@pytest.mark.parametrize("name", ["$_$", r"\frac", "[red]"])
def test_class_names_are_not_parsed_as_formulas(
    name: str, figures: dict[str, Figure], tmp_path: Path
) -> None:
    path = tmp_path / "confusion.png"
    run_plots.plot_confusion_matrix([[5, 0], [2, 3]], ["a", name], f"of {name}", path)
    (axes, *_) = figures[path.name].axes
    assert axes.get_xticklabels()[1].get_text() == name


def test_a_confusion_matrix_separates_correct_and_incorrect(
    figures: dict[str, Figure], tmp_path: Path
) -> None:
    run_plots.plot_confusion_matrix([[5, 0], [2, 3]], "ab", "title", tmp_path / "confusion.png")
    axes, *bars = figures["confusion.png"].axes
    right, wrong = (np.ma.asarray(image.get_array()).tolist(0) for image in axes.images)
    assert right == [[5, 0], [0, 3]]
    assert wrong == [[0, 0], [2, 0]]
    assert [bar.get_ylabel() for bar in bars] == ["correct images", "incorrect images"]


def test_all_correct_and_all_incorrect_can_be_plotted(tmp_path: Path) -> None:
    for matrix in ([[1, 0], [0, 1]], [[0, 1], [1, 0]]):
        run_plots.plot_confusion_matrix(matrix, "ab", "title", tmp_path / "confusion.png")


def test_curves_of_training_and_validation(figures: dict[str, Figure], tmp_path: Path) -> None:
    history = [epoch(n, train_loss=2 - n, accuracy=0.1 * n) for n in range(3)]
    run_plots.plot_history(history, "title", tmp_path / "curves.png")
    losses, accuracies = figures["curves.png"].axes
    assert [np.asarray(line.get_ydata()).tolist() for line in losses.lines] == [
        [2, 1, 0],
        [0.9, 0.9, 0.9],
    ]
    assert np.asarray(accuracies.lines[1].get_ydata()) == pytest.approx([0, 10, 20])
    assert np.asarray(losses.lines[0].get_xdata()).tolist() == [1, 2, 3]


def test_an_epoch_in_a_line() -> None:
    assert runner.epoch_line(epoch(1), 6) == (
        "epoch 2 of 6: loss 1.500, accuracy 25.00%, "
        "validation: loss 0.900, accuracy 75.00% (12.5 s)"
    )
    alone = runner.epoch_line(epoch(loss=None, accuracy=None), 6)
    assert alone == "epoch 1 of 6: loss 1.500, accuracy 25.00% (12.5 s)"


def test_the_result_table_of_a_run() -> None:
    rows = cells_of(
        console.result_table(
            {
                "accuracy": 0.5,
                "accuracy_ignoring_case": None,
                "loader_share": 0.012,
                "seconds_training": 12345.6,
                "loss": 0.12345,
                "images": 77,
                "matrix": [[1]],
                "provenance": ORIGIN,
            },
            "runs/part1/then",
        )
    )
    assert rows == [
        ["accuracy", "50.00%"],
        ["loader share", "1.20%"],
        ["seconds training", "12,346"],
        ["loss", "0.123"],
        ["images", "77"],
        ["data", "synthetic data: tiny"],
    ]


@pytest.mark.parametrize("digest", ["sha256:tiny", "sha256:other"])
def test_an_evaluation_on_training_data_has_a_warning(run: FinishedRun, digest: str) -> None:
    assert run.scores is not None
    learned_from = {**ORIGIN, "digest": digest}
    rows = dict(
        cells_of(console.evaluation_table(Evaluation(run.scores, None, ORIGIN, learned_from)))
    )
    assert rows["confusions"] == "m→1 ×1"
    assert rows["trained on"] == "synthetic data: tiny"
    assert ("warning" in rows) == (digest == ORIGIN["digest"])
    assert "accuracy without adapting to writers" not in rows


def test_an_evaluation_by_writers_has_the_accuracy_without_them(run: FinishedRun) -> None:
    assert run.scores is not None
    alone = replace(run.scores, accuracy=0.5)
    rows = dict(cells_of(console.evaluation_table(Evaluation(run.scores, alone, ORIGIN, ORIGIN))))
    assert (rows["accuracy"], rows["accuracy without adapting to writers"]) == ("87.50%", "50.00%")


def test_scores_of_each_class_with_samples(run: FinishedRun) -> None:
    assert run.scores is not None
    _, *rows = cells_of(console.scores_table(run.scores))
    assert [row[0] for row in rows] == list(CLASSES)
    assert rows[-1] == ["m", "2", "100.0 %", "50.0 %", "66.7 %", "1 ×1"]
    first, *others = run.scores.per_class
    without = replace(run.scores, per_class=(replace(first, samples=0), *others))
    assert len(cells_of(console.scores_table(without))) == len(CLASSES)
