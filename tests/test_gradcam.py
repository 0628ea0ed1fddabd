"""Grad-CAM against what goes wrong with it elsewhere: modes, in-place layers, positions."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.inspection.gradcam import feature_layer, grad_cam, overlay
from pipeline.models import networks

pytest.importorskip("captum")

Heat = NDArray[np.float32]


class Halves(nn.Module):
    """Class 0 is bright pixels in the left third of 12×24, class 1 in the right third."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.features.weight)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        return torch.stack([maps[:, 0, :, :8].sum((1, 2)), maps[:, 1, :, 16:].sum((1, 2))], dim=1)


def network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """A network with statistics of some images."""
    made = networks.build(name, 5, 0, shape).train()
    with torch.no_grad():
        made(torch.rand(16, *shape))
    return made.eval()


def test_heat_lies_where_the_class_is() -> None:
    images = torch.zeros(2, 1, 12, 24)
    images[:, :, 2, 3] = images[:, :, 9, 20] = 1.0
    images[0, :, 2, 3] = 3.0
    heat = grad_cam(Halves(), images, torch.tensor([0, 1]))
    assert heat.shape == (2, 12, 24)
    assert heat.dtype == np.float32
    assert np.unravel_index(heat[0].argmax(), (12, 24)) == (2, 3)
    assert heat.max(axis=(1, 2)).tolist() == [1, 1]
    assert heat[1, 0, 0] == heat[1, 5, 5] == 0


def test_a_class_that_nothing_speaks_for_has_no_heat() -> None:
    negative = Halves()
    nn.init.constant_(negative.features.weight, -1.0)
    assert (
        grad_cam(negative, torch.rand(3, 1, 12, 24), torch.zeros(3, dtype=torch.int64)).max() == 0
    )


@pytest.mark.parametrize("name", ["small", "compact", "emnist-first", "resnet9-narrow"])
def test_heat_depends_on_the_image_and_its_class_alone(name: str) -> None:
    made, images, classes = network(name, (1, 32, 40)), torch.rand(5, 1, 32, 40), torch.arange(5)
    heat = grad_cam(made, images, classes)
    alone = [grad_cam(made, images[i : i + 1], classes[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(heat, np.stack(alone), atol=1e-4)
    other = grad_cam(made, images, classes.roll(1))
    assert sum(np.abs(heat[i] - other[i]).max() > 1e-3 for i in range(5)) >= 3


def in_train_mode(made: nn.Module) -> nn.Module:
    return made.train()


def frozen(made: nn.Module) -> nn.Module:
    return made.requires_grad_(False)


def without_inplace(made: nn.Module) -> nn.Module:
    for layer in made.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return made


@pytest.mark.parametrize("change", [in_train_mode, frozen, without_inplace])
def test_modes_and_in_place_layers_do_not_matter(
    change: Callable[[nn.Module], nn.Module],
) -> None:
    made, images = network("emnist-first", (1, 28, 28)), torch.rand(4, 1, 28, 28)
    classes = torch.tensor([0, 1, 2, 3])
    expected = grad_cam(made, images, classes)
    changed = change(deepcopy(made))
    before, mode = deepcopy(changed.state_dict()), changed.training
    with torch.no_grad():
        got = grad_cam(changed, images, classes)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert changed.training is mode
    assert all(torch.equal(tensor, before[name]) for name, tensor in changed.state_dict().items())
    assert not any(layer._forward_hooks for layer in changed.modules())
    assert all(parameter.grad is None for parameter in changed.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("small", (1, 64, 64), (8, 8)),
        ("resnet18", (3, 64, 64), (4, 4)),
        ("resnet9-narrow", (3, 32, 32), (4, 4)),
        ("emnist-middle", (1, 28, 28), (6, 6)),
        ("lenet", (1, 28, 28), (10, 10)),
        ("airbench", (3, 32, 32), (7, 7)),
        ("plain", (1, 28, 28), (7, 7)),
    ],
)
def test_the_layer_is_the_last_of_at_least_four_pixels(
    name: str, shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    made, image = network(name, shape), torch.rand(1, *shape)
    found: list[tuple[int, ...]] = []
    layer = feature_layer(made, image)
    layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output.shape[2:]))
    made(image)
    assert found == [size]


def test_a_network_without_a_map_is_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(UserError, match="at least 4×4"):
        grad_cam(flat, torch.rand(1, 1, 5, 5), torch.tensor([0]))


def test_overlays_keep_pixels_without_heat() -> None:
    grey, heat = np.full((4, 6), 77, np.uint8), np.zeros((4, 6), np.float32)
    heat[1, 2] = 1
    shown = overlay(grey, heat)
    assert shown.shape == (4, 6, 3)
    assert (shown[0] == 77).all()
    red, green, blue = shown[1, 2].tolist()
    assert red > green
    assert red > blue
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    in_grey = overlay(colours, np.zeros((4, 6), np.float32))
    assert (in_grey == in_grey[..., :1]).all()
