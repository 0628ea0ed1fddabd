"""A residual network for small grey images, such as Fashion-MNIST's, that a CPU trains quickly."""

from torch import nn

from pipeline.models.blocks import Network, Residual, Shape, convolution

Widths = tuple[int, int, int]


def fashion(classes: int, shape: Shape, widths: Widths = (32, 64, 128)) -> Network:
    """Return eight convolutions and a linear layer: 0.47 M parameters by default.

    On a CPU, arithmetic limits the speed of training. So images of 28 pixels are pooled to 14
    before the second convolution, and each further group of convolutions has half the side and
    twice the channels: about the same arithmetic, 16 million multiplications an image in all.
    """
    first, second, third = widths
    return Network(
        nn.Sequential(convolution(shape[0], first, pool=True), Residual(convolution(first, first))),
        nn.Sequential(
            convolution(first, second, pool=True),
            _double(second),
            convolution(second, third, pool=True),
            _double(third),
        ),
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(third, classes)),
    )


def _double(width: int) -> Residual:
    return Residual(nn.Sequential(convolution(width, width), convolution(width, width)))
