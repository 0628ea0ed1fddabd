"""Plots that benchmarks have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.reporting.plots import COLOURS, new_figure, save_png, styled

WIDE = 10
RANGES = "A bar is the median of the rounds, a line their range."


def label_plainly(axis: Axis) -> None:
    """Label a logarithmic axis with numbers instead of powers, once its data are drawn.

    They are at 1, 2 and 5 of each decade, or at 1 if there are two decades or more.
    """
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class RateBar:
    """A method's rates, images/s in each round; `ours` says whether it is this project's."""

    name: str
    rates: Sequence[float]
    ours: bool


@styled
def plot_rates(panels: Mapping[str, Sequence[RateBar]]) -> Figure:
    """Plot the median rate of each method as a bar, with its range.

    Each entry of `panels` is a panel with its title; they share the axis, which is logarithmic if
    the rates differ by a factor of WIDE or more.
    """
    rows = [len(bars) for bars in panels.values()]
    titles = [bool(title) for title in panels]
    figure = new_figure(6.4, 0.32 * sum(rows) + 0.3 * sum(titles) + 0.1 * len(rows) + 0.8)
    columns = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (title, bars) in zip(columns, panels.items(), strict=True):
        for row, bar in enumerate(bars):
            colour = COLOURS[0] if bar.ours else COLOURS[4]
            axes.barh(row, median(bar.rates), color=colour, height=0.7)
            axes.plot([min(bar.rates), max(bar.rates)], [row, row], color="black", linewidth=1)
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=9)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_title(title, fontsize=10, loc="left")
    medians = [median(bar.rates) for bars in panels.values() for bar in bars]
    if max(medians) >= WIDE * min(medians):
        columns[-1].set_xscale("log")
        label_plainly(columns[-1].xaxis)
    else:
        columns[-1].xaxis.set_major_locator(MaxNLocator(5))
        columns[-1].xaxis.set_major_formatter("{x:,.0f}")
    columns[-1].set(xlabel="images/s")
    return figure


def save_plots(folder: Path, plots: Mapping[str, Figure]) -> None:
    """Write figures as PNG files, by name, to a folder."""
    for name, figure in plots.items():
        save_png(figure, folder / f"{name}.png")
