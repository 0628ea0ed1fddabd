"""A step of training on a GPU never waits for it.

Simulated: fake tensors of the device cuda have shapes and no values, and every operation is
watched, except for those of the backward pass, which needs a GPU. What waits is to read a value, to
copy from the host without `non_blocking`, and to select by a mask, whose count the host needs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.loading.augment import Augmentation, Transforms, transform_images
from pipeline.loading.dataset import Normalize
from pipeline.loading.image_augment import ImageAugmentation, augment_images
from pipeline.loading.rasterize import rasterize
from pipeline.models import networks
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Stage
from pipeline.training import optim
from pipeline.training.ema import MovingAverage
from pipeline.training.mixed_precision import MixedPrecision

pytestmark = pytest.mark.filterwarnings(
    "ignore:Accessing the data pointer of FakeTensor", "ignore:CUDA is not available"
)
GPU = torch.device("cuda", 0)
ROWS, CLASSES = 8, 10
READS = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select")


class Watch(TorchDispatchMode):
    """Raises AssertionError for an operation that makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        name = function.name().split(".")[0]
        assert name not in READS, f"{name} reads a value"
        tensors = [one for one in arguments if isinstance(one, Tensor)]
        # One value for a mask is filled in, without a count.
        filled = name.startswith("aten::index_put") and arguments[2].numel() == 1
        if name.startswith("aten::index") and isinstance(arguments[1], list | tuple) and not filled:
            masks = [one for one in arguments[1] if one is not None and one.dtype == torch.bool]
            assert not masks, f"{name} selects by a mask"
        if name == "aten::_to_copy" and options.get("device") is not None:
            moves = tensors[0].device != options["device"]
            assert not moves or options.get("non_blocking"), f"{name} copies and waits"
        if name == "aten::copy_":
            target, source, *blocking = arguments
            moves = target.device != source.device
            assert not moves or any(blocking), f"{name} copies and waits"
        return function(*arguments, **options)


@pytest.fixture
def faked() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def test_what_waits_is_seen() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        values, host = torch.rand(4, device=GPU), torch.rand(4)
        for waits in (
            lambda: values.to("cpu"),
            lambda: host.to(GPU),
            lambda: values.copy_(host),
            lambda: torch.tensor([1.0, 2.0], device=GPU),
            lambda: values[values > 0.5],
            lambda: values.nonzero(),
            lambda: float(values[0]),
        ):
            with pytest.raises((AssertionError, RuntimeError)), Watch():
                waits()
        with Watch():
            host.to(GPU, non_blocking=True)


@pytest.mark.usefixtures("faked")
def test_runs_become_augmented_images() -> None:
    runs = torch.zeros(100, 4, dtype=torch.uint16, device=GPU)
    offsets = torch.zeros(ROWS + 1, dtype=torch.int64, device=GPU)
    backgrounds = torch.zeros(ROWS, dtype=torch.uint8, device=GPU)
    geometry = torch.ones(ROWS, 6, dtype=torch.float64, device=GPU)
    everything = Augmentation(
        rotation=5, zoom=0.1, aspect=0.1, shear=0.1, translation=0.1, pen=0.5, warp=0.1,
        lighting=0.2, elastic=0.02,
    )  # fmt: skip
    parts = everything.sample(0, 0, np.arange(ROWS)).parts()
    moved = {name: part.to(GPU, non_blocking=True) for name, part in parts.items()}
    with Watch():
        canvases = rasterize(runs, offsets, backgrounds, geometry, 48, 64)
        images = transform_images(canvases / 255, Transforms(**moved), 32)
    assert images.shape == (ROWS, 1, 32, 32)
    assert images.device == GPU


def on_gpu(network: nn.Module) -> nn.Module:
    """The network with fake tensors of the GPU in place of its own."""
    for module in network.modules():
        for name, own in module.named_parameters(recurse=False):
            fake = torch.empty(own.shape, device=GPU)
            setattr(module, name, nn.Parameter(fake))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device=GPU))
    return network


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
@pytest.mark.parametrize(
    "loss", [Loss("focal"), Loss("forward", transition=tuple(map(tuple, np.eye(CLASSES))))]
)
def test_a_step_of_training(loss: Loss, optimizer: str) -> None:
    network = networks.build("small", CLASSES, 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        take_steps(on_gpu(network), loss, optimizer)


def take_steps(network: nn.Module, loss: Loss, optimizer: str) -> None:
    images = torch.rand(ROWS, 1, 32, 32, device=GPU)
    labels = torch.zeros(ROWS, dtype=torch.int64, device=GPU)
    sums, weights = torch.zeros(4, device=GPU), torch.ones(CLASSES, device=GPU)
    stage = Stage(32, 1, 1e-3, mixing=Mixing(mixup=0.4, cutmix=0.4), loss=loss, optimizer=optimizer)
    chosen, average = optim.build(network, stage), MovingAverage(network, 0.9)
    arithmetic = MixedPrecision(GPU, "bf16")
    with torch.no_grad(), Watch():
        for _ in range(2):
            optim.set_lr(chosen, 0.5)
            mixed = stage.mixing.mix(images, labels, np.arange(ROWS), 0, 0)
            with arithmetic.autocast():
                logits = network(mixed.images)
            losses = loss.of(logits.float(), mixed, weights).sum() / ROWS
            for one in network.parameters():
                one.grad = torch.zeros_like(one)
            norm = arithmetic.step(chosen, [*network.parameters()], 1.0, optimizer == "Muon")
            assert norm is not None
            average.update(network)
            sums[:2] += torch.stack([losses, (logits.argmax(dim=1) == labels).sum()])
            sums[2] += norm
            sums[3] += 1


@pytest.mark.usefixtures("faked")
def test_images_in_colour_are_augmented() -> None:
    images = torch.rand(ROWS, 3, 32, 32, device=GPU)
    for change in (
        ImageAugmentation(crop_scale=(0.5, 1.0), flip=0.5, brightness=0.2, contrast=0.2,
                          saturation=0.2, hue=0.1, grey=0.5, cutout=8),
        ImageAugmentation(pad=2, rand_augment=2),
    ):  # fmt: skip
        sampled = change.sample(0, 0, np.arange(ROWS), (32, 32))
        with Watch():
            augment_images(images, sampled, Normalize((0.5,) * 3, (0.2,) * 3))
