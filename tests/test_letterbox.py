"""Pages keep their proportions on the way to a network, in training as in evaluation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import box_resize
from tiny import page, write_set

from beton import ops, writer
from beton.fields import InkField
from beton.loader import Loader
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import PixelRules, View, open_dataset, split_indices
from pipeline.loading.writer_scale import writer_scales
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import read_as
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import join_processes

Pixels = NDArray[np.uint8]
Window = tuple[float, float, float, float, float, float]
CPU = torch.device("cpu")
DECODES: tuple[Decode, ...] = ("loader", "device")
LETTERBOX = {"pixels": {"polarity": "dark", "scale": None, "fit": "letterbox"}}
SIDES = st.integers(1, 40)


@st.composite
def some_images(draw: st.DrawFn) -> list[Pixels]:
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5))
    return [numbers.choice(numbers.integers(0, 256, 3, np.uint8), size) for size in sizes]


def resized(path: Path, images: Sequence[Pixels], op: ops.Op) -> Mapping[str, NDArray[Any]]:
    writer.write(path, {"image": InkField()}, [(image,) for image in images])
    with Loader(path, len(images), {"image": op}, order="sequential", threads=0) as loader:
        return next(iter(loader)).arrays


def letterbox(height: int, width: int, proportion: float) -> Window:
    """The smallest window of a proportion around an image: its centre stays the centre."""
    tall = max(height, width / proportion)
    wide = tall * proportion
    return (width - wide) / 2, (height - tall) / 2, wide, tall, 0, height / 2


@given(some_images(), SIDES, SIDES, st.floats(0.05, 20))
@settings(max_examples=60)
def test_a_window_of_the_proportion_surrounds_the_whole_image(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[Pixels],
    height: int,
    width: int,
    proportion: float,
) -> None:
    path = tmp_path_factory.getbasetemp() / "images.beton"
    got = resized(path, images, ops.Resize(height, width, proportion=proportion))["image"]
    runs = resized(path, images, ops.Runs(proportion=proportion))
    for one, image, background, window in zip(
        got, images, runs["image.background"], runs["image.geometry"], strict=True
    ):
        expected = letterbox(image.shape[0], image.shape[1], proportion)
        np.testing.assert_allclose(window, expected, atol=1e-9)
        exact = box_resize(image, int(background), expected, height, width)
        assert np.abs(one - exact).max() <= 0.501


@given(some_images(), SIDES, SIDES)
@settings(max_examples=40)
def test_images_of_the_proportion_give_the_bytes_of_a_plain_resize(
    tmp_path_factory: pytest.TempPathFactory, images: list[Pixels], height: int, width: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "images.beton"
    image = images[0]
    proportion = image.shape[1] / image.shape[0]
    for boxed, plain in (
        (ops.Resize(height, width, proportion=proportion), ops.Resize(height, width)),
        (ops.Runs(proportion=proportion), ops.Runs()),
    ):
        one, other = resized(path, [image], boxed), resized(path, [image], plain)
        assert all((one[name] == other[name]).all() for name in other)


def test_a_window_is_jittered_or_letterboxed_and_has_a_proportion() -> None:
    with pytest.raises(ValueError, match="got a jitter too"):
        ops.Resize(8, 8, ops.Jitter(shear=1), proportion=1)
    with pytest.raises(ValueError, match="got a jitter too"):
        ops.Runs(ops.Jitter(shear=1), proportion=1)
    for proportion in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="proportion: got"):
            ops.Resize(8, 8, proportion=proportion)
        with pytest.raises(ValueError, match="proportion: got"):
            ops.Runs(proportion=proportion)


def bar(name: str, _number: int) -> Pixels:
    """A black bar of 8×40 or 40×8 pixels in the middle of a sheet of 20×100 or 100×20."""
    height, width = (100, 20) if name == "tall" else (20, 100)
    sheet = np.full((height, width), 255, np.uint8)
    sheet[height * 3 // 10 : height * 7 // 10, width * 3 // 10 : width * 7 // 10] = 0
    return sheet


def inputs(path: Path, view: View, decode: Decode = "loader") -> torch.Tensor:
    with open_dataset(path) as file:
        ids = split_indices(file, "all")
        with DeviceLoader(file, ids, view, len(ids), device=CPU, decode=decode) as loader:
            (batch,) = loader.micro_batches()
    return batch.images[:, 0]


def boxes(images: torch.Tensor) -> list[tuple[int, int]]:
    """Height and width of each image's ink."""
    inked = images > 0.5
    heights, widths = (inked.any(axis).sum(dim=1).tolist() for axis in (2, 1))
    return list(zip(heights, widths, strict=True))


