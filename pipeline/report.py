"""Numbers → pages: tables for a terminal, figures as PNG. Computes nothing.

Every figure and table says what its data were, real or synthetic.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.table import Table

from beton.reader import Reader
from pipeline.artifacts import read_json
from pipeline.evaluate import Evaluation
from pipeline.feed import Feed, View
from pipeline.history import Epoch
from pipeline.metrics import Scores, top_losses
from pipeline.record import Finished

MOST = 12  # confusions in a headline
rcParams["text.parse_math"] = False  # names of classes are no formulas, whatever is in them
WORST = (4, 6)  # rows and columns of pictures
SIDE = 128  # of each, in pixels


def source_line(provenance: Mapping[str, Any]) -> str:
    """Return where data came from, in a line."""
    return f"{provenance['kind']} data: {provenance['source']}"


def title(what: str, network: str, result: Mapping[str, Any]) -> str:
    """Return the title of a run's figures, from what its result.json holds."""
    parts = [what, network, source_line(result["provenance"])]
    if result.get("auxiliary"):
        parts.append(f"learned with {result['auxiliary']['kind']} data besides")
    if "accuracy" in result:
        parts.append(f"accuracy {result['accuracy']:.2%} of {result['samples']}")
    return ", ".join(parts)


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Return an epoch's figures for a log."""
    validation = (
        ""
        if epoch.accuracy is None
        else f", validation: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.2%}"
    )
    return (
        f"epoch {epoch.epoch + 1} of {epochs}: loss {epoch.train_loss:.3f}, "
        f"accuracy {epoch.train_accuracy:.2%}{validation} ({epoch.seconds:.1f} s)"
    )


def result_table(result: Mapping[str, Any], title: str) -> Table:
    """Return a run's closing table, from what its result.json holds."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in result.items():
        if not isinstance(value, dict | list) and value is not None:
            table.add_row(name.replace("_", " "), _shown(name, value))
    table.add_row("data", source_line(result["provenance"]))
    if result.get("auxiliary"):
        table.add_row("learned from besides", source_line(result["auxiliary"]))
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the headline of an evaluation."""
    table = result_table(
        {**evaluation.scores.headline(), "provenance": evaluation.provenance}, "evaluation"
    )
    if evaluation.unadapted is not None:
        table.add_row("without adapting to writers", f"{evaluation.unadapted.accuracy:.2%}")
    learned = [source_line(one) for one in (evaluation.learned_from, evaluation.auxiliary) if one]
    table.add_row("learned from", " and ".join(learned))
    confusions = evaluation.scores.confusions[:MOST]
    table.add_row("confusions", ", ".join(f"{c.true}→{c.predicted} ×{c.count}" for c in confusions))
    if evaluation.skipped:
        names = ", ".join(name for name, _ in evaluation.skipped[:MOST])
        table.add_row("left out", f"{len(evaluation.skipped)} that cannot be decoded: {names}")
    if evaluation.seen:
        table.add_row("beware", "the network was trained on this source, perhaps on these pictures")
    return table


def scores_table(scores: Scores) -> Table:
    """Return the figures for every class and what it was taken for."""
    table = Table("class", "samples", "precision", "recall", "F1", "taken for")
    for column in table.columns[1:5]:
        column.justify = "right"
    for one in scores.per_class:
        if not one.samples:
            continue
        taken = (c for c in scores.confusions if c.true == one.name)
        others = ", ".join(f"{c.predicted} ×{c.count}" for c in taken)
        shares = (f"{share:.1%}" for share in (one.precision, one.recall, one.f1))
        table.add_row(one.name, str(one.samples), *shares, others)
    return table


def draw_run(run: Finished, what: str, file: Reader) -> None:
    """Draw a run's curves, and its confusions and worst answers if it was validated.

    `file` is the data that it was validated on.
    """
    heading = title(what, run.result["network"], run.result)
    draw_curves(run.history, heading, run.path / "curves.png")
    if run.scores is None or run.answers is None:
        return
    names = [one.name for one in run.scores.per_class]
    draw_confusion(run.scores.matrix, names, heading, run.path / "confusion.png")
    rows, columns = WORST
    worst = top_losses(run.answers.logits, run.answers.labels, names, rows * columns)
    ids = run.answers.ids[[one.row for one in worst]].numpy()
    view = View.of(file, SIDE, read_json(run.path, "config.json")["recipe"]["window"])
    with Feed(file, ids, view, len(ids), device=torch.device("cpu")) as feed:
        (inputs,) = feed.batches()
    captions = [f"{one.true}→{one.predicted}, {one.probability:.2f}" for one in worst]
    heading = f"{heading}\nthe largest losses: true→predicted, probability of the latter"
    draw_pictures(inputs.pictures[:, 0].numpy(), captions, columns, heading, run.path / "worst.png")


def draw_pictures(
    pictures: NDArray[np.float32], captions: Sequence[str], columns: int, title: str, path: Path
) -> None:
    """Draw a grid of pictures of ink, (N, height, width) from 0 to 1, row by row."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    cell = 1.3, 1.3 * height / width + 0.25  # inches
    figure = Figure(figsize=(columns * cell[0], rows * cell[1] + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, picture, caption in zip(grid, pictures, captions, strict=False):
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
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


def draw_curves(history: Sequence[Epoch], title: str, path: Path) -> None:
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


def _shown(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if "accuracy" in name or "share" in name:
        return f"{value:.2%}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
