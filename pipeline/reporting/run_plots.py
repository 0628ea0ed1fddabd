"""Plots in run directories, as PNG files; titles say whether the data are real or synthetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from beton.reader import Reader
from pipeline.evaluation.metrics import EpochMetrics, Scores, top_losses
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, TrainingResult
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import Normalize, View, source_line, split_indices
from pipeline.recipes.mixup import Mixed
from pipeline.reporting.plots import draw_curves, line, new_figure, save_png, styled
from pipeline.runtime.files import read_as

BATCH = (4, 8)  # rows and columns of the images of a training batch
WORST = (4, 6)  # rows and columns of the images with the largest losses
WORST_SIDE = 128  # pixels
ACROSS = 12  # samples of each label
CELL = 32  # side of a sample in pixels
ACROSS_PAIRS = 4  # pairs of a stored and an augmented image
CAPTION = 14  # characters that fit above an image
GAP = 0.1  # inches between images


def plot_run(run: FinishedRun, what: str, file: Reader) -> None:
    """Write curves.png and, for a validated run, confusion.png and worst.png.

    A run with a test.json also gets test-confusion.png. `file` has the validation samples.
    """
    title = _title(what, run.result)
    plot_history(run.history, title, run.path / "curves.png")
    if run.scores is None or run.predictions is None:
        return
    names = [one.name for one in run.scores.per_class]
    if (run.path / "test.json").exists():
        tested = f"{title}; test images"
        matrix = read_as(run.path / "test.json", Scores).matrix
        plot_confusion_matrix(matrix, names, tested, run.path / "test-confusion.png")
    plot_confusion_matrix(run.scores.matrix, names, title, run.path / "confusion.png")
    rows, columns = WORST
    worst = top_losses(run.predictions.logits, run.predictions.labels, names, rows * columns)
    ids = run.predictions.ids[[one.row for one in worst]].numpy()
    images = images_of(file, ids, View.of(file, WORST_SIDE, run.config.recipe.window))
    shown = [(f"{one.true}→", f"{one.predicted}, {one.probability:.2f}") for one in worst]
    # Long names of classes take two lines.
    long = max(len(true + predicted) for true, predicted in shown) > CAPTION
    captions = [("\n" if long else "").join(parts) for parts in shown]
    title += "\nlargest losses: true→predicted, probability of the predicted class"
    plot_images(images, captions, columns, title, run.path / "worst.png")


def plot_batch(
    training: TrainingConfig, classes: Sequence[str], title: str, path: Path, batch: Mixed
) -> None:
    """Plot a training batch as the network sees it, with labels, those of mixed images as well."""
    rows = min(len(batch.images), BATCH[0] * BATCH[1])
    images = display_images(batch.images[:rows].float().cpu(), training.recipe.normalize)
    labels, partners = ([classes[i] for i in one[:rows]] for one in (batch.labels, batch.partners))
    captions = [
        own if weight == 1 else f"{own} {weight:.2f}, {other} {1 - weight:.2f}"
        for own, other, weight in zip(labels, partners, batch.weights.tolist(), strict=False)
    ]
    title += "\nthe first training batch, augmented, as the network sees it"
    plot_images(images, captions, BATCH[1], title, path)


@styled
def plot_images(
    images: NDArray[np.float32], captions: Sequence[str], columns: int, title: str, path: Path
) -> None:
    """Plot a grid of images (N, height, width, 3), colours from 0 to 1, row by row."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    lines = [line for caption in captions for line in caption.split("\n")]
    font_size = 11 * min(1.0, CAPTION / max(map(len, lines)))
    side, tall = 1.2, 1.2 * height / width  # inches
    across, space = side + GAP, 0.25 * max(caption.count("\n") + 1 for caption in captions)
    down = tall + GAP + space
    figure = new_figure(across * columns, down * rows + 0.5)
    axes = figure.subplots()  # one for all images, because axes are slow to draw
    axes.set_axis_off()
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left, top = column * across, row * down + space
        axes.imshow(image, extent=(left, left + side, top + tall, top))
        axes.add_patch(Rectangle((left, top), side, tall, fill=False, lw=1, ec="0.8"))
        axes.annotate(
            caption,
            (left + side / 2, top),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=font_size,
        )
    axes.set(xlim=(0, across * columns - GAP), ylim=(down * rows - GAP, 0), aspect="equal")
    figure.suptitle(title, fontsize=9)
    save_png(figure, path)


@dataclass(frozen=True)
class Pair:
    """An image as it is stored, and as the network sees it in training, with their captions.

    `stored` is uint8 (height, width) or (height, width, 3), `seen` as of `display_images`.
    """

    stored: NDArray[np.uint8]
    label: str
    seen: NDArray[np.float32]
    seen_label: str