@pytest.mark.parametrize("decode", DECODES)
def test_tall_and_wide_bars_drawn_to_scale_stay_different(decode: Decode, tmp_path: Path) -> None:
    names = ("tall", "wide")
    path = write_set(tmp_path / "bars.beton", 2, 0, names, draw=bar, info=LETTERBOX)
    with open_dataset(path) as file:
        view, before = View.of(file, 64, 1.0), View.of(file, 64, 1.0, "stretch")
    assert (view.fit, view.proportion) == ("letterbox", 1.0)
    (tall, wide), same = inputs(path, view, decode)[:2], inputs(path, before, decode)[:2]
    torch.testing.assert_close(tall, wide.T, atol=2 / 255, rtol=0)
    assert (tall - wide).abs().max() == 1
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("decode", DECODES)
def test_pages_of_the_median_proportion_get_the_batches_of_before(
    decode: Decode, tmp_path: Path
) -> None:
    path = write_set(tmp_path / "tiny.beton", info=LETTERBOX)
    with open_dataset(path) as file:
        for size, window in ((16, 0.4), (30, 0.8), (7, None)):
            boxed, before = (View.of(file, size, window, fit) for fit in (None, "stretch"))
            assert boxed.fit == "letterbox"
            assert boxed.canvas == before.canvas
            assert torch.equal(inputs(path, boxed, decode), inputs(path, before, decode))


def test_files_and_views_of_earlier_versions_are_stretched(tmp_path: Path) -> None:
    with open_dataset(write_set(tmp_path / "tiny.beton")) as file:
        assert PixelRules.of(file) == PixelRules("each", None, "stretch")
        view = View.of(file, 16, 0.8)
    assert view == View(16, (20, 27), whole=False, fit="stretch", proportion=None)
    (tmp_path / "view.json").write_text('{"size": 16, "canvas": [20, 27], "whole": false}')
    assert read_as(tmp_path / "view.json", View) == view
    boxed = replace(view, fit="letterbox", proportion=4 / 3)
    (tmp_path / "view.json").write_text(json.dumps(asdict(boxed)))
    assert read_as(tmp_path / "view.json", View) == boxed


