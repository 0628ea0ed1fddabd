"""Numbers → pages: tables for a terminal, figures as PNG. Computes nothing.

Every figure and table says what its data were, real or synthetic.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from rich.table import Table

from pipeline.evaluate import Evaluation
from pipeline.metrics import Scores
from pipeline.train import Epoch


def source_line(provenance: Mapping[str, Any]) -> str:
    """Return where data came from, in a line."""
    return f"{provenance['kind']} data: {provenance['source']}"


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
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the headline of an evaluation."""
    table = result_table(
        {**evaluation.scores.headline(), "provenance": evaluation.provenance}, "evaluation"
    )
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


def draw_confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path
) -> None:
    """Draw counts, a row for each true class and a column for each predicted one."""
    side = max(5.0, 0.19 * len(classes) + 1.5)
    figure = Figure(figsize=(side * 1.1, side), layout="constrained")
    axes = figure.subplots()
    most = max(max(row) for row in matrix)
    # The root makes single mistakes visible beside a diagonal of hits.
    image = axes.imshow(matrix, cmap="magma_r", norm=PowerNorm(0.5, 0, max(most, 1)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(classes)), classes, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="pictures")
    _save(figure, path)


def draw_curves(history: Sequence[Epoch], title: str, path: Path) -> None:
    """Draw loss and accuracy of training and validation over the epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch + 1 for epoch in history]
    marker = "o" if len(history) == 1 else None
    for axes, name, scale in ((left, "loss", 1), (right, "accuracy", 100)):
        training = [scale * getattr(epoch, f"train_{name}") for epoch in history]
        axes.plot(epochs, training, label="training, pictures changed at random", marker=marker)
        validation = [getattr(epoch, name) for epoch in history]
        if None not in validation:
            axes.plot(epochs, [scale * v for v in validation], label="validation", marker=marker)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set_ylabel("loss (nats)")
    right.set_ylabel("accuracy (%)")
    figure.suptitle(title, fontsize=9)
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
