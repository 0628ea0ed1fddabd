"""Numbers → matplotlib figures for a page. Computes nothing.

Without titles: a figure's caption belongs to the page. Sized for a column of text, in words that
can still be read when a phone halves them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.analysis.stats import Bands

# Okabe & Ito, Color universal design, 2008: told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
LEGEND = 72  # letters in a row of a legend
NUMBERED = 12  # rows or columns up to which a heat map's cells show their numbers

styled = rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 11,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "text.parse_math": False,  # names of classes are no formulas, whatever is in them
    }
)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def line(x: Sequence[float], y: Sequence[float]) -> Bands:
    """Return a curve without a band."""
    return Bands(tuple(x), tuple(y), None, None, None)


def draw_curves(axes: Axes, arms: Mapping[str, Bands], scale: float = 1) -> None:
    """Draw the mean curve of every arm, with its band where it has one, times `scale` along y."""
    for number, (name, arm) in enumerate(arms.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        marker = "o" if len(arm.x) < 5 else None
        mean = scale * np.array(arm.mean)
        axes.plot(arm.x, mean, dash, color=colour, marker=marker, linewidth=1.8, label=name)
        if arm.low is not None and arm.high is not None:
            low, high = scale * np.array(arm.low), scale * np.array(arm.high)
            axes.fill_between(arm.x, low, high, color=colour, alpha=0.18, linewidth=0)
    if all(float(x).is_integer() for arm in arms.values() for x in arm.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def plot_curves(
    arms: Mapping[str, Bands],
    x_label: str,
    y_label: str,
    scale: float = 1,
    limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Draw the mean curve of every arm, with its band where it has one.

    `scale` multiplies what is drawn along y, and `limits` are the ends of that axis.
    """
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    draw_curves(axes, arms, scale)
    axes.set(xlabel=x_label, ylabel=y_label, ylim=limits)
    columns = max(1, LEGEND // (max(map(len, arms)) + 9))  # a line's sample is worth nine letters
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
    """Draw numbers of at least zero as shades; few enough are written out, to `digits` decimals."""
    values = np.array(matrix, np.float64)
    numbered = max(values.shape) <= NUMBERED
    cell = 0.46 if numbered else 0.15
    figure = new_figure(cell * len(columns) + 1.2, cell * len(rows) + 0.8)
    axes = figure.subplots()
    most = float(values.max()) or 1.0
    # Without interpolation the SVG holds one pixel a cell, which stay sharp at any size.
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=most, interpolation="none")
    fontsize = 10 if numbered else 7
    axes.set_xticks(range(len(columns)), columns, fontsize=fontsize)
    axes.set_yticks(range(len(rows)), rows, fontsize=fontsize)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set(xlabel=column_label, ylabel=row_label)
    if numbered:
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if value > 0.55 * most else "black"
            text = f"{value:.{digits}f}"
            axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=9)
    else:
        figure.colorbar(image, ax=axes, shrink=0.5, pad=0.02)
    return figure


@styled
def plot_bars(
    panels: Mapping[str, Sequence[float]], names: Sequence[str], x_label: str, y_label: str
) -> Figure:
    """Draw a panel of bars for every entry of `panels`, all to one scale; a bar for each name."""
    across = min(5, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(max(4.5, 1.2 * across + 0.4), 1.3 * down + 0.6)
    grid = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (title, heights) in zip(grid, panels.items(), strict=False):
        axes.bar(range(len(names)), heights, color=COLOURS[0], width=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.tick_params(labelsize=8, length=2)
        axes.grid(visible=False, axis="x")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    return figure