def test_rules_of_pixels_are_stored_with_a_run_and_earlier_runs_have_none(tmp_path: Path) -> None:
    rules = {"polarity": "light", "scale": [4000, 55000], "fit": "letterbox", "colour": "grey"}
    pixels = {**rules, "paper": {"samples": [1], "greys": [7]}}
    training = TrainingConfig("small", Recipe((Stage(16, 1, 1e-3),)))
    with open_dataset(write_set(tmp_path / "tiny.beton", info={"pixels": pixels})) as file:
        config = RunConfig.of("test", training, file, {})
    written = json.loads(json.dumps(config.as_json()))
    assert written["pixels"] == rules
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_as(tmp_path / "config.json", RunConfig) == config
    del written["pixels"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_as(tmp_path / "config.json", RunConfig).pixels == PixelRules()


def trained_on(path: Path) -> TrainedModel:
    training = TrainingConfig("small", Recipe((Stage(32, 1, 1e-3),)))
    with open_dataset(path) as file:
        config, view = RunConfig.of("test", training, file, {}), View.of(file, 32, 1.0)
        classes = tuple(file.info["classes"])
    return TrainedModel(networks.build("small", len(classes), 0), classes, view, config)


def test_a_page_has_the_input_of_training_whatever_file_it_comes_from(tmp_path: Path) -> None:
    """A file of wide bars alone has another median proportion, which must not matter."""
    names = ("tall", "wide")
    both = write_set(tmp_path / "both.beton", 2, 0, names, draw=bar, info=LETTERBOX)
    wide = write_set(tmp_path / "wide.beton", 2, 0, names[1:], draw=bar, info=LETTERBOX)
    old = write_set(tmp_path / "old.beton", 2, 0, names[1:], draw=bar)
    trained = trained_on(both)
    assert trained.view.varied
    expected = inputs(both, trained.view)[1]
    for path in (wide, old):
        with open_dataset(path) as file:
            assert torch.equal(inputs(path, trained.view_of(file))[0], expected)


def test_pages_of_one_proportion_have_the_scale_of_their_height_in_files_of_another(
    tmp_path: Path,
) -> None:
    """Margins on the sides of all pages change nothing, as in earlier versions."""

    def widened(name: str, number: int) -> Pixels:
        return np.pad(page(name, number), ((0, 0), (60, 60)), constant_values=255)

    trained = trained_on(write_set(tmp_path / "tiny.beton", info=LETTERBOX))
    assert not trained.view.varied
    path = write_set(tmp_path / "wide.beton", draw=widened, info=LETTERBOX)
    with open_dataset(path) as file:
        view = trained.view_of(file)
        before = View.of(file, 32, 1.0, "stretch")
    assert view.proportion == 240 / 90
    assert torch.equal(inputs(path, view), inputs(path, before))
    narrow = inputs(tmp_path / "tiny.beton", trained.view)
    assert np.abs(np.subtract(boxes(inputs(path, view)), boxes(narrow))).max() <= 1


def test_a_few_wide_pages_of_one_class_make_a_file_varied(tmp_path: Path) -> None:
    def draw(_name: str, number: int) -> Pixels:
        return np.pad(bar("tall", 0), ((0, 0), (0, 100 if number % 100 == 0 else 1)))

    path = write_set(tmp_path / "few.beton", 300, 0, ("a",), draw=draw, info=LETTERBOX)
    with open_dataset(path) as file:
        view = View.of(file, 8, 1.0)
        assert (view.proportion, view.varied) == (21 / 100, True)
        assert view.on(file, 1.0) == view


def test_a_run_that_stretches_goes_by_the_proportion_of_each_file(tmp_path: Path) -> None:
    view = View(32, (32, 32))
    with open_dataset(write_set(tmp_path / "tiny.beton", info=LETTERBOX)) as file:
        assert view.on(file, 1.0) == View(32, (32, 43))
        assert replace(view, whole=True).on(file, 1.0) == replace(view, whole=True)


def test_both_datasets_of_a_training_have_the_view_of_the_main_one(tmp_path: Path) -> None:
    names = ("tall", "wide")
    main = write_set(tmp_path / "main.beton", 2, 0, names, draw=bar, info=LETTERBOX)
    other = write_set(
        tmp_path / "other.beton",
        2,
        0,
        names,
        draw=lambda _name, number: bar("wide", number),
        digest="sha256:other",
    )
    recipe = Recipe((Stage(16, 1, 1e-3),), batch_size=4, auxiliary=0.5)
    with (
        open_dataset(main) as file,
        open_dataset(other) as auxiliary,
        join_processes("no") as processes,
    ):
        data = DataModule(processes, recipe, file, auxiliary=auxiliary)
        with data.train_loader(recipe.stages[0]) as loader:
            (batch,) = next(loader.batches(0))
        labels = file.column("label").metadata[batch.ids[:2]]
    sizes = boxes(batch.images[:, 0])
    assert sizes[2] == sizes[3] == sizes[int(np.flatnonzero(labels == 1)[0])]


def test_writers_are_scaled_by_the_height_of_their_ink_in_the_letterbox(tmp_path: Path) -> None:
    path = write_set(
        tmp_path / "bars.beton",
        12,
        0,
        ("tall", "wide"),
        draw=bar,
        writer=lambda name, _number: int(name == "wide"),
        info=LETTERBOX,
    )
    with open_dataset(path) as file:
        view = View.of(file, 32, 1.0)
        stretched = writer_scales(file, 0.4)[:2]
        scales = writer_scales(file, 0.4, view.proportion)[:2]
    assert stretched.tolist() == pytest.approx([1, 1], rel=0.05)
    assert scales.tolist() == pytest.approx([1, 3], rel=0.05)  # clipped


@pytest.mark.parametrize(("height", "width"), [(1, 60000), (60000, 1), (3, 200)])
@pytest.mark.parametrize("info", [{}, LETTERBOX])
def test_images_too_long_for_a_canvas_are_refused_with_their_file_and_size(
    height: int, width: int, info: dict[str, object], tmp_path: Path
) -> None:
    def line(_name: str, number: int) -> Pixels:
        sheet = np.full((height, width), 255, np.uint8)
        sheet.flat[number] = 0
        return sheet

    path = write_set(tmp_path / "lines.beton", draw=line, info=info)
    recipe = Recipe((Stage(72, 1, 1e-3),), batch_size=4)
    expected = rf"lines\.beton: got images of {width} × {height} pixels .* cut the images into"
    with (
        open_dataset(path) as file,
        join_processes("no") as processes,
        pytest.raises(UserError, match=expected) as refused,
    ):
        DataModule(processes, recipe, file)
    assert "\n" not in str(refused.value)


def test_a_canvas_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (
        open_dataset(write_set(tmp_path / "tiny.beton")) as file,
        pytest.raises(UserError, match=r"at most 33554432 pixels, 65535 a side; choose a"),
    ):
        View.of(file, 4096, 0.05)


def test_one_long_image_among_others_vanishes_but_fails_nothing(tmp_path: Path) -> None:
    def draw(_name: str, number: int) -> Pixels:
        shape = (1, 60000) if number == 3 else (28, 28)
        sheet = np.full(shape, 255, np.uint8)
        sheet[:, 5:9] = 0
        return sheet

    path = write_set(tmp_path / "odd.beton", 4, 0, ("a",), draw=draw, info=LETTERBOX)
    with open_dataset(path) as file:
        view = View.of(file, 28, 1.0)
    for decode in DECODES:
        images = inputs(path, view, decode)
        assert images[:3].amax(dim=(1, 2)).min() == 1
        assert images[3].max() < 0.01