@styled
def plot_pairs(pairs: Sequence[Pair], title: str, path: Path) -> None:
    """Plot pairs of images, the two of a pair side by side in a frame."""
    rows = -(-len(pairs) // ACROSS_PAIRS)
    figure = new_figure(2.6 * ACROSS_PAIRS, 1.65 * rows + 0.6)
    frames = figure.subfigures(rows, ACROSS_PAIRS, squeeze=False, wspace=0.02).flat
    longest = max(len(text) for pair in pairs for text in (pair.label, pair.seen_label))
    font_size = 10 * min(1.0, CAPTION / longest)
    for frame, pair in zip(frames, pairs, strict=False):
        frame.set_facecolor("0.95")
        left, right = frame.subplots(1, 2)
        for axes, image, label in (
            (left, pair.stored, pair.label),
            (right, pair.seen, pair.seen_label),
        ):
            axes.set_axis_off()
            axes.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
            axes.set_title(label, fontsize=font_size, pad=3)
    figure.suptitle(title, fontsize=9)
    save_png(figure, path)


@styled
def plot_confusion_matrix(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path
) -> None:
    """Plot counts, true classes as rows and predicted classes as columns."""
    side = max(5.0, 0.18 * len(classes) + 1.5)
    figure = new_figure(1.2 * side, side)
    axes = figure.subplots()
    counts = np.ma.masked_equal(np.array(matrix), 0)
    diagonal = np.eye(len(classes), dtype=np.bool_)
    for name, colours, hidden in (("correct", "Blues", ~diagonal), ("incorrect", "Reds", diagonal)):
        shown = np.ma.masked_where(hidden, counts)
        top = int(shown.max()) if shown.count() else 1
        # Without the palest colours, a single image is visible.
        image = axes.imshow(shown, cmap=colours, vmin=-0.4 * top, vmax=top)
        bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, label=f"{name} images")
        bar.ax.set_ylim(0, top)
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(classes)), classes, fontsize=7)
    if max(map(len, classes)) > 2:
        axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=10)
    save_png(figure, path)


@styled
def plot_history(history: Sequence[EpochMetrics], title: str, path: Path) -> None:
    """Plot loss and accuracy of training and validation over epochs."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch + 1 for epoch in history]
    for axes, name, scale in ((left, "loss", 1), (right, "accuracy", 100)):
        lines = {}
        for label, key in (("training, augmented images", f"train_{name}"), ("validation", name)):
            values = [getattr(epoch, key) for epoch in history]
            if None not in values:
                lines[label] = line(epochs, values)
        draw_curves(axes, lines, scale)
        axes.set_xlabel("epoch")
        axes.legend(fontsize=8)
    left.set(ylabel="loss (nats), smoothed labels in training", ylim=(0, None))
    right.set(ylabel="accuracy (%)", ylim=(0, 100))
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)


@styled
def plot_label_samples(file: Reader, path: Path, split: str = "train") -> None:
    """Plot samples of each label, a row per label, spread evenly over the split."""
    labels, indices = file.column("label").metadata, split_indices(file, split)
    classes = file.info["classes"]
    rows = [indices[labels[indices] == label] for label in range(len(classes))]
    rows = [
        row[np.linspace(0, len(row) - 1, min(ACROSS, len(row))).astype(np.int64)] for row in rows
    ]
    images = iter(images_of(file, np.concatenate(rows), View.of(file, CELL, 1.0)))
    sheet = np.ones((len(classes), CELL, ACROSS, CELL, 3), np.float32)
    for cells, row in zip(sheet, rows, strict=True):
        for column in range(len(row)):
            cells[:, column] = next(images)
    figure = new_figure(0.5 * ACROSS + 0.6, 0.5 * len(classes) + 0.4)
    axes = figure.subplots()
    axes.imshow(sheet.reshape(-1, ACROSS * CELL, 3))
    axes.set_title(source_line(file.info["provenance"]), fontsize=10)
    axes.set_yticks((np.arange(len(classes)) + 0.5) * CELL - 0.5, classes)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    save_png(figure, path)


def _title(what: str, result: TrainingResult) -> str:
    """Return the title of the plots of a run."""
    parts = [what, result.network, source_line(result.provenance)]
    if result.auxiliary:
        parts.append(f"{result.auxiliary['kind']} auxiliary data")
    if result.accuracy is not None:
        parts.append(f"accuracy {result.accuracy:.2%} of {result.samples}")
    return ", ".join(parts)


def images_of(file: Reader, ids: NDArray[np.int64], view: View) -> NDArray[np.float32]:
    """Return images as they are to be shown, (N, height, width, 3): colours from 0 to 1."""
    with DeviceLoader(file, ids, view, len(ids), device=torch.device("cpu")) as loader:
        (inputs,) = loader.micro_batches()
    return display_images(inputs.images, None)


def display_images(images: Tensor, normalize: Normalize | None) -> NDArray[np.float32]:
    """Return a network's input (N, C, H, W) as colours: float32 (N, H, W, 3) from 0 to 1.

    Ink becomes black on white.
    """
    if normalize is not None:
        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (normalize.mean, normalize.std))
        images = images * std + mean
    shown = images.clamp(0, 1).movedim(1, 3)
    if shown.shape[3] == 1:
        shown = (1 - shown).expand(-1, -1, -1, 3)
    colours: NDArray[np.float32] = shown.numpy()
    return colours
