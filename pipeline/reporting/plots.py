"""Plots for reports, as matplotlib figures.

They have no titles, because the page has captions. They fit a column of text, and their labels stay
legible at half size, on a phone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.analysis.stats import Bands

# Okabe & Ito, Color universal design, 2008: distinct for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
LEGEND = 72  # characters in a row of a legend
NUMBERED = 12  # rows or columns up to which the cells of a heat map show their numbers

styled = rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 11,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "text.parse_math": False,  # class names can contain $
    }
)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, with automatic layout."""
    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, which appears whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)


def line(x: Sequence[float], y: Sequence[float]) -> Bands:
    """Return the curve of a single run, without a band."""
    return Bands(tuple(x), tuple(y), None, None, None)


def draw_curves(axes: Axes, curves: Mapping[str, Bands], scale: float = 1) -> None:
    """Draw each mean curve with its band, if it has one; `scale` multiplies y."""
    for number, (name, curve) in enumerate(curves.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        marker = "o" if len(curve.x) < 5 else None
        mean = scale * np.array(curve.mean)
        axes.plot(curve.x, mean, dash, color=colour, marker=marker, linewidth=1.8, label=name)
        if curve.low is not None and curve.high is not None:
            low, high = scale * np.array(curve.low), scale * np.array(curve.high)
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
    if all(float(x).is_integer() for curve in curves.values() for x in curve.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


@styled
def plot_curves(
    curves: Mapping[str, Bands],
    x_label: str,
    y_label: str,
    scale: float = 1,
    limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Plot mean curves with their bands; `scale` multiplies y, `limits` are those of the y axis."""
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    draw_curves(axes, curves, scale)
    axes.set(xlabel=x_label, ylabel=y_label, ylim=limits)
    columns = max(1, LEGEND // (max(map(len, curves)) + 9))  # 9 for the line beside each name
    figure.legend(loc="outside upper left", ncols=columns)
    return figure


@styled
def plot_heat_map(
    matrix: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    digits: int = 2,
) -> Figure:
    """Plot numbers of at least 0 as shades; small matrices show them with `digits` decimals."""
    values = np.array(matrix, np.float64)
    numbered = max(values.shape) <= NUMBERED
    cell = 0.46 if numbered else 0.15
    figure = new_figure(cell * len(columns) + 1.2, cell * len(rows) + 0.8)
    axes = figure.subplots()
    top = float(values.max()) or 1.0
    # Without interpolation, the SVG has one pixel per cell and stays sharp at any size.
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, interpolation="none")
    fontsize = 10 if numbered else 7
    axes.set_xticks(range(len(columns)), columns, fontsize=fontsize)
    axes.set_yticks(range(len(rows)), rows, fontsize=fontsize)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set(xlabel=column_label, ylabel=row_label)
    if numbered:
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if value > 0.55 * top else "black"
            text = f"{value:.{digits}f}"
            axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=9)
    else:
        figure.colorbar(image, ax=axes, shrink=0.5, pad=0.02)
    return figure


@styled
def plot_bars(
    panels: Mapping[str, Sequence[float]],
    names: Sequence[str],
    x_label: str,
    y_label: str,
    scale: float = 1,
) -> Figure:
    """Plot a panel of bars for each entry of `panels`, a bar per name; `scale` multiplies y."""
    across = min(5, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(max(4.5, 1.2 * across + 0.4), 1.3 * down + 0.6)
    grid = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (title, heights) in zip(grid, panels.items(), strict=False):
        axes.bar(range(len(names)), scale * np.array(heights), color=COLOURS[0], width=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.tick_params(labelsize=8, length=2)
        axes.grid(visible=False, axis="x")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    return figure
