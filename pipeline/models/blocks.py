"""The parts of networks: the three groups of layers, convolutions, residual blocks."""

from copy import deepcopy

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height and width of an image
PAGE: Shape = (1, 64, 64)


class Network(nn.Module):
    """A network of `stem`, `body` and `head` in sequence."""

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = stem, body, head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, classes)."""
        logits: Tensor = self.head(self.body(self.stem(images)))
        return logits


def convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pool: bool = False
) -> nn.Sequential:
    """Return a convolution without bias, max-pooling if `pool`, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """A residual block: x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, with the shape and dtype of `x`."""
        residual: Tensor = self.body(x)
        return x + residual


class RepeatChannels(nn.Module):
    """Repeats one channel three times; leaves three as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a view of `x` (B, 1 or 3, H, W) with three channels."""
        return x.expand(-1, 3, -1, -1)


class DropSpareOutput(nn.Module):
    """Removes the last of the logits outside of training.

    Some published networks have one more output than classes. No label is it, so a training lowers
    it like any other. A prediction is one of the classes, so the logits of the eval mode are theirs
    alone; in training, a spare output that is the largest counts as an error.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits (B, classes + 1) in training, (B, classes) otherwise."""
        return logits if self.training else logits[:, :-1]


def features_of(layers: nn.Module, shape: Shape) -> int:
    """Return the number of values that layers compute for an image of a shape."""
    outline = deepcopy(layers).to("meta").eval()
    result: Tensor = outline(torch.empty(1, *shape, device="meta"))
    return result.numel()
