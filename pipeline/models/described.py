"""Networks of convolutions that are described in a line, for exercises and comparisons."""

import re

from torch import nn

from pipeline.errors import UserError
from pipeline.models.blocks import Network, Shape, features_of

FORMS = "convK-N (a K×K convolution to N channels; /S: stride, pP: padding), maxpoolK, relu"


def described(text: str, shape: Shape) -> Network:
    """Return a network of layers in sequence, for images of a shape, with random weights.

    The layers are separated by commas: "conv3-100/2p1,relu,maxpool2" is a 3×3 convolution to 100
    channels with stride 2 and padding 1, without bias, then ReLU and 2×2 max-pooling. It has no
    classes: its output is that of the last layer. Raises UserError for anything else, and for
    images that are too small.
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    for word in text.split(","):
        if match := re.fullmatch(r"conv(\d+)-(\d+)(?:/(\d+))?(?:p(\d+))?", word):
            kernel, outputs, stride, padding = map(int, match.groups("0"))
            stride = stride if match[3] else 1
            _check(word, kernel, outputs, stride)
            layers.append(nn.Conv2d(channels, outputs, kernel, stride, padding=padding, bias=False))
            channels = outputs
        elif match := re.fullmatch(r"maxpool(\d+)", word):
            _check(word, int(match[1]))
            layers.append(nn.MaxPool2d(int(match[1])))
        elif word == "relu":
            layers.append(nn.ReLU(inplace=True))
        else:
            raise UserError(
                f"network: got {word!r}, expected the name of a network, or layers as in "
                f"conv5-6,relu,maxpool2: {FORMS}"
            )
    network = Network(nn.Sequential(*layers), nn.Sequential(), nn.Sequential())
    try:
        features_of(network, shape)
    except RuntimeError as error:
        size = "×".join(map(str, shape))
        raise UserError(f"input: got {size}, which is too small for the layers {text}") from error
    return network


def _check(word: str, *numbers: int) -> None:
    if not all(numbers):
        raise UserError(f"network: got {word!r}, expected numbers from 1 on")
