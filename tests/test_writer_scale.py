from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import CLASSES, SHAPES, page, write_set
from torch import nn

from beton.reader import Reader
from pipeline.evaluation.predict import predict, predict_by_writer
from pipeline.loading import writer_scale
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.models import batchnorm, networks

Pixels = NDArray[np.uint8]
CPU = torch.device("cpu")
TALLEST = 50 / 90  # of a page, in `tiny`


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Three writers of 16 pages each: one as in `tiny`, one half as tall, one unknown."""
    folder = tmp_path_factory.mktemp("set")
    who = (0, 1, -1)

    def drawn(name: str, number: int) -> Pixels:
        pixels = page(name, number)
        if who[number % 3] != 1:
            return pixels
        half = np.full_like(pixels, 255)
        half[: pixels.shape[0] // 2, : pixels.shape[1] // 2] = pixels[::2, ::2]
        return half

    path = write_set(
        folder / "tiny.beton", 12, 0, draw=drawn, writer=lambda _, number: who[number % 3]
    )
    with open_dataset(path) as reader:
        yield reader


def test_heights_are_those_of_the_ink(file: Reader) -> None:
    heights, labels = writer_scale.ink_heights(file), file.column("label").metadata
    for sample, writer in enumerate(writer_scale.writers_of(file)):
        expected = SHAPES[CLASSES[labels[sample]]][0] / 90 / (2 if writer == 1 else 1)
        assert heights[sample] == pytest.approx(expected, abs=3 / writer_scale.SIDE)


def test_every_writer_s_tall_characters_get_the_same_height(file: Reader) -> None:
    scales, who = writer_scale.writer_scales(file, 0.45), writer_scale.writers_of(file)
    assert scales.dtype == np.float32
    for writer, tall in ((0, TALLEST), (1, TALLEST / 2)):
        assert np.ptp(scales[who == writer]) == 0
        assert scales[who == writer][0] == pytest.approx(0.45 / tall, rel=0.05)
    # Unknown writers are scaled by all pages of the file.
    heights = writer_scale.ink_heights(file)
    assert scales[who < 0][0] == pytest.approx(0.45 / np.quantile(heights, 0.7), rel=1e-5)


def test_a_writer_of_few_pages_gets_the_scale_of_all(
    file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_scale, "MIN_PAGES", 17)
    assert np.ptp(writer_scale.writer_scales(file, 0.45)) == 0


def test_images_are_enlarged_by_their_scale(file: Reader) -> None:
    view, ids = View.of(file, 48, 1.0), split_indices(file, "all")
    inks = []
    for scale in (1.2, 1.0):
        scales = np.full(len(file), scale, np.float32)
        with DeviceLoader(file, ids, view, len(ids), device=CPU, scales=scales) as loader:
            (inputs,) = loader.micro_batches()
        inks.append(inputs.images.sum(dim=(1, 2, 3)))
    torch.testing.assert_close(inks[0], inks[1] * 1.44, rtol=0.1, atol=2.0)


def adapted_by_hand(layer: nn.BatchNorm2d, inputs: torch.Tensor) -> torch.Tensor:
    """Inputs normalised by the mixture of the training's distribution and the batch's."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    weight = len(inputs) / (len(inputs) + batchnorm.PRIOR_PAGES)
    mean, square = inputs.mean((0, 2, 3)), inputs.square().mean((0, 2, 3))
    trained = layer.running_var + layer.running_mean**2
    middle = weight * mean + (1 - weight) * layer.running_mean
    variance = weight * square + (1 - weight) * trained - middle**2
    shape = (1, -1, 1, 1)
    return (inputs - middle.view(shape)) / (variance.view(shape) + layer.eps).sqrt()


def test_normalisation_uses_the_mixture_and_is_restored() -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3).eval()
    assert layer.running_mean is not None
    layer.running_mean.uniform_(-1, 1)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    inputs = torch.randn(5, 3, 4, 4) * 3 + 1
    expected = adapted_by_hand(layer, inputs)
    with batchnorm.adapted_batchnorm(nn.Sequential(layer), 5):
        torch.testing.assert_close(layer(inputs), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    with pytest.raises(RuntimeError), batchnorm.adapted_batchnorm(nn.Sequential(layer), 5):
        layer(torch.zeros(2, 9, 4, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_the_network_adapts_to_each_writer_alone(file: Reader) -> None:
    network, view = networks.build("small", len(CLASSES), 0), View.of(file, 16, 1.0)
    who, everybody = writer_scale.writers_of(file), split_indices(file, "all")
    order = everybody[np.argsort(who, kind="stable")]
    with DeviceLoader(file, order, view, 7, device=CPU) as loader:
        predictions = predict_by_writer(network, loader, who)
    assert predictions.ids.tolist() == everybody.tolist()
    assert predictions.labels.tolist() == file.column("label").metadata.tolist()
    with DeviceLoader(file, everybody, view, 7, device=CPU) as loader:
        plain = predict(network.eval(), loader)
    close = (predictions.logits - plain.logits).abs().amax(dim=1) < 1e-4
    assert close.tolist() == (who < 0).tolist()
    # The predictions for a writer do not depend on other writers in the file.
    with DeviceLoader(file, np.flatnonzero(who == 1), view, 3, device=CPU) as loader:
        alone = predict_by_writer(network, loader, who)
    torch.testing.assert_close(alone.logits, predictions.logits[who == 1], rtol=1e-3, atol=1e-4)


def test_unsorted_writers_are_rejected(file: Reader) -> None:
    network, view = networks.build("small", len(CLASSES), 0), View.of(file, 16, 1.0)
    with (
        DeviceLoader(file, split_indices(file, "all"), view, 7, device=CPU) as loader,
        pytest.raises(ValueError, match="in two places"),
    ):
        predict_by_writer(network, loader, writer_scale.writers_of(file))
