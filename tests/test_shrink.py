"""Accuracy on shrunk images, and the confusions of EMNIST's report."""

from dataclasses import asdict, replace
from pathlib import Path

import made_up
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import CLASSES, write_set
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics, score
from pipeline.evaluation.run_dir import RunDir, read_run
from pipeline.evaluation.shrink import (
    FILE,
    ShrinkCurve,
    Shrunk,
    area_weights,
    read_shrink_curve,
    shrink,
    shrink_curve,
    write_shrink_curve,
)
from pipeline.loading.dataset import Normalize, View, open_dataset
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting.html import Plot, Table
from pipeline.reporting.pages.emnist import (
    confusion_blocks,
    confusion_table,
    emnist_sections,
    shrink_section,
)
from pipeline.reporting.run_groups import RunGroup

RECIPE = Recipe((Stage(28, 1, 0.01),), window=None, normalize=Normalize((0.1307,), (0.3081,)))


@given(st.integers(1, 40), st.integers(1, 40))
def test_areas_are_averaged_exactly(size: int, side: int) -> None:
    side = min(size, side)
    weights = area_weights(size, side).double()
    assert torch.allclose(weights.sum(dim=1), torch.ones(side, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(weights.sum(dim=0), torch.full((size,), side / size).double(), atol=1e-6)
    fine = torch.arange(size * side) // side  # the pixel of each of size × side parts
    expected = torch.zeros(side, size, dtype=torch.float64)
    for part, pixel in enumerate(fine.tolist()):
        expected[part // size, pixel] += 1 / size
    assert torch.allclose(weights, expected, atol=1e-6)


def test_a_shrunk_image_lies_in_the_middle_of_paper() -> None:
    ink = torch.ones(2, 1, 28, 28)
    shrunk = shrink(ink, 8)
    assert shrunk.shape == ink.shape
    assert torch.equal(shrunk.nonzero().amin(dim=0), torch.tensor([0, 0, 10, 10]))
    assert torch.equal(shrunk.nonzero().amax(dim=0), torch.tensor([1, 0, 17, 17]))
    assert torch.allclose(shrunk[:, :, 10:18, 10:18], torch.ones(2, 1, 8, 8))
    images = torch.rand(3, 1, 28, 28)
    assert torch.allclose(shrink(images, 28), images, atol=1e-6)
    assert shrink(images, 14).sum() == pytest.approx(float(images.sum()) / 4, rel=1e-5)


def test_paper_is_normalised_too() -> None:
    class Sum(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.amin(dim=(1, 2, 3))

    shrunk = Shrunk(Sum(), 8, Normalize((0.5,), (0.25,)))
    assert shrunk(torch.ones(1, 1, 28, 28)).tolist() == [-2.0]


def trained(path: Path, data: Path, size: int = 28, recipe: Recipe = RECIPE) -> Path:
    """Write the run directory of a network with random weights."""
    with open_dataset(data) as file:
        view = View.of(file, size, recipe.window, normalize=recipe.normalize)
    network = networks.build("small", len(CLASSES), 0, view.input_shape)
    path.mkdir()
    record = RunDir(path)
    record.write_json("config.json", made_up.config(recipe=recipe, classes=CLASSES))
    record.write_json("view.json", asdict(view))
    record.finish(made_up.result().as_json())
    save_file(network.state_dict(), path / "model.safetensors")
    return path


def square(name: str, number: int) -> np.ndarray:
    """Return an image of 28 × 28 pixels, ink on black, with a bar of the class."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 3 + 6 * CLASSES.index(name) : 7 + 6 * CLASSES.index(name)] = 200 + number
    return pixels


def test_the_curve_starts_at_the_accuracy_of_the_network(tmp_path: Path) -> None:
    data = write_set(tmp_path / "tiny.beton", draw=square, validation=6)
    run = trained(tmp_path / "run", data)
    with open_dataset(data) as file:
        curve = shrink_curve(run, file)
        assert (curve.split, curve.samples) == ("validation", 24)
        assert curve.sides == (28, 24, 20, 16, 12, 8)
        assert shrink_curve(run, file, most=10).samples == 10
        write_shrink_curve(run, file)
    assert read_shrink_curve(run) == curve
    assert read_shrink_curve(tmp_path) is None


def test_other_images_than_squares_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "tiny.beton")
    run = trained(tmp_path / "run", data)  # whole pages of 90 × 120 pixels
    with open_dataset(data) as file, pytest.raises(UserError, match="expected grey squares"):
        shrink_curve(run, file)
    with open_dataset(data) as file:  # a report goes without the curve
        write_shrink_curve(run, file)
    assert read_shrink_curve(run) is None


CHARACTERS = tuple("0123456789abcdefghijklmnopqrstuvwxyz")


def group(path: Path, name: str, wrong: dict[str, str], curves: int = 1) -> RunGroup:
    """Return a group of runs that predict the classes of `wrong` as others, else correctly."""
    runs = {}
    labels = torch.arange(36).repeat(2)
    predicted = labels.clone()
    for true, other in wrong.items():
        predicted[CHARACTERS.index(true)] = CHARACTERS.index(other)
    for seed in range(2):
        folder = path / f"{name}-{seed}"
        folder.mkdir(parents=True)
        record = RunDir(folder)
        recipe = replace(RECIPE, seed=seed)
        values = made_up.config(recipe=recipe, classes=CHARACTERS, options={"recipe": name})
        record.write_json("config.json", {**values, "job": "emnist"})
        record.write_json("losses.json", [1.0])
        record.write_epochs([EpochMetrics(0, 0, 0.1, 1, 0.5, 1, 1, 0.5, 1)])
        logits = torch.eye(36)[predicted]
        save_file(
            {"ids": torch.arange(72), "labels": labels, "logits": logits},
            folder / "answers.safetensors",
        )
        if seed < curves:
            curve = ShrinkCurve("test", 100, (28, 14), (0.9 + 0.02 * seed, 0.5))
            record.write_json(FILE, asdict(curve))
        scores = score(logits, labels, CHARACTERS)
        record.finish(made_up.result(samples=72, accuracy=scores.accuracy).as_json())
        runs[seed] = read_run(folder)
    return RunGroup.of(name, runs)


def test_the_published_confusions_are_counted(tmp_path: Path) -> None:
    groups = [
        group(tmp_path, "first", {"1": "l", "o": "0", "a": "b"}),
        group(tmp_path, "deeper", {}),
    ]
    table = confusion_table(groups)
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["1 → L"] == ["2 of 4 (50.0 %)", "0 of 4 (0.0 %)"]
    assert cells["O → 0"][0] == "2 of 4 (50.0 %)"
    assert cells["L → 1"][0] == "0 of 4 (0.0 %)"
    assert cells["all of these"] == ["4 of 6 errors (66.7 %)", "no errors"]
    assert len(table.rows) == 3 * 6 + 1
    assert "1/L/J, 0/Q/O, 9/Q/G" in table.caption


def test_both_curves_are_on_one_plot(tmp_path: Path) -> None:
    groups = [group(tmp_path, "first", {}, curves=2), group(tmp_path, "sizes", {}, curves=2)]
    text, plot, table = shrink_section(groups).blocks
    assert isinstance(text, str)
    assert isinstance(plot, Plot)
    assert "first and sizes" in plot.alt
    assert "shrunk from 28 × 28 pixels" in plot.caption
    assert isinstance(table, Table)
    assert [*table.headers] == ["side in pixels", "28", "14"]
    assert [list(row) for row in table.rows] == [
        ["first", "91.0 %", "50.0 %"],
        ["sizes", "91.0 %", "50.0 %"],
    ]
    titles = [section.title for section in emnist_sections(groups)]
    assert titles == ["Published confusions", "Smaller images"]


def test_sections_without_content_are_left_out(tmp_path: Path) -> None:
    part = group(tmp_path, "first", {}, curves=1)  # one of two runs has a curve
    assert [section.title for section in emnist_sections([part])] == ["Published confusions"]
    config = replace(part.first.config, classes=CLASSES)
    runs = {0: replace(part.first, config=config)}
    assert confusion_blocks([replace(part, runs=runs)]) == []
