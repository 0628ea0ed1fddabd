"""Plots of sweeps: accuracy by setting, or over the values of an option with several numbers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.analysis.stats import Bands
from pipeline.analysis.sweep import SettingResult
from pipeline.reporting.plots import COLOURS, LEGEND, draw_curves, new_figure, styled

LEAST_VALUES = 3  # of an option that becomes the x axis
MOST_CURVES = 8
DECADE = 10  # ratio of the largest to the smallest value from which the x axis is logarithmic


def curve_option(results: Sequence[SettingResult]) -> str | None:
    """Return the option for the x axis: numbers, at least three, for few enough curves.

    None if there is no such option.
    """
    names = dict.fromkeys(name for one in results for name in one.setting.options)
    counts = {}
    for name in names:
        values = [one.setting.options.get(name) for one in results]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            counts[name] = len(set(values))
    many = [name for name, count in counts.items() if count >= LEAST_VALUES]
    option = max(many, key=lambda name: counts[name], default=None)
    if option is None or len(curves(results, option)) > MOST_CURVES:
        return None
    return option


def curves(results: Sequence[SettingResult], option: str) -> dict[str, Bands]:
    """Return accuracy over the values of an option, a curve for each combination of the others.

    Settings whose trainings all diverged are left out. The band is the 95 % interval of the mean,
    drawn where every point of a curve has one.
    """
    found: dict[str, list[tuple[float, SettingResult]]] = {}
    for one in results:
        others = {name: v for name, v in one.setting.options.items() if name != option}
        points = found.setdefault(label(others), [])
        if one.accuracy is not None:
            points.append((float(one.setting.options[option]), one))
    return {name: _bands(points) for name, points in found.items() if points}


def label(options: Mapping[str, Any]) -> str:
    """Return the name of a curve: the values of its options."""
    words = (v if isinstance(v, str) else json.dumps(v) for v in options.values())
    return ", ".join(words) or "accuracy"


def _bands(points: Sequence[tuple[float, SettingResult]]) -> Bands:
    ordered = sorted(points, key=lambda point: point[0])
    estimates = [one.accuracy for _, one in ordered if one.accuracy is not None]
    x, mean = tuple(x for x, _ in ordered), tuple(one.mean for one in estimates)
    intervals = [one.interval for one in estimates if one.interval is not None]
    if len(intervals) < len(estimates):
        return Bands(x, mean)
    low, high = tuple(one.low for one in intervals), tuple(one.high for one in intervals)
    return Bands(x, mean, low, high)


@styled
def plot_over(results: Sequence[SettingResult], option: str) -> Figure:
    """Plot accuracy over the values of an option, as `curves` returns them."""
    lines = curves(results, option)
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    draw_curves(axes, lines, 100)
    values = [x for line in lines.values() for x in line.x]
    if values and 0 < DECADE * min(values) <= max(values):
        axes.set_xscale("log")
    axes.set(xlabel=option.replace("_", " "), ylabel="validation accuracy (%)")
    columns = max(1, LEGEND // (max(map(len, lines), default=1) + 9))
    figure.legend(loc="outside upper left", ncols=columns)
    return figure


@styled
def plot_settings(results: Sequence[SettingResult]) -> Figure:
    """Plot the accuracy of each training as a dot, and each setting's mean with its interval."""
    shown = [one for one in results if one.accuracy is not None]
    figure = new_figure(6.4, 0.36 * len(shown) + 0.9)
    axes = figure.subplots()
    for row, one in enumerate(shown):
        assert one.accuracy is not None
        dots = 100 * np.array([a for a in one.accuracies if a is not None])
        axes.plot(dots, np.full(len(dots), row), "o", color=COLOURS[5], markersize=4)
        axes.plot(100 * one.accuracy.mean, row, "|", color=COLOURS[0], markersize=16, mew=2)
        if interval := one.accuracy.interval:
            axes.plot([100 * interval.low, 100 * interval.high], [row, row], color=COLOURS[0])
    axes.set_yticks(range(len(shown)), [one.setting.name for one in shown])
    axes.invert_yaxis()
    axes.set(xlabel="validation accuracy (%)")
    return figure
