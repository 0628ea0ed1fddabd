"""Ink is the distance from the paper, on either decode path, wherever the paper is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import box_resize
from tiny import CLASSES, page, write_set

from beton.loader import Loader
from beton.ops import Resize
from beton.reader import Reader
from pipeline.data.pixels.options import PixelOptions
from pipeline.errors import UserError
from pipeline.evaluation import evaluate as evaluation
from pipeline.evaluation.evaluate import TrainedModel, evaluate
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import PixelRules, View, open_dataset, paper_greys
from pipeline.loading.writer_scale import ink_heights
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe, Stage

Pixels = NDArray[np.uint8]
CPU = torch.device("cpu")
DECODES: tuple[Decode, ...] = ("loader", "device")


def write(path: Path, images: Sequence[Pixels], papers: dict[int, int], fit: str) -> Path:
    """Write images of one class, with the grey levels of paper that are not the backgrounds."""
    pixels: dict[str, Any] = {"polarity": "dark", "scale": None, "fit": fit}
    if papers:
        pixels["paper"] = {"samples": list(papers), "greys": list(papers.values())}
    return write_set(
        path,
        len(images),
        0,
        ("a",),
        draw=lambda _name, number: images[number],
        info={"pixels": pixels},
    )


def inputs(
    file: Reader, view: View, decode: Decode, rows: int = 3, device: torch.device = CPU
) -> NDArray[np.float32]:
    ids = np.arange(len(file))
    with DeviceLoader(file, ids, view, rows, device=device, decode=decode) as loader:
        images = [batch.images[batch.valid, 0].cpu().numpy() for batch in loader.micro_batches()]
    return np.concatenate(images)


def canvas(image: Pixels, paper: int, view: View) -> NDArray[np.float64]:
    """The ink of a canvas by the definition: distance from the paper, which surrounds the image."""
    height, width = image.shape
    tall = height if view.proportion is None else max(height, width / view.proportion)
    wide = width if view.proportion is None else max(width, height * view.proportion)
    window = (width - wide) / 2, (height - tall) / 2, wide, tall, 0, height / 2
    return np.abs(box_resize(image, paper, window, *view.canvas) - paper) / 255


@st.composite
def papered(draw: st.DrawFn) -> tuple[list[Pixels], dict[int, int]]:
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = st.integers(1, 30)
    sizes = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=7))
    images = [numbers.choice(numbers.integers(0, 256, 3, np.uint8), size) for size in sizes]
    chosen = draw(st.sets(st.integers(0, len(images) - 1)))
    return images, {number: int(numbers.integers(256)) for number in sorted(chosen)}


@given(papered(), st.integers(1, 24), st.sampled_from(["stretch", "letterbox"]))
@settings(max_examples=60)
def test_both_decodes_give_the_distance_from_the_paper_everywhere(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[Pixels], dict[int, int]],
    size: int,
    fit: str,
) -> None:
    images, papers = drawn
    path = write(tmp_path_factory.getbasetemp() / "papers.beton", images, papers, fit)
    with open_dataset(path) as file:
        greys, view = paper_greys(file), View.of(file, size, None)
        backgrounds = file.column("image").metadata["background"]
        decoded = {decode: inputs(file, view, decode) for decode in DECODES}
    assert [int(greys[i]) for i in papers] == list(papers.values())
    unlisted = np.setdiff1d(np.arange(len(images)), list(papers))
    assert (greys[unlisted] == backgrounds[unlisted]).all()
    for number, image in enumerate(images):
        expected = canvas(image, int(greys[number]), view)
        np.testing.assert_allclose(decoded["loader"][number], expected, atol=0.51 / 255)
        np.testing.assert_allclose(decoded["device"][number], expected, atol=1e-5)


@pytest.mark.parametrize("listed", [False, True])
def test_where_the_background_is_the_paper_batches_have_the_bits_of_before(
    listed: bool, tmp_path: Path
) -> None:
    """The formula of earlier versions; a neighbour in the batch has another paper, or none has."""
    numbers = np.random.default_rng(0)
    images = [numbers.choice(np.array([0, 90, 255], np.uint8), (30, 40)) for _ in range(6)]
    papers = {5: 17} if listed else {}
    with open_dataset(write(tmp_path / "a.beton", images, papers, "letterbox")) as file:
        view = View.of(file, 20, None)
        op, greys = Resize(*view.canvas), file.column("image").metadata["background"]
        with Loader(file, 6, {"image": op}, order="sequential") as loader:
            pixels = torch.from_numpy(next(iter(loader))["image"].copy())
        backgrounds = torch.from_numpy(greys.copy()).float().view(-1, 1, 1)
        before = pixels.float().sub_(backgrounds).abs_().div_(255)
        assert np.array_equal(inputs(file, view, "loader", 6)[:5], before.numpy()[:5])


def stroke(width: int) -> Pixels:
    """Grainy paper, and a pen that is black throughout."""
    grain = np.random.default_rng(width).integers(180, 256, (60, 60)).astype(np.uint8)
    grain[5:55, 20 : 20 + width] = 0
    return grain


@pytest.mark.parametrize("decode", DECODES)
def test_a_thick_pen_on_grainy_paper_is_ink_once_its_paper_is_known(
    decode: Decode, tmp_path: Path
) -> None:
    images = [stroke(width) for width in (1, 4, 12)]
    with open_dataset(write(tmp_path / "a.beton", images, {}, "letterbox")) as file:
        backgrounds = file.column("image").metadata["background"].tolist()
        assert backgrounds[1:] == [0, 0]  # the pen's grey level
        guessed = inputs(file, View.of(file, 60, None), decode)
    papers = dict.fromkeys(range(3), 218)
    with open_dataset(write(tmp_path / "b.beton", images, papers, "letterbox")) as file:
        known = inputs(file, View.of(file, 60, None), decode)
    for number, width in enumerate((1, 4, 12)):
        bar = np.s_[number, 6:54, 20 : 20 + width]
        assert known[bar].min() > 0.8
        assert known[number, :, 40:].max() < 0.2
        assert (guessed[bar].max() < 0.1) == (number > 0)


@pytest.mark.parametrize("decode", DECODES)
def test_beside_a_page_and_beyond_the_canvas_there_is_no_ink(
    decode: Decode, tmp_path: Path
) -> None:
    """Tight crops: the stored background of a dash is its ink."""
    dash, page_ = np.zeros((4, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    dash[:, [0, -1]], page_[8:12, 8:12] = 255, 0
    images = [dash, page_, page_]
    with open_dataset(write(tmp_path / "a.beton", images, {0: 255}, "letterbox")) as file:
        assert file.column("image").metadata["background"].tolist() == [0, 255, 255]
        view = View.of(file, 40, None)
        whole = inputs(file, view, decode)[0]
        assert view.canvas == whole.shape == (40, 40)
        assert (whole[:15] == 0).all()
        assert (whole[25:] == 0).all()
        assert (whole[17:23, 3:37] == 1).all()
        beyond = inputs(file, View.of(file, 40, 1.0), decode)[0]
        scaled = np.full(len(images), 0.5, np.float32)
        with DeviceLoader(
            file,
            np.arange(3),
            View.of(file, 40, 1.0),
            3,
            device=CPU,
            scales=scaled,
            decode=decode,
        ) as loader:
            (half,) = loader.micro_batches()
    assert np.allclose(beyond, whole, atol=1e-5)
    assert float(half.images[0].sum()) == pytest.approx(float(whole.sum()) / 4, rel=0.02)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none")
@pytest.mark.parametrize("decode", DECODES)
def test_a_gpu_gives_the_batches_of_the_cpu(decode: Decode, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    sizes = numbers.integers(5, 90, (50, 2))
    images = [numbers.choice(np.array([0, 90, 255], np.uint8), size) for size in sizes]
    papers = dict.fromkeys(range(0, 50, 3), 255)
    with open_dataset(write(tmp_path / "a.beton", images, papers, "letterbox")) as file:
        for window in (None, 0.8):
            view = View.of(file, 32, window)
            cpu = inputs(file, view, decode, 16)
            gpu = inputs(file, view, decode, 16, torch.device("cuda"))
            np.testing.assert_allclose(gpu, cpu, atol=1e-4)


def test_heights_of_ink_are_measured_from_the_paper(tmp_path: Path) -> None:
    images = [page("A", number) for number in range(3)]
    inverted = [255 - image for image in images]
    crop = np.zeros((40, 30), np.uint8)
    crop[:4] = crop[36:] = 255
    with open_dataset(write(tmp_path / "a.beton", images, {}, "stretch")) as file:
        expected = ink_heights(file)
    with open_dataset(write(tmp_path / "b.beton", inverted, {}, "stretch")) as file:
        assert (ink_heights(file) == expected).all()
    with open_dataset(write(tmp_path / "c.beton", [crop], {0: 255}, "stretch")) as file:
        assert ink_heights(file)[0] == pytest.approx(32 / 40, abs=0.02)


def trained_with(path: Path, rules: PixelRules) -> TrainedModel:
    training = TrainingConfig("small", Recipe((Stage(16, 1, 1e-3),)))
    with open_dataset(path) as file:
        config = replace(RunConfig.of("test", training, file, {}), pixels=rules)
        view = View.of(file, 16, 1.0)
    return TrainedModel(networks.build("small", len(CLASSES), 0), CLASSES, view, config)


@pytest.mark.parametrize(
    ("rules", "given", "expected"),
    [
        (PixelRules(), PixelOptions(), PixelOptions("each")),
        (PixelRules("dark"), PixelOptions(), PixelOptions(expected_polarity="dark")),
        (PixelRules("light"), PixelOptions(), PixelOptions(expected_polarity="light")),
        (PixelRules("dark"), PixelOptions("light"), PixelOptions("light")),
        (PixelRules("each"), PixelOptions("dark"), PixelOptions("dark")),
        (
            PixelRules("dark", (4000, 55000)),
            PixelOptions(allow_blank=True),
            PixelOptions("auto", (4000, 55000), allow_blank=True, expected_polarity="dark"),
        ),
    ],
)
def test_a_source_is_prepared_by_the_rules_of_the_training(
    rules: PixelRules,
    given: PixelOptions,
    expected: PixelOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_set(tmp_path / "tiny.beton")
    found = []

    def prepare(_source: object, out: Path, *, pixels: PixelOptions, **_: object) -> None:
        found.append(pixels)
        out.write_bytes(data.read_bytes())

    monkeypatch.setattr(evaluation, "prepare", prepare)
    monkeypatch.setattr(evaluation, "open_source", lambda *_args, **_options: None)
    evaluate(trained_with(data, rules), tmp_path / "x.zip", device=CPU, pixels=given)
    assert found == [expected]


def test_a_file_of_another_scale_is_refused(tmp_path: Path) -> None:
    def scaled(name: str, scale: Sequence[float] | None) -> Path:
        pixels = {"polarity": "dark", "scale": scale, "fit": "stretch"}
        return write_set(tmp_path / name, info={"pixels": pixels})

    trained = trained_with(scaled("run.beton", [4000, 55000]), PixelRules("dark", (4000, 55000)))
    for name, scale in (("same.beton", [4000, 55000]), ("8-bit.beton", None)):
        evaluate(trained, scaled(name, scale), device=CPU)
    other = scaled("other.beton", [0, 4095])
    with pytest.raises(UserError, match=r"other\.beton: got grey levels scaled from 0 to 4095, ex"):
        evaluate(trained, other, device=CPU)
