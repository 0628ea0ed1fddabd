"""Networks for single-channel pictures: ink in [0, 1], float (B, 1, H, W) → logits (B, classes).

They know no data and no device. Each is three groups of layers, from the picture to the classes,
so that a recipe can freeze some, give each a learning rate of its own, or keep all but the head.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import UserError


class Network(nn.Module):
    """`stem`, `body` and `head`, one after another."""

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = stem, body, head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, classes)."""
        logits: Tensor = self.head(self.body(self.stem(images)))
        return logits


def build(name: str, classes: int, seed: int) -> Network:
    """Return a network with random weights that depend on the seed alone.

    Raises UserError for a name that is not in `NETWORKS`.
    """
    if name not in NETWORKS:
        raise UserError(f"network: got {name!r}, expected one of {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](classes)


def check_size(name: str, height: int, width: int) -> None:
    """Raise UserError for pictures that a network's layers would shrink to nothing."""
    if min(height, width) < (least := SMALLEST.get(name, 1)):
        raise UserError(
            f"size: got pictures of {height}×{width} pixels, expected at least {least} either way "
            f"for the network {name}"
        )


def transfer(network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Give a network the weights of another of its kind; return the names of those that do not fit.

    What does not fit is a head for other classes, which stays random. Raises UserError if anything
    else does not.
    """
    own = network.state_dict()
    fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
    others = tuple(sorted(own.keys() - fitting.keys()))
    if strangers := [name for name in others if not name.startswith("head.")]:
        raise UserError(f"weights: {strangers[0]} does not fit; they are another network's")
    network.load_state_dict({**own, **fitting})
    return others


def resnet18(classes: int) -> Network:
    """Return torchvision's ResNet-18 (He et al. 2016) with one input channel: 11.2 M parameters."""
    import torchvision  # takes longer to import than the small network to start

    whole = torchvision.models.resnet18(weights=None, num_classes=classes)
    whole.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(whole.conv1.weight, mode="fan_out", nonlinearity="relu")
    return Network(
        nn.Sequential(
            whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2
        ),
        nn.Sequential(whole.layer3, whole.layer4),
        nn.Sequential(whole.avgpool, nn.Flatten(), whole.fc),
    )


def small(classes: int, widths: tuple[int, int, int, int] = (16, 48, 96, 160)) -> Network:
    """Return a plain CNN that is quick on a CPU: 0.3 M parameters.

    What costs time on a CPU are the first layers, which have most pixels to pass over. So the first
    convolution has a stride and few channels, and pooling comes before normalisation. It ends in a
    mean over all positions, so pictures of at least 16 pixels a side will do.
    """
    first, second, third, last = widths
    return Network(
        nn.Sequential(
            _convolution(1, first, kernel=5, stride=2), _convolution(first, second, pool=True)
        ),
        nn.Sequential(
            Residual(_convolution(second, second)),
            _convolution(second, third, pool=True),
            Residual(_convolution(third, third)),
            _convolution(third, last),
        ),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)),
    )


def medium(classes: int) -> Network:
    """Return `small` with more channels: 0.6 M parameters."""
    return small(classes, (24, 64, 128, 256))


def plain(classes: int) -> Network:
    """Return a plain CNN for small pictures, of 28×28 pixels, say: 0.07 M parameters.

    As `small`, but for a stride: its first convolution looks at every place of the picture. It is
    narrow, since pictures this small have little to tell and a CPU has to see 60,000 of them.
    """
    return Network(
        _convolution(1, 16, pool=True),
        nn.Sequential(
            _convolution(16, 32, pool=True),
            Residual(_convolution(32, 32)),
            _convolution(32, 64, pool=True),
            Residual(_convolution(64, 64)),
        ),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)),
    )


def baseline(classes: int) -> Network:
    """Return the first published network for part 1, for pages of 1200×900: 106 M parameters.

    Four 6×6 convolutions, each with ReLU and 3×3 max-pooling, come to 256×8×12 on such a page; a
    last pooling brings other pages to the same. It took colours, so ink is given it three times.
    """
    return Network(
        nn.Sequential(_Threefold(), *_wide(3, 16), *_wide(16, 64)),
        nn.Sequential(*_wide(64, 128), *_wide(128, 256), nn.AdaptiveMaxPool2d((8, 12))),
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(24_576, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, classes),
        ),
    )


class _Threefold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def _wide(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 6), nn.MaxPool2d(3), nn.ReLU(inplace=True)


def _convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pool: bool = False
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum; shape and dtype are those of `x`."""
        change: Tensor = self.body(x)
        return x + change


NETWORKS: dict[str, Callable[[int], Network]] = {
    "small": small,
    "medium": medium,
    "plain": plain,
    "resnet18": resnet18,
    "baseline": baseline,
}
SMALLEST = {"baseline": 281}  # side in pixels, where not any will do
