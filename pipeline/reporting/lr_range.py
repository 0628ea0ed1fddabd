"""The curve of a learning rate range test: as a PNG file, as JSON, and as text for the terminal."""

from dataclasses import asdict
from typing import Any

import numpy as np

from beton.reader import Reader
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import source_line
from pipeline.reporting.plots import COLOURS, new_figure, save_png, styled
from pipeline.training.lr_range import LrRange

RANGE_PLOT, RANGE_FILE = "lr_range.png", "lr_range.json"
COLUMNS, ROWS = 63, 10  # characters of the curve in the terminal
BLOCKS = " ▁▂▃▄▅▆▇█"
MARGIN = 8  # characters before the curve


def write_range_test(
    folder: RunDir, title: str, found: LrRange, training: TrainingConfig, file: Reader
) -> None:
    """Write lr_range.png and lr_range.json to a run directory."""
    values = range_values(found, training, file)
    folder.write_json(RANGE_FILE, values)
    title = f"{title}, {training.network}, {source_line(values['provenance'])}"
    plot_range(found, title, folder)


def range_values(found: LrRange, training: TrainingConfig, file: Reader) -> dict[str, Any]:
    """Return a range test and what it was made of, as JSON values."""
    (stage,) = training.recipe.stages
    return {
        **asdict(found),
        "network": training.network,
        "optimizer": stage.optimizer,
        "batch_size": training.recipe.batch_size,
        "seed": training.recipe.seed,
        "data": str(file.path),
        "provenance": file.info["provenance"],
    }


@styled
def plot_range(found: LrRange, title: str, folder: RunDir) -> None:
    """Plot the losses over the rates, with both suggestions, to lr_range.png in a folder."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.3", linewidth=1.8)
    for name, colour, marker in (("steepest", COLOURS[1], "o"), ("valley", COLOURS[0], "s")):
        rate = getattr(found, name)
        loss = found.losses[found.rates.index(rate)]
        axes.axvline(rate, color=colour, linewidth=1, linestyle=":")
        axes.plot(rate, loss, marker, color=colour, markersize=9, label=f"{name}: {rate:.3g}")
    low, high = _limits(found)
    axes.set(
        xscale="log",
        xlabel="learning rate (peak, of the step)",
        ylabel="training loss (nats), smoothed",
        ylim=(low - 0.05 * (high - low), high + 0.05 * (high - low)),
    )
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:.0e}")
    axes.legend(loc="lower left")
    axes.set_title(f"{title}\nlearning rate range test", fontsize=9)
    save_png(figure, folder.path / RANGE_PLOT)


def range_chart(found: LrRange) -> str:
    """Return the curve as lines of block characters, the suggestions marked below it.

    A column is the mean loss of its rates; the highest column is at most a tenth of the fall above
    the first loss, so that a divergence does not flatten the rest.
    """
    low, high = _limits(found)
    columns = np.array_split(np.array(found.losses), min(COLUMNS, len(found.losses)))
    heights = [
        np.clip((column.mean() - low) / (high - low), 0, 1) * (ROWS * 8 - 1) + 1
        for column in columns
    ]
    lines = []
    for row in reversed(range(ROWS)):
        label = {ROWS - 1: f"{high:.3g}", 0: f"{low:.3g}"}.get(row, "")
        bars = "".join(BLOCKS[int(np.clip(height - 8 * row, 0, 8))] for height in heights)
        lines.append(f"{label:>{MARGIN - 2}} │{bars}")
    width = len(heights)
    lines.append(f"{'loss':>{MARGIN - 2}} └{'─' * width}")
    first, last = (f"{rate:.0e}" for rate in (found.rates[0], found.rates[-1]))
    lines.append(" " * MARGIN + first + "learning rate".center(width - len(first + last)) + last)
    for name in ("steepest", "valley"):
        rate = getattr(found, name)
        place = next(
            number
            for number, column in enumerate(np.array_split(np.array(found.rates), width))
            if rate <= column[-1]
        )
        lines.append(f"{' ' * (MARGIN + place)}▲ {name} {rate:.3g}")
    return "\n".join(lines)


def _limits(found: LrRange) -> tuple[float, float]:
    """Return the lowest loss, and the highest one to show."""
    low, first = min(found.losses), max(found.losses[: found.losses.index(min(found.losses)) + 1])
    return low, first + 0.1 * (first - low)
