"""The PNG files of a run: its curves, confusions and worst answers, and samples of a dataset.

Every figure says what its data were, real or synthetic.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from beton.reader import Reader
from pipeline.evaluation.metrics import EpochMetrics, top_losses
from pipeline.evaluation.run_dir import FinishedRun, TrainingResult
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, source_line, split_indices

rcParams["text.parse_math"] = False  # names of classes are no formulas, whatever is in them


WORST = (4, 6)  # rows and columns of pictures


SIDE = 128  # of each, in pixels


def title(what: str, result: TrainingResult) -> str:
    """Return the title of a run's figures."""
    parts = [what, result.network, source_line(result.provenance)]
    if result.auxiliary:
        parts.append(f"learned with {result.auxiliary['kind']} data besides")
    if result.accuracy is not None:
        parts.append(f"accuracy {result.accuracy:.2%} of {result.samples}")
    return ", ".join(parts)


def draw_run(run: FinishedRun, what: str, file: Reader) -> None:
    """Draw a run's curves, and its confusions and worst answers if it was validated.

    `file` is the data that it was validated on.
    """
    heading = title(what, run.result)
    draw_curves(run.history, heading, run.path / "curves.png")
    if run.scores is None or run.predictions is None:
        return
    names = [one.name for one in run.scores.per_class]
    draw_confusion(run.scores.matrix, names, heading, run.path / "confusion.png")
    rows, columns = WORST
    worst = top_losses(run.predictions.logits, run.predictions.labels, names, rows * columns)
    ids = run.predictions.ids[[one.row for one in worst]].numpy()
    view = View.of(file, SIDE, run.config.recipe.window)
    with DeviceLoader(file, ids, view, len(ids), device=torch.device("cpu")) as feed:
        (inputs,) = feed.batches()
    captions = [f"{one.true}→{one.predicted}, {one.probability:.2f}" for one in worst]
    heading = f"{heading}\nthe largest losses: true→predicted, probability of the latter"
    draw_pictures(inputs.images[:, 0].numpy(), captions, columns, heading, run.path / "worst.png")


def draw_pictures(
    images: NDArray[np.float32], captions: Sequence[str], columns: int, title: str, path: Path
) -> None:
    """Draw a grid of pictures of ink, (N, height, width) from 0 to 1, row by row."""
    count, height, width = images.shape
    rows = -(-count // columns)
    cell = 1.3, 1.3 * height / width + 0.25  # inches
    figure = Figure(figsize=(columns * cell[0], rows * cell[1] + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axes.add_patch(
            Rectangle((0, 0), 1, 1, fill=False, lw=1, ec="0.8", transform=axes.transAxes)
        )
        axes.set_title(caption, fontsize=11, pad=3)
    figure.suptitle(title, fontsize=9)
    _save(figure, path)


def draw_confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path
) -> None:
    """Draw counts, a row for each true class and a column for each predicted one."""
    side = max(5.0, 0.18 * len(classes) + 1.5)
    figure = Figure(figsize=(1.2 * side, side), layout="constrained")
    axes = figure.subplots()
    counts = np.ma.masked_equal(np.array(matrix), 0)
    hits = np.eye(len(classes), dtype=np.bool_)
    for name, colours, hidden in (("right", "Blues", ~hits), ("wrong", "Reds", hits)):
        shown = np.ma.masked_where(hidden, counts)
        most = int(shown.max()) if shown.count() else 1
        # The palest colours go unused, so that a single picture is seen.
        image = axes.imshow(shown, cmap=colours, vmin=-0.4 * most, vmax=most)
        bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, label=f"pictures, {name}")
        bar.ax.set_ylim(0, most)
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(classes)), classes, fontsize=7)
    axes.grid(linewidth=0.3, alpha=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def draw_curves(history: Sequence[EpochMetrics], title: str, path: Path) -> None:
    """Draw loss and accuracy of training and validation over the epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch + 1 for epoch in history]
    marker = "o" if len(history) < 5 else None
    for axes, name, scale in ((left, "loss", 1), (right, "accuracy", 100)):
        for prefix, label in (("train_", "training, on changed pictures"), ("", "validation")):
            values = [getattr(epoch, prefix + name) for epoch in history]
            if None not in values:
                axes.plot(epochs, [scale * v for v in values], label=label, marker=marker)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set_ylabel("loss in nats (training: of smoothed labels)")
    left.set_ylim(bottom=0)
    right.set_ylabel("accuracy (%)")
    right.set_ylim(0, 100)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)


ACROSS = 12  # pictures of each label


CELL = 32  # pixels: their side


def draw_folders(file: Reader, path: Path, split: str = "train") -> None:
    """Draw some pictures of every label, evenly spread over the split, as a PNG."""
    labels = file.column("label").metadata
    indices = split_indices(file, split)
    classes, view = file.info["classes"], View.of(file, CELL, 1.0)
    sheet = np.zeros((len(classes) * CELL, ACROSS * CELL), np.float32)
    for row in range(len(classes)):
        own = indices[labels[indices] == row]
        if not len(own):
            continue
        chosen = own[np.unique(np.linspace(0, len(own) - 1, ACROSS).astype(np.int64))]
        with DeviceLoader(file, chosen, view, ACROSS, device=torch.device("cpu")) as feed:
            (inputs,) = feed.batches()
        for column, image in enumerate(inputs.images[: len(chosen), 0].numpy()):
            place = slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)
            sheet[place] = image
    temporary = path.with_name(f".{path.name}")
    figure = _figure(sheet, classes, source_line(file.info["provenance"]))
    figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
    temporary.replace(path)


@rc_context({"font.size": 11, "axes.spines.right": False, "axes.spines.top": False})
def _figure(sheet: NDArray[np.float32], classes: list[str], title: str) -> Figure:
    height, width = sheet.shape
    figure = Figure(figsize=(width / 48 + 1, height / 48))
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_yticks((np.arange(len(classes)) + 0.5) * CELL - 0.5, classes)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
