"""Plots for reports show the given numbers."""

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from pipeline.analysis.stats import bands
from pipeline.reporting.plots import COLOURS, plot_bars, plot_curves, plot_heat_map

RUNS = [[0.5, 0.7, 0.8], [0.6, 0.7, 0.9], [0.4, 0.7, 0.85]]


def test_curves_draw_mean_and_band() -> None:
    arm = bands([[1, 2, 3]] * 3, RUNS)
    assert arm.low is not None
    figure = plot_curves({"a": arm, "b": bands([[1, 2, 3]], RUNS[:1])}, "epoch", "%", 100, (0, 100))
    (axes,) = figure.axes
    first, second = axes.lines
    assert np.asarray(first.get_ydata()) == pytest.approx(100 * np.array(arm.mean))
    assert np.asarray(first.get_xdata()) == pytest.approx([1, 2, 3])
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    (band,) = axes.collections  # one run has none
    assert isinstance(band, PolyCollection)
    corners = band.get_paths()[0].get_extents()
    assert corners.ymin == pytest.approx(100 * min(arm.low))
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_ylim()) == ("epoch", "%", (0, 100))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize("words", [1, 2, 3, 4, 6])
def test_a_legend_stays_in_its_figure(words: int) -> None:
    arm = bands([[1, 2, 3]], RUNS[:1])
    figure = plot_curves({"pretrained " * words + d: arm for d in "abcde"}, "epoch", "%")
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1


def test_curves_are_distinct() -> None:
    arm = bands([[1, 2]], [[0.1, 0.2]])
    (axes,) = plot_curves({str(i): arm for i in range(28)}, "x", "y").axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 28
    assert len({to_rgb(colour) for colour in COLOURS}) == 7


def test_a_small_heat_map_shows_its_numbers() -> None:
    matrix = np.arange(6).reshape(2, 3) / 10
    figure = plot_heat_map(matrix.tolist(), ["r", "s"], ["a", "b", "c"], "true", "label", digits=1)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [t.get_position() for t in axes.texts][3] == (0, 1)  # x, y: columns run along x
    assert axes.texts[0].get_color() != axes.texts[5].get_color()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["r", "s"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("label", "true")
    names = [str(i) for i in range(20)]
    large = plot_heat_map(np.eye(20).tolist(), names, names, "", "")
    assert [len(axes.texts) for axes in large.axes] == [0, 0]  # a colour bar instead


def test_a_heat_map_of_zeros_is_drawn() -> None:
    plot_heat_map([[0, 0]], ["r"], ["a", "b"], "", "").draw_without_rendering()


def test_bars_have_a_panel_each_and_one_scale() -> None:
    panels = {f"folder {i}": [i, 1, 2] for i in range(7)}
    figure = plot_bars(panels, ["a", "b", "c"], "predicted", "pictures")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list(panels)
    heights = [[p.get_height() for p in axes.patches if isinstance(p, Rectangle)] for axes in shown]
    assert heights == list(panels.values())
    assert len({axes.get_ylim() for axes in shown}) == 1


def test_plotting_does_not_change_rcparams() -> None:
    before = dict(rcParams)
    plot_curves({"a": bands([[1, 2]], [[0, 1]])}, "x", "y")
    assert dict(rcParams) == before
