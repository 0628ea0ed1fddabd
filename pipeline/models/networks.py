"""Networks for images: float (B, channels, H, W) → logits (B, classes).

Grey images have one channel: ink in [0, 1], unless the recipe normalises it.

Each has three groups of layers: stem, body and head. A recipe can freeze groups or give each its
own learning rate, and a transfer can replace the head.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.airbench import INITIAL_IMAGES, Airbench, airbench
from pipeline.models.blocks import PAGE, Network, RepeatChannels, Residual, Shape, convolution
from pipeline.models.fashion import fashion
from pipeline.models.published import (
    emnist_deeper,
    emnist_first,
    emnist_first_xavier,
    emnist_middle,
    lenet,
    resnet9,
)


def build(name: str, classes: int, seed: int, shape: Shape = PAGE) -> Network:
    """Return a network for images of a shape, whose random weights depend only on the seed.

    Raises UserError for a name that is not in `NETWORKS`, and for images that are too small.
    """
    if name not in NETWORKS:
        raise UserError(f"network: got {name!r}, expected one of {', '.join(NETWORKS)}")
    check_size(name, *shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](classes, shape)


def prepare_network(network: Network, images: Callable[[int], Tensor]) -> None:
    """Set the layers of a new network that depend on the training images, if it has any.

    `images(n)` returns n training images or fewer, of all classes, as the network sees them without
    augmentation: float (n, channels, H, W). It is only called if the network needs them.
    """
    if isinstance(network, Airbench):
        network.initialize(images(INITIAL_IMAGES))


def check_size(name: str, height: int, width: int) -> None:
    """Raise UserError for images that are too small for a network."""
    if min(height, width) < (least := SMALLEST.get(name, 1)):
        raise UserError(
            f"size: got images of {height}×{width} pixels, expected at least {least} either way "
            f"for the network {name}"
        )


def check_shape(name: str, classes: int, shape: Shape) -> None:
    """Raise UserError for images of a shape that a network cannot compute."""
    with torch.device("meta"), torch.no_grad():  # shapes without values
        try:
            build(name, classes, 0, shape).eval()(torch.empty(1, *shape))
        except RuntimeError as error:
            got = " × ".join(map(str, shape))
            raise UserError(
                f"shape: got {got} (channels × height × width), which the network {name} cannot "
                "compute"
            ) from error


def check_one_row(name: str, classes: int, shape: Shape) -> None:
    """Raise UserError if a network cannot be trained on one image of a shape at a time.

    Batch normalisation needs several values of a channel.
    """
    with torch.device("meta"):  # shapes without values
        try:
            build(name, classes, 0, shape).train()(torch.empty(1, *shape))
        except ValueError as error:
            raise UserError(
                f"batch_size: got one image at a time, expected at least two in each process for "
                f"the batch normalisation of the network {name}"
            ) from error


def transfer(network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load weights of the same architecture; return the names of weights that do not fit.

    A head for other classes does not fit and stays random. Raises UserError if weights of stem or
    body do not fit.
    """
    own = network.state_dict()
    fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
    random = tuple(sorted(own.keys() - fitting.keys()))
    if missing := [name for name in random if not name.startswith("head.")]:
        raise UserError(f"weights: {missing[0]} does not fit; they are of another network")
    network.load_state_dict({**own, **fitting})
    return random


def resnet18(classes: int, shape: Shape = PAGE) -> Network:
    """Return torchvision's ResNet-18 (He et al. 2016): 11.2 M parameters."""
    import torchvision  # takes longer to import than the small network to start

    whole = torchvision.models.resnet18(weights=None, num_classes=classes)
    whole.conv1 = nn.Conv2d(shape[0], 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(whole.conv1.weight, mode="fan_out", nonlinearity="relu")
    return Network(
        nn.Sequential(
            whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2
        ),
        nn.Sequential(whole.layer3, whole.layer4),
        nn.Sequential(whole.avgpool, nn.Flatten(), whole.fc),
    )


def small(
    classes: int,
    shape: Shape = PAGE,
    widths: tuple[int, int, int, int] = (16, 48, 96, 160),
    cells: int = 1,
) -> Network:
    """Return a plain CNN that is fast on a CPU: 0.3 M parameters.

    The first layers are the slowest on a CPU, since they process the most pixels. So the first
    convolution has a stride and few channels, and pooling comes before normalisation. The last
    layer averages over the positions in each of `cells` × `cells` parts of the image, so that with
    more than one, the head has the features of each part. Images need at least 16 pixels a side.
    """
    first, second, third, last = widths
    return Network(
        nn.Sequential(
            convolution(shape[0], first, kernel=5, stride=2),
            convolution(first, second, pool=True),
        ),
        nn.Sequential(
            Residual(convolution(second, second)),
            convolution(second, third, pool=True),
            Residual(convolution(third, third)),
            convolution(third, last),
        ),
        nn.Sequential(
            nn.AdaptiveAvgPool2d(cells), nn.Flatten(), nn.Linear(last * cells**2, classes)
        ),
    )


def plain(classes: int, shape: Shape = PAGE) -> Network:
    """Return a plain CNN for small images, such as 28×28 pixels: 0.07 M parameters.

    Unlike `small`, its first convolution has no stride. It is narrow, so that a CPU trains on
    60,000 images in a short time.
    """
    return Network(
        convolution(shape[0], 16, pool=True),
        nn.Sequential(
            convolution(16, 32, pool=True),
            Residual(convolution(32, 32)),
            convolution(32, 64, pool=True),
            Residual(convolution(64, 64)),
        ),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)),
    )


def baseline(classes: int, _shape: Shape = PAGE) -> Network:
    """Return the first published network for part 1, for pages of 1200×900: 106 M parameters.

    Four 6×6 convolutions, each with ReLU and 3×3 max-pooling, turn such a page into 256×8×12; a
    last pooling gives pages of other sizes the same shape. The network takes three colour channels,
    so the ink is repeated three times.
    """
    return Network(
        nn.Sequential(RepeatChannels(), *_conv6(3, 16), *_conv6(16, 64)),
        nn.Sequential(*_conv6(64, 128), *_conv6(128, 256), nn.AdaptiveMaxPool2d((8, 12))),
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(24_576, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, classes),
        ),
    )


def _conv6(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 6), nn.MaxPool2d(3), nn.ReLU(inplace=True)


NETWORKS: dict[str, Callable[[int, Shape], Network]] = {
    "small": small,
    "medium": partial(small, widths=(24, 64, 128, 256)),  # 0.6 M parameters
    "compact": partial(small, widths=(16, 32, 64, 160), cells=2),  # 0.2 M parameters
    "plain": plain,
    "resnet18": resnet18,
    "baseline": baseline,
    "emnist-first": emnist_first,
    "emnist-first-xavier": emnist_first_xavier,
    "emnist-middle": emnist_middle,
    "emnist-deeper": emnist_deeper,
    "lenet": lenet,
    "fashion": fashion,
    "fashion-wide": partial(fashion, widths=(48, 96, 192)),  # 1.1 M parameters
    "resnet9": resnet9,
    "resnet9-narrow": partial(resnet9, width=16),  # 0.4 M parameters, for a CPU
    "airbench": airbench,
}
# Minimum side in pixels; the others take any size that a stage can have.
SMALLEST = {
    "baseline": 281,
    "emnist-middle": 28,
    "emnist-deeper": 28,
}
