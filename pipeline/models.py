"""Networks for single-channel pictures: ink in [0, 1], float (B, 1, H, W) → logits (B, classes).

They know no data and no device. Both end in a mean over all positions, so any picture of at least
16 pixels a side will do.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.errors import UserError


def build(name: str, classes: int, seed: int) -> nn.Module:
    """Return a network with random weights that depend on the seed alone.

    Raises UserError for a name that is not in `NETWORKS`.
    """
    if name not in NETWORKS:
        raise UserError(f"network: got {name!r}, expected one of {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](classes)


def resnet18(classes: int) -> nn.Module:
    """Return torchvision's ResNet-18 (He et al. 2016) with one input channel: 11.2 M parameters."""
    import torchvision  # takes longer to import than the small network to start

    network: nn.Module = torchvision.models.resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


def small(classes: int, widths: tuple[int, int, int, int] = (32, 64, 96, 160)) -> nn.Module:
    """Return a plain CNN that is quick on a CPU: 0.3 M parameters.

    What costs time on a CPU is memory, not arithmetic. So the first convolution has a stride, and
    pooling comes before normalisation, which then has a quarter of the pixels to pass over.
    """
    first, second, third, last = widths
    return nn.Sequential(
        _convolution(1, first, kernel=5, stride=2),
        _convolution(first, second, pool=True),
        Residual(_convolution(second, second)),
        _convolution(second, third, pool=True),
        Residual(_convolution(third, third)),
        _convolution(third, last),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, classes),
    )


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


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"small": small, "resnet18": resnet18}
