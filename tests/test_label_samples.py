"""The grid of samples by given label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny import CLASSES, write_set

from pipeline.loading.dataset import open_dataset
from pipeline.reporting.run_plots import ACROSS, CELL, plot_label_samples


def test_each_label_has_a_row_and_the_title_has_the_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **settings: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    with open_dataset(write_set(tmp_path / "tiny.beton", train=3, validation=1)) as file:
        plot_label_samples(file, tmp_path / "folders.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folders.png", "tiny.beton"]
    (axes,) = drawn[0].axes
    assert axes.get_title() == "synthetic data: tiny"
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
    sheet = 1 - np.asarray(axes.images[0].get_array()).mean(axis=-1)  # ink is dark
    inked = sheet.reshape(len(CLASSES), CELL, ACROSS, CELL).max(axis=(1, 3)) > 0.5
    assert (inked == (np.arange(ACROSS) < 3)).all()  # three of each, and room for more
